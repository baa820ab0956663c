"""Starting from a language model: whose row a word gets, what the layers then compute, and what is said of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import seqtext
from seqtext import api, recipe, run, session
from seqtext.config import parse
from seqtext.data.samples import ner_sample
from seqtext.data.stream import EOS
from seqtext.data.tokenizer import Tokenizer, TokenizerConfig
from seqtext.errors import InputError, RunError
from seqtext.run import Run
from seqtext.tasks.lm import Lm, LmData
from seqtext.tasks.ner import Ner, NerData
from seqtext.tasks.sentiment import Sentiment, SentimentData
from seqtext.transfer import Source, Transferred, matched, start_from

WORDS = ["the", "Paris", "PARIS", "river", "1990", "1991", "00", "Rome", "seine"]


def tokenizer(words: list[str], *, unit: Any = "word", specials: tuple[str, ...] = ()) -> Tokenizer:
    """Entries numbered in the order of `words`."""
    counts = {word: 2 * len(words) - place for place, word in enumerate(words)}
    return Tokenizer.train_words(counts, TokenizerConfig(unit=unit), specials=specials)


def language_model(words: list[str] = WORDS, *, seed: int = 1, unit: Any = "word", **settings: Any) -> Source:
    """A language model of random weights, of two layers unless `settings` say otherwise."""
    sizes = {"model.embedding_size": 6, "model.encoder.hidden_size": 5, "model.encoder.layers": 2}
    chosen = recipe.load("lm", sizes | {f"model.{key.replace('__', '.')}": value for key, value in settings.items()})
    task = Lm(LmData(), tokenizer(words, unit=unit, specials=(EOS,)), pretokenized=True)
    torch.manual_seed(seed)
    module = task.build(chosen.model).eval()
    for parameter in module.parameters():
        parameter.data.uniform_(-0.5, 0.5)
    return Source(Run(Path("runs/lm"), chosen, task, {}), task.tokenizer, module, "a model")


def tagger(words: list[str] = WORDS, *, lowercase: bool = False, fold_digits: bool = False, **settings: Any) -> Any:
    """A tagging task and a function that builds its module, of random weights."""
    sizes = {"model.embedding.size": 6, "model.encoder.hidden_size": 5, "model.encoder.layers": 2}
    shown = {f"model.{key.replace('__', '.')}": value for key, value in settings.items()}
    chosen = recipe.load("ner", sizes | shown)
    data = NerData.model_validate({"words": {"lowercase": lowercase, "fold_digits": fold_digits}})
    task: Any = Ner.fit(data, datasets.Dataset.from_dict({"tokens": [words], "tags": [["O"] * len(words)]}))

    def build() -> Any:
        torch.manual_seed(8)
        return task.build(chosen.model).eval()

    return task, build


def rows_of(new: Tokenizer, source: Source) -> dict[str, float]:
    """What each entry has of a table whose rows are 1, 10, 100 ... for the words, and minus their ids before them."""
    first = len(source.tokenizer.specials)
    table = torch.tensor([[float(10 ** max(0, row - first)) if row >= first else -float(row)] for row in range(12)])
    taken = matched(new, source).take(table.double())
    return {new.token(entry): taken[entry].item() for entry in range(new.size)}


def test_a_word_starts_from_its_own_row_or_from_those_written_alike() -> None:
    source = language_model()
    new = ["Rome", "The", "paris", "0000", "0,00", "77", "unheard"]
    found = rows_of(tokenizer(new), source)
    everything = sum(10.0**place for place in range(len(WORDS)))
    expected = {
        "<pad>": -0.0,
        "<unk>": -1.0,
        "Rome": 1e7,  # itself
        "The": 1e0,  # in lower case
        "paris": (1e1 + 1e2) / 2,  # the mean of Paris and PARIS
        "0000": (1e4 + 1e5) / 2,  # of the years
        "77": 1e6,  # with digits as 0
        "0,00": everything / len(WORDS),  # of all words
        "unheard": everything / len(WORDS),
    }
    assert found == pytest.approx(expected, rel=1e-12)
    assert matched(tokenizer(new), source).fact == (
        "5 of 7 words (71.4%), 4 of them by their form in lower case or with other digits; "
        "the others start at the mean of all words"
    )
    # What is special in one vocabulary is no word of the other, and the other way round.
    assert rows_of(tokenizer(["Rome", EOS]), source)[EOS] == pytest.approx(everything / len(WORDS))
    assert rows_of(tokenizer(["Rome"], specials=(EOS,)), source)[EOS] == -2.0


def fold(word: str) -> str:
    return "".join("0" if character.isdigit() else character.lower() for character in word)


EVERY = [first + second for first in ("", *"aA01") for second in "aA01"]


@given(st.lists(st.sampled_from(EVERY), min_size=1, max_size=9, unique=True))
def test_rows_are_those_of_the_rule_written_out(old: list[str]) -> None:
    source = language_model(old)

    def row(word: str) -> float:
        alike = [10.0 ** old.index(other) for other in old if fold(other) == fold(word)]
        digits = "".join("0" if character.isdigit() else character for character in word)
        for form in (word, word.lower(), digits, fold(word)):
            if form in old:
                return 10.0 ** old.index(form)
        alike = alike or [10.0 ** old.index(other) for other in old]
        return sum(alike) / len(alike)

    found = rows_of(tokenizer(EVERY), source)
    assert [found[word] for word in EVERY] == pytest.approx([row(word) for word in EVERY], rel=1e-12)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("directions", [1, 2])
def test_a_tagger_reads_forward_as_the_language_model_does(cell: str, directions: int) -> None:
    source = language_model(encoder__cell=cell)
    task, build = tagger(
        list(reversed(WORDS)), encoder__cell=cell, encoder__bidirectional=directions == 2, embedding__shapes=3
    )
    module, drawn = build(), build()
    facts = dict(start_from(source, task, module))
    assert facts["embedding"] == "9 of 9 words (100.0%)"
    rest = "those of characters and shapes"
    assert facts["encoder.layers.0 forward"] == f"loaded; 53 of 59 inputs stay random: {rest}"
    if directions == 2:
        rest = "those of the backward direction"
        assert facts["encoder.layers.1 forward"] == f"loaded; 5 of 10 inputs stay random: {rest}"
        assert facts["encoder.layers.1 backward"] == "stays random: a language model reads forward only"
    else:
        assert facts["encoder.layers.1 forward"] == "loaded" and "encoder.layers.1 backward" not in facts
    # All else is as it was drawn.
    known = {
        f"encoder.layers.{depth}.0.kernel.{name}_l0" for depth in (0, 1) for name in ("weight_hh", "bias_ih", "bias_hh")
    }
    for name, value in module.state_dict().items():
        before = drawn.state_dict()[name]
        if name.endswith(".0.kernel.weight_ih_l0") and "encoder" in name:
            width = 6 if ".layers.0." in name else 5
            assert torch.equal(value[:, width:], before[:, width:]) and not torch.equal(
                value[:, :width], before[:, :width]
            )
            module.get_parameter(name).data[:, width:] = 0.0  # that only what the language model knows is read
        elif name == "embedding.table.weight":
            assert (value[0] == 0.0).all() and not (value == before)[1:].any()
        else:
            assert torch.equal(value, before) != (name in known), name
    text = "the 1990 Rome river PARIS seine"
    (batch,) = task.batches(task.inputs([task.prepare(text, pretokenized=True)]), tokens=99)
    states, _ = module.encoder(module.embedding(batch.words), batch.lengths)
    ids = torch.tensor([source.tokenizer.encode_words(text.split())])
    torch.testing.assert_close(states[..., :5], source.module(ids).states)


@pytest.mark.parametrize("name", ["gru", "cnn", "esn", "bow"])
def test_a_classifier_starts_with_the_words_and_with_the_layers_that_recur(name: str) -> None:
    source = language_model(encoder__cell="gru", encoder__layers=1)
    rows = {"tokens": [WORDS], "label": ["good"], "text": [" ".join(WORDS)]}
    task: Any = Sentiment.fit(SentimentData(), datasets.Dataset.from_dict(rows))
    sizes: dict[str, Any] = {"name": name, "hidden_size": 5} if name == "gru" else {"name": name}
    module = task.build(parse(Sentiment.Model, {"embedding": {"size": 6}, "encoder": sizes}, source="recipe"))
    facts = dict(start_from(source, task, module))
    assert facts["embedding"].startswith("7 of 7 words (100.0%)")  # in lower case, with digits as 0
    place = source.tokenizer.id
    old, new = source.module.embedding.weight, module.embedding.table.weight
    torch.testing.assert_close(new[task.lexicon.words.id("paris")], (old[place("Paris")] + old[place("PARIS")]) / 2)
    if name == "gru":
        assert facts["encoder.layers.0 forward"] == "loaded"
        kernels = [layer[0].kernel for layer in (module.encoder.stack.layers[0], source.module.encoder.layers[0])]
        assert all(torch.equal(one, other) for one, other in zip(*(kernel.parameters() for kernel in kernels)))
    else:
        assert facts["encoder"] == "stays random: it does not recur as a language model does"


def test_what_does_not_fit_stays_as_drawn_and_says_why() -> None:
    def facts(source: Source, **settings: Any) -> dict[str, str]:
        task, build = tagger(embedding__characters__name="none", **settings)
        return dict(start_from(source, task, build()))

    source = language_model()
    assert facts(source, embedding__size=7) == {
        "init_from": "a model",
        "embedding": "stays random: 7 features, the language model's 6",
        "encoder.layers.0 forward": "recurrent matrix and biases loaded; what its input matrix reads was not, "
        "so that stays random",
        "encoder.layers.0 backward": "stays random: a language model reads forward only",
        "encoder.layers.1 forward": "loaded; 5 of 10 inputs stay random: those of the backward direction",
        "encoder.layers.1 backward": "stays random: a language model reads forward only",
    }
    wide = facts(source, encoder__hidden_size=4, encoder__last_size=5, encoder__layers=3, encoder__bidirectional=False)
    assert wide["encoder.layers.0 forward"] == "stays random: hidden size 4, the language model's 5"
    assert wide["encoder.layers.2 forward"] == "stays random: the language model has 2 layers"
    assert facts(source, embedding__size=0, embedding__shapes=2)["embedding"] == (
        "there is none: model.embedding.size is 0"
    )
    assert facts(source, encoder__cell="gru")["encoder.layers.1 forward"] == (
        "stays random: its cell is gru, the language model's lstm"
    )
    tanh = language_model(encoder__cell="rnn")
    settings = {"encoder__cell": "rnn", "encoder__cell_options": {"nonlinearity": "relu"}}
    assert facts(tanh, **settings)["encoder.layers.0 forward"] == (
        'stays random: its cell is rnn with nonlinearity = "relu", the language model\'s rnn'
    )


def test_a_table_that_is_added_to_pretrained_vectors_is_not_loaded(tmp_path: Path) -> None:
    source, path = language_model(), tmp_path / "vectors.txt"
    path.write_text("".join(f"{word} 1 2 3 4 5 6\n" for word in WORDS), encoding="utf-8")
    chosen = recipe.load("ner", {"model.encoder.hidden_size": 5, "model.encoder.layers": 2})
    data = NerData.model_validate({"words": {"vectors": str(path)}})
    task = Ner.fit(data, datasets.Dataset.from_dict({"tokens": [WORDS], "tags": [["O"] * len(WORDS)]}))
    module = task.build(chosen.model)
    table = module.embedding.table.weight.clone()  # type: ignore[union-attr]
    facts = dict(start_from(source, task, module))
    assert facts["embedding"] == "stays as it is: beside pretrained vectors it holds only what is added to them"
    assert torch.equal(module.embedding.table.weight, table)  # type: ignore[union-attr]
    assert facts["encoder.layers.0 forward"].startswith("recurrent matrix and biases loaded")


MODELS: list[dict[str, Any]] = [
    {},
    {"tied": False},
    {"encoder__last_size": 6},
    {"tied": False, "softmax__name": "adaptive", "softmax__cutoffs": [4, 8], "softmax__div_value": 2.0},
]


@pytest.mark.parametrize("settings", MODELS)
def test_a_language_model_of_the_same_words_predicts_what_the_old_one_did(settings: dict[str, Any]) -> None:
    source = language_model(**settings)
    adaptive = "softmax__name" in settings
    # Its clusters keep their words only where the order of the words is the same.
    other = language_model(WORDS if adaptive else list(reversed(WORDS)), seed=2, **settings)
    facts = dict(start_from(source, other.run.task, other.module))
    assert {part: fact for part, fact in facts.items() if part.startswith("encoder")} == {
        f"encoder.layers.{depth} forward": "loaded" for depth in (0, 1)
    }
    text = [*WORDS, "unheard", "the"]

    def losses(model: Source) -> torch.Tensor:
        ids = torch.tensor([[model.tokenizer.id(EOS), *model.tokenizer.encode_words(text)]])
        return model.module.nll(model.module(ids[:, :-1]), ids[:, 1:])

    torch.testing.assert_close(losses(other), losses(source))
    if adaptive:
        less = language_model(WORDS[:-1], seed=2, **settings)
        assert dict(start_from(source, less.run.task, less.module))["softmax"].startswith("stays random: clusters")


def test_a_row_of_the_output_layer_goes_where_the_row_of_the_table_does() -> None:
    source, other = language_model(tied=False), language_model(["paris", "Rome", "new"], seed=2, tied=False)
    start_from(source, other.run.task, other.module)
    old, new = source.module.softmax, other.module.softmax
    place, entry = source.tokenizer.id, other.tokenizer.id
    for mine, theirs in (
        (new.weight, old.weight),
        (new.bias, old.bias),
        (other.module.embedding.weight, source.module.embedding.weight),
    ):  # type: ignore[union-attr]
        torch.testing.assert_close(mine[entry("Rome")], theirs[place("Rome")])
        torch.testing.assert_close(mine[entry("paris")], (theirs[place("Paris")] + theirs[place("PARIS")]) / 2)
        torch.testing.assert_close(mine[entry("new")], theirs[len(source.tokenizer.specials) :].mean(0))
        torch.testing.assert_close(mine[entry(EOS)], theirs[place(EOS)])


def test_vocabularies_that_do_not_match_are_refused() -> None:
    letters = language_model(["a", "b"], unit="char")
    with pytest.raises(InputError) as caught:
        matched(tokenizer(WORDS), letters)
    assert str(caught.value) == (
        "train.init_from: vocabulary mismatch: runs/lm is a model of characters, which cannot start one of words"
    )
    foreign = [f"слово{chr(1072 + i % 32)}{chr(1072 + i // 32)}" for i in range(500)]
    source = language_model([f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(600)] + foreign[:4])
    with pytest.raises(InputError) as caught:
        matched(tokenizer(foreign), source)
    assert str(caught.value) == (
        "train.init_from: vocabulary mismatch: runs/lm knows 4 of the 500 words of the training data; "
        "is it a model of another language?"
    )
    # A model of few words is none of another language.
    many = [f"{word}{word}{part}" for word in foreign for part in ("а", "б")]
    assert matched(tokenizer([*WORDS, *many]), language_model(WORDS)).fact.startswith("9 of 1,009 words (0.9%)")


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, "model.encoder.layers=2 model.encoder.last_size=6"),
        ({"encoder__layers": 1}, ""),
    ],
)
def test_where_nothing_fits_the_sizes_are_told_that_would(settings: dict[str, Any], wanted: str) -> None:
    source = language_model(encoder__last_size=6, **settings)
    task, build = tagger(embedding__size=3, encoder__hidden_size=3)
    hidden = 5 if wanted else 6
    sizes = f"model.embedding.size=6 model.encoder.cell=lstm model.encoder.hidden_size={hidden} {wanted}".strip()
    with pytest.raises(InputError) as caught:
        start_from(source, task, build())
    assert str(caught.value) == f"train.init_from: nothing of runs/lm fits this model; its sizes are {sizes}"
    assert [fact for _, fact in start_from(source, *_sized(sizes))][1] == "9 of 9 words (100.0%)"


def _sized(sizes: str) -> tuple[Any, Any]:
    """A task and its module by settings as a message told them."""
    pairs = [setting.removeprefix("model.").split("=") for setting in sizes.split()]
    values = {key.replace(".", "__"): int(value) if value.isdigit() else value for key, value in pairs}
    task, build = tagger(**{"encoder__layers": 1, **values})
    return task, build()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences with tags, and others of the same language as plain text."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "tags").mkdir()
    (folder / "text").mkdir()
    for number, (split, size) in enumerate((("train", 60), ("valid", 20))):
        sentences = ner_sample("train", size=size, seed=number)
        tagged = "\n".join("".join(f"{token} {tag}\n" for token, tag in zip(*sentence)) for sentence in sentences)
        (folder / "tags" / f"{split}.conll").write_text(tagged, encoding="utf-8")
        plain = [" ".join(tokens) for tokens, _ in ner_sample("train", size=4 * size, seed=9 + number)]
        (folder / "text" / f"{split}.txt").write_text("\n".join(plain), encoding="utf-8")
    sizes = {"model.embedding_size": 12, "model.encoder.hidden_size": 10, "train.epochs": 1}
    seqtext.train("lm", data=str(folder / "text"), overrides=sizes, out=folder / "lm", device="cpu")
    return folder


SMALL = {"model.embedding.size": 12, "model.encoder.hidden_size": 10, "train.epochs": 1}


def test_a_run_says_what_it_started_from_and_needs_it_no_more(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder / "lm", tmp_path / "runs" / "lm")
    monkeypatch.chdir(tmp_path)
    events: list[Any] = []
    start: dict[str, Any] = SMALL | {"train.init_from": "runs/lm", "train.unfreeze": 1}
    made = seqtext.train(
        "ner", data=str(folder / "tags"), overrides=start, out="run", device="cpu", listen=events.append
    )
    assert isinstance(events[0], Transferred)
    told = dict(events[0].facts)
    assert told["init_from"].startswith("runs/lm: step ") and "valid perplexity" in told["init_from"]
    assert told["encoder.layers.0 forward"] == "loaded; 58 of 70 inputs stay random: those of characters and shapes"
    meta = json.loads(Path("run/meta.json").read_text(encoding="utf-8"))
    assert meta["init_from"] == made.meta["init_from"] == [list(fact) for fact in events[0].facts]
    assert made.recipe.train.init_from == str(tmp_path / "runs" / "lm")
    checked = dict(api.check("ner", data=str(folder / "tags"), overrides=start, device="cpu"))
    assert told.items() <= checked.items()
    # Frozen below the head, it has the language model's rows in its table still.
    source = api.load("runs/lm", device="cpu")
    table = api.load("run", device="cpu").module.embedding.table.weight  # type: ignore[union-attr]
    word = source.task.tokenizer.token(5)
    row = source.module.embedding.weight[5]  # type: ignore[union-attr,index]
    assert word == word.lower() and torch.equal(table[made.task.lexicon.words.id(word)], row)  # type: ignore[attr-defined]
    shutil.rmtree("runs")
    assert len(seqtext.load("run", device="cpu").predict(["Rome is far ."])) == 1
    resumed = seqtext.train(resume="run", overrides={"train.epochs": 3}, device="cpu")
    assert resumed.meta["epochs"] == 3 and resumed.meta["init_from"] == meta["init_from"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none", "none: no such run folder"),
        ("tagger", "tagger: a run of the task ner, where one of the task lm is expected"),
        ("drawn", "drawn: not trained yet: no weights of it have been scored"),
        ("cut", "cut/model.safetensors: missing; the run folder is not complete"),
    ],
)
def test_what_is_no_language_model_is_refused_before_the_data_is_read(
    given: str, message: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if given == "tagger":
        seqtext.train("ner", data=str(folder / "tags"), overrides=SMALL, out=given, device="cpu")
    elif given != "none":
        shutil.copytree(folder / "lm", given)
    if given == "cut":
        Path(given, "model.safetensors").unlink()
    if given == "drawn":
        run.save_weights(Path(given), api.load(given, device="cpu").module, {"step": "0"})
    monkeypatch.setattr(session, "read_splits", None)
    for command in (api.train, api.check):
        with pytest.raises(RunError) as caught:
            command("ner", overrides={"train.init_from": given}, device="cpu")
        assert str(caught.value) == f"train.init_from: {message}"
    assert not Path("runs").exists()


@pytest.mark.slow
def test_what_a_language_model_has_read_a_tagger_needs_not_learn(folder: Path, tmp_path: Path) -> None:
    """After a single epoch, of words alone: it knows by then which words go together, and no random start does."""
    text, tags = tmp_path / "text", tmp_path / "tags"
    for place in (text, tags):
        place.mkdir()
    for number, (split, size) in enumerate((("train", 300), ("valid", 100))):
        plain = [" ".join(tokens).lower() for tokens, _ in ner_sample("train", size=10 * size, seed=5 + number)]
        (text / f"{split}.txt").write_text("\n".join(plain), encoding="utf-8")
        sentences = ner_sample("train", size=size, seed=1 + number)
        tagged = "\n".join("".join(f"{token} {tag}\n" for token, tag in zip(*sentence)) for sentence in sentences)
        (tags / f"{split}.conll").write_text(tagged, encoding="utf-8")
    sizes = {"model.embedding_size": 64, "model.encoder.hidden_size": 64, "data.tokenizer.min_frequency": 1}
    rates = {"train.epochs": 6, "train.optimizer.lr": 0.01, "data.tokenizer.fold_digits": True}
    seqtext.train("lm", data=str(text), overrides=sizes | rates, out=tmp_path / "lm", device="cpu")
    words = {"model.embedding.characters.name": "none", "model.embedding.shapes": 0, "model.embedding.size": 64}
    words |= {"model.encoder.hidden_size": 64, "train.epochs": 1, "train.batch_tokens": 64, "train.optimizer.lr": 0.008}

    def learn(name: str, **settings: Any) -> float:
        given = words | {f"train.{key}": value for key, value in settings.items()}
        trained = seqtext.train("ner", data=str(tags), overrides=given, out=tmp_path / name, device="cpu", seed=1)
        return trained.meta["scores"]["valid"]["f1"]

    source, untrained = str(tmp_path / "lm"), str(tmp_path / "untrained")
    still = sizes | rates | {"train.epochs": 1, "train.optimizer.lr": 1e-9}
    seqtext.train("lm", data=str(text), overrides=still, out=untrained, device="cpu")
    assert learn("random") < 0.15  # seeds 1 to 3: 0.02, 0.04, 0.00
    assert learn("started", init_from=source) > 0.35  # 0.43, 0.44, 0.46
    assert learn("slower", init_from=source, layer_decay=0.4) > 0.25  # 0.33, 0.34, 0.34
    # Its states alone tell the head what random ones do not.
    assert learn("head", init_from=source, unfreeze=1) > 0.2  # 0.30, 0.30, 0.29
    assert learn("other", init_from=untrained, unfreeze=1) < 0.1
