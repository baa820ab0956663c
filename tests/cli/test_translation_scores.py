"""`seqtext score` and `seqtext evaluate` with translators: figures, extremes, comparisons, and what they refuse."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import sacrebleu

import seqtext
from seqtext.metrics.bootstrap import compare

PAIRS = [
    ("The cat sees the dog.", "Die Katze sieht den Hund."),
    ("", ""),
    ("The cat sees the dog.", "Der Hund sieht die Katze."),
    ("", "Hund"),
    ("The cat", ""),
]
TEXT = "".join(f"{source}\t{target}\n" if source or target else "\n" for source, target in PAIRS)


def test_score_gives_each_pair_the_probability_of_its_translation(cli, translator, tmp_path):
    model = seqtext.load(translator)
    shown = cli("score", translator, stdin=TEXT.encode())
    rows = [line.split("\t") for line in shown.lines]
    assert len(rows) == 5 and rows[1] == rows[3] == ["0.0000", "nan", "0", "0"]
    [best] = model.predict([PAIRS[0][0]], alpha=0.0, early=False)[0].candidates
    assert best.text == PAIRS[0][1] and float(rows[0][0]) == pytest.approx(best.log_probability, abs=1e-4)
    assert float(rows[0][0]) > float(rows[2][0]) + 1
    tokens = len(model.task.target.encode(PAIRS[0][1]).ids) + 1
    assert rows[0][2:] == [str(tokens), "0"] and rows[4][2:] == ["1", "0"]  # of nothing, its end
    assert float(rows[0][1]) == pytest.approx(math.exp(-float(rows[0][0]) / tokens), rel=1e-3)
    (tmp_path / "pairs").write_text(TEXT, encoding="utf-8")
    assert cli("score", translator, tmp_path / "pairs", "--batch-tokens", 1).lines == shown.lines
    found = [json.loads(line) for line in cli("score", translator, "--json", stdin=TEXT.encode()).lines]
    assert [(line["source"], line["target"]) for line in found] == PAIRS
    assert list(found[0]) == ["source", "target", "log_probability", "perplexity", "tokens", "unknown"]
    assert found[1]["perplexity"] is None and f"{found[0]['log_probability']:.4f}" == rows[0][0]


def test_score_counts_what_the_target_vocabulary_lacks(cli, worded):
    text = "The cat sees the dog.\tDie Katze sieht den Igel und Zebra.\n"
    assert cli("score", worded, stdin=text.encode()).lines[0].split("\t")[2:] == ["9", "3"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("The cat", "{file}:2: no tab; expected a source, one tab and a translation"),
        ("The cat\tDie Katze\t0.5", "{file}:2: 2 tabs; expected a source, one tab and a translation"),
    ],
)
def test_a_line_that_is_no_pair_is_told_by_its_number(cli, translator, tmp_path, line, message):
    file = tmp_path / "pairs"
    file.write_text(f"The cat\tDie Katze\n{line}\n", encoding="utf-8")
    result = cli("score", translator, file)
    assert result.status == 2 and len(result.lines) == 1
    assert result.err == f"seqtext: {message.format(file=file)}\n"
    result = cli("score", translator, stdin=file.read_bytes())
    assert result.err == f"seqtext: {message.format(file='standard input')}\n"


def references(sentences):
    return [(sentences / f"test.{language}").read_text(encoding="utf-8").splitlines() for language in ("en", "de")]


def test_evaluate_prints_scores_and_how_they_came_about(cli, translator, sentences):
    sources, targets = references(sentences)
    result = seqtext.evaluate(translator, beam=2, alpha=0.5)
    texts = [one.text for one in seqtext.predict(translator, sources, beam=2, alpha=0.5)]
    bleu = sacrebleu.corpus_bleu(texts, [targets])
    assert result.scores["bleu"] == pytest.approx(bleu.score)
    shown = cli("evaluate", translator, "--beam", 2, "--alpha", 0.5)
    assert shown.lines[0] == "Translations" and shown.lines[2].startswith(
        f"BLEU\t{bleu.score:.2f}\tnrefs:1|case:mixed|"
    )
    assert shown.lines[-1] == result.settings
    assert result.settings.startswith("BLEU nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    facts = f"; beam 2, average length penalty, alpha 0.5; test of {sentences}; seqtext {seqtext.__version__}"
    assert result.settings.endswith(facts)
    assert all(f"; {name} nrefs:1|" in result.settings for name in ("chrF2", "TER", "BLEU, lower-cased, tokenised"))
    assert shown.lines[5].startswith("BLEU, lower-cased, tokenised\t")
    printed = json.loads(cli("evaluate", translator, "--beam", 2, "--alpha", 0.5, "--json").out)
    assert printed == {"split": "test", "examples": 30, "metric": result.settings, **result.scores}
    assert "; beam 5, average length penalty, alpha 1; " in seqtext.evaluate(translator).settings


def read(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_evaluate_lists_the_best_and_the_worst_translations(cli, translator, sentences, tmp_path):
    sources, targets = references(sentences)
    texts = [one.text for one in seqtext.predict(translator, sources)]
    chrf = [round(sacrebleu.sentence_chrf(text, [target]).score, 2) for text, target in zip(texts, targets)]
    shown = cli("evaluate", translator, "--worst", 4)
    worst, best = translator / "worst.jsonl", translator / "best.jsonl"
    assert shown.err == (
        f"{worst}: the 4 examples with the lowest chrF2\n{best}: the 4 examples with the highest chrF2\n"
    )
    assert [line["chrf2"] for line in read(worst)] == sorted(chrf)[:4]
    assert [line["chrf2"] for line in read(best)] == sorted(chrf, reverse=True)[:4]
    for line in read(worst) + read(best):
        row = line["example"] - 1
        assert line == {
            "split": "test",
            "data": str(sentences),
            "example": row + 1,
            "chrf2": chrf[row],
            "source": sources[row],
            "translation": texts[row],
            "reference": targets[row],
        }
    before = worst.read_bytes()
    elsewhere = tmp_path / "few.jsonl"
    shown = cli("evaluate", translator, "--worst", 2, "--errors", elsewhere)
    assert read(elsewhere) == read(worst)[:2] and worst.read_bytes() == before and len(read(best)) == 2


def test_lists_of_other_data_or_of_an_ensemble_are_no_part_of_the_run(cli, translator, beginner, sentences, tmp_path):
    cli("evaluate", translator)
    files = [translator / "worst.jsonl", translator / "best.jsonl"]
    before = [file.read_bytes() for file in files]
    other = shutil.copytree(sentences, tmp_path / "other")
    elsewhere = tmp_path / "worst.jsonl"
    for words in (["--data", other], ["data.drop_duplicates=true"], ["--ensemble", beginner]):
        assert cli("evaluate", translator, *words, "--worst", 3).err == ""
        assert [file.read_bytes() for file in files] == before
        shown = cli("evaluate", translator, *words, "--errors", elsewhere, "--worst", 3)
        assert shown.err == f"{elsewhere}: the 3 examples with the lowest chrF2\n" and len(read(elsewhere)) == 3
        assert [file.read_bytes() for file in files] == before


def test_an_ensemble_is_scored_as_one(cli, refused, translator, beginner, worded, sentences):
    sources, targets = references(sentences)
    together = seqtext.load(translator, ensemble=[beginner])
    bleu = sacrebleu.corpus_bleu([one.text for one in together.predict(sources)], [targets]).score
    shown = json.loads(cli("evaluate", translator, "--ensemble", beginner, "--json").out)
    assert (
        shown["bleu"] == pytest.approx(bleu) and shown["perplexity"] > seqtext.evaluate(translator).scores["perplexity"]
    )
    assert f"; beam 5, average length penalty, alpha 1, together with {beginner}; test of " in shown["metric"]
    told = refused("evaluate", translator, "--ensemble", worded)
    assert told.startswith(f"{translator} and {worded} cannot be one ensemble: they must have the same ")


def test_data_of_other_languages_are_told_and_of_swapped_ones_refused(cli, refused, translator, sentences, tmp_path):
    sources, targets = references(sentences)
    for names in (("eng", "de"), ("de", "en")):
        folder = tmp_path / names[0]
        folder.mkdir()
        for name, texts in zip(names, (sources, targets)):
            (folder / f"test.{name}").write_text("\n".join(texts) + "\n", encoding="utf-8")
    plain = cli("evaluate", translator, "--json")
    shown = cli("evaluate", translator, "data.source_language=eng", "--data", tmp_path / "eng", "--json")
    assert json.loads(shown.out)["bleu"] == json.loads(plain.out)["bleu"]
    assert shown.err == "warning: the data are eng-de, and this run translates from en to de\n"
    words = ["data.source_language=de", "data.target_language=en"]
    told = refused("evaluate", translator, *words, "--data", sentences)
    given = 'data.source_language is "de" and data.target_language "en"'
    assert told == f"{given}: this run translates from en to de; leave both out"
    # The files have each other's names; twice the text, for of few words nothing is said.
    for file in (tmp_path / "de").iterdir():
        file.write_text(file.read_text(encoding="utf-8") * 2, encoding="utf-8")
    shown = cli("evaluate", translator, "--data", tmp_path / "de")
    assert shown.err.startswith("warning: the sides look swapped: frequent words of the source (")
    assert "warning" not in cli("evaluate", translator, "--data", sentences).err


def test_evaluate_compares_two_runs_on_the_same_data(cli, translator, beginner, sentences):
    sources, targets = references(sentences)
    weak, strong = ([one.text for one in seqtext.predict(one, sources)] for one in (beginner, translator))
    expected = compare(weak, strong, targets)
    shown = cli("evaluate", translator, "--compare", beginner)
    at = shown.lines.index("Paired bootstrap (1,000 resamples, seed 12345; p as sacreBLEU's; of TER, less is better)")
    assert shown.lines[at + 1].split("\t")[1:7] == ["baseline", "this", "difference", "95% interval", "p", "better in"]
    for line, row in zip(shown.lines[at + 2 : at + 5], expected):
        figures = [f"{row.baseline:.2f}", f"{row.system:.2f}", f"{row.difference:+.2f}"]
        rest = [f"{row.low:+.2f} to {row.high:+.2f}", f"{row.p:.4f}", f"{row.wins:.1%}", row.signature]
        assert line.split("\t") == [row.metric, *figures, *rest]
    assert [row.metric for row in expected] == ["BLEU", "chrF2", "TER"] and expected[0].p < 0.05
    assert shown.lines[-1].endswith(f"; compared with {beginner} (beam 5, average length penalty, alpha 1)")
    found = json.loads(cli("evaluate", translator, "--compare", beginner, "--json").out)["comparison"]
    assert found["baseline"] == str(beginner)
    assert found["scores"] == [row._asdict() | {"difference": row.difference} for row in expected]


def test_what_cannot_be_compared_is_told(refused, cli, translator, beginner, run, tmp_path):
    told = refused("evaluate", run, "--compare", translator)
    assert told == f"{run}: a run of the task ner, which compares no runs"
    told = refused("evaluate", translator, "--compare", run)
    assert told == f"{run}: a run of the task ner, and {translator} one of translation"
    assert refused("evaluate", translator, "--compare", "no-run") == "no-run: no such run folder"
    told = refused("evaluate", run, "--beam", 2)
    assert told == f"{run}: a run of the task ner, which has no option beam; its options: confidence, nbest"
    assert refused("evaluate", translator, "--beam", 0) == "--beam 0: expected a whole number, 1 or more"
    # The other run was tested on other data.
    other, data = Path(shutil.copytree(beginner, tmp_path / "other")), tmp_path / "data"
    source = seqtext.load(beginner).run.recipe.data.source
    shutil.copytree(source, data)
    recipe = (other / "recipe.toml").read_text(encoding="utf-8")
    (other / "recipe.toml").write_text(recipe.replace(source, str(data)), encoding="utf-8")
    assert cli("evaluate", translator, "--compare", other).status == 0
    german = (data / "test.de").read_text(encoding="utf-8").splitlines()
    (data / "test.de").write_text("\n".join([*german[:2], "Etwas anderes.", *german[3:]]) + "\n", encoding="utf-8")
    advice = "; --data gives both the same"
    told = refused("evaluate", translator, "--compare", other)
    assert told == f"{translator} and {other}: their test data differ: example 3 is not the same{advice}"
    for language in ("en", "de"):
        (data / f"test.{language}").write_text("Ja.\n", encoding="utf-8")
    told = refused("evaluate", translator, "--compare", other)
    assert told == f"{translator} and {other}: their test data differ: 30 examples and 1{advice}"
    assert cli("evaluate", translator, "--compare", other, "--data", source).status == 0
