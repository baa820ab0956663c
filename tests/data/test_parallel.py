"""Parallel data: every form gives the same pairs, filters count what they leave out, faults are told by place."""

import gzip
import json
import random
import re

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.config import parse
from seqtext.data import parallel
from seqtext.data.parallel import ParallelData, filtered, read_parallel, swapped
from seqtext.data.sources import MissingSplit
from seqtext.data.translation_sample import translation_sample
from seqtext.errors import ConfigError, DataError

PAIRS = [("A dog runs.", "Ein Hund rennt."), ('He said  "yes"\u2028now.', "Er sagte „ja“."), ("Tea\u00a0!", "Tee!")]
EN = "".join(f"  {source} \r\n" for source, _ in PAIRS)
DE = "".join(f"{target}\n" for _, target in PAIRS)
FIELDS = {"source_field": "y", "target_field": "x"}


def pairs(data, split="train"):
    dataset = read_parallel(data, split)
    return list(zip(dataset["source"], dataset["target"], strict=True))


def about(data, split="train"):
    return read_parallel(data, split).info.description


def message(data, split="train"):
    with pytest.raises(DataError) as raised:
        read_parallel(data, split)
    return str(raised.value)


def lines(*texts):
    return "".join(f"{text}\n" for text in texts)


# Forms


def test_two_files_by_every_name_that_they_go_by(put):
    folder = put(EN, "train.en").parent
    put(gzip.compress(DE.encode()), "train.de.gz")
    put("a\n", "test2016.en"), put("b\n", "test2016.de"), put("c\n", "test2016.fr"), put("x", "README")
    data = ParallelData(source=str(folder))
    assert pairs(data) == PAIRS and pairs(data, "test") == [("a", "b")]
    assert about(data) == "text files en-de"
    assert pairs(ParallelData(source=str(folder), target_language="fr"), "test") == [("a", "c")]
    back = ParallelData(source=str(folder), source_language="de", target_language="en")
    assert pairs(back) == [(target, source) for source, target in PAIRS] and about(back) == "text files de-en"
    for name in ("train", "train.en", "train.de.gz"):
        for form in ("auto", "text"):
            assert pairs(ParallelData(train=str(folder / name), format=form)) == PAIRS
    with pytest.raises(MissingSplit, match="no valid file here: its name must have one of valid, dev"):
        read_parallel(data, "valid")


def test_names_of_two_files_are_made_absolute(put, monkeypatch):
    folder = put("a\n", "train.en").parent
    put("b\n", "train.de")
    monkeypatch.chdir(folder)
    data = ParallelData(train="train", valid="train.de", test="absent").absolute()
    assert (data.train, data.valid, data.test) == (str(folder / "train"), str(folder / "train.de"), "absent")
    assert pairs(data) == pairs(data, "valid") == [("a", "b")]


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("train.tsv", lines(*("\t".join(pair) for pair in PAIRS)), {}),
        ("train.tsv", "\n" + lines(*("\t".join((*pair, "CC-BY")) for pair in PAIRS), ""), {}),
        ("train.tsv", lines("id\ttarget\tsource", *(f"1\t{de}\t{en}" for en, de in PAIRS)), {}),
        ("train.tsv", lines("de\ten", *(f"{de}\t{en}" for en, de in PAIRS)), {}),
        ("train.txt", lines("x\ty", *(f"{de}\t{en}" for en, de in PAIRS)), FIELDS),
        ("train.jsonl", lines(*(json.dumps({"source": en, "target": de}) for en, de in PAIRS)), {}),
        ("train.json", lines(*(json.dumps({"translation": {"de": de, "en": en}}) for en, de in PAIRS)), {}),
        ("train", lines(*(json.dumps({"x": de, "y": en}) for en, de in PAIRS)), FIELDS),
    ],
)
def test_one_file_of_both_sides(put, name, content, settings):
    path = put(content, name)
    if "." in name:
        assert pairs(ParallelData(source=str(path.parent), **settings)) == PAIRS
    form = "tsv" if "\t" in content else "jsonl"
    assert pairs(ParallelData(train=str(path), **settings)) == PAIRS
    packed = ParallelData(train=str(put(gzip.compress(content.encode()), "packed")), format=form, **settings)
    assert pairs(packed) == PAIRS
    assert about(packed) == {"tsv": "TSV file en-de", "jsonl": "JSON lines file en-de"}[form]


def test_hub_datasets(tmp_path):
    both = {"translation": [{"en": source, "de": target} for source, target in PAIRS], "n": [1, 2, 3]}
    columns = {"source": [pair[0] for pair in PAIRS], "target": [pair[1] for pair in PAIRS]}
    typed = datasets.Features({"translation": datasets.Translation(["en", "de"]), "n": datasets.Value("int64")})
    splits = [datasets.Dataset.from_dict(both, features=found) for found in (None, typed)]
    for number, split in enumerate([*splits, datasets.Dataset.from_dict(columns)]):
        datasets.DatasetDict({"train": split}).save_to_disk(tmp_path / str(number))
        data = ParallelData(source=f"hub:{tmp_path / str(number)}")
        assert pairs(data) == PAIRS and about(data) == "hub dataset en-de"
    found = message(data.model_copy(update={"source_field": "en"}))
    assert found.endswith("no column 'en' (data.source_field); found: source, target")
    found = message(ParallelData(source=f"hub:{tmp_path / '1'}", source_language="eng"))
    assert ":1: \"translation\" has no language 'eng' (data.source_language); found: " in found
    assert found.endswith("; did you mean 'en'?")


def test_the_sample_in_both_directions():
    found = pairs(ParallelData(), "test")
    assert found == translation_sample("test") and about(ParallelData(), "test") == "sample en-de"
    back = ParallelData(source_language="de", target_language="en")
    assert pairs(back, "test") == [(target, source) for source, target in found]
    given = 'data.source_language is "en" and data.target_language "fr"'
    assert message(ParallelData(target_language="fr")) == f'sample: has English ("en") and German ("de"); {given}'


# Filters


SIDE = st.lists(st.sampled_from(["a", "b", " ", "\u00a0"]), max_size=5).map("".join)


@given(
    rows=st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=12),
    longest=st.none() | st.integers(1, 3),
    ratio=st.none() | st.sampled_from([1.0, 1.5, 2.0]),
    once=st.booleans(),
    split=st.sampled_from(["train", "valid"]),
)
def test_filters_leave_out_what_they_say(tmp_path_factory, rows, longest, ratio, once, split):
    folder = tmp_path_factory.mktemp("filters")
    for side, language in enumerate(("en", "de")):
        (folder / f"{split}.{language}").write_text(lines(*(row[side] for row in rows)))
    # The plain reading of the settings, one filter after the other.
    stripped = [(source.strip(), target.strip()) for source, target in rows]
    whole = [pair for pair in stripped if all(pair)]
    counts = {"with an empty side": len(rows) - len(whole)}
    kept = whole
    if split == "train":
        sizes = {pair: sorted(len(side.split()) for side in pair) for pair in whole}
        short = [pair for pair in whole if longest is None or sizes[pair][1] <= longest]
        even = [pair for pair in short if ratio is None or sizes[pair][1] / sizes[pair][0] <= ratio]
        kept = list(dict.fromkeys(even)) if once else even
        counts[f"longer than {longest} words"] = len(whole) - len(short)
        counts[f"of a length ratio over {ratio}"] = len(short) - len(even)
        counts["duplicate" if len(even) - len(kept) == 1 else "duplicates"] = len(even) - len(kept)
    # Filters that are there are told, if they left out none as well.
    unset = {f"longer than {None} words", f"of a length ratio over {None}", *(["duplicates"] * (not once))}
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if what not in unset)
    data = ParallelData(source=str(folder), max_length=longest, max_ratio=ratio, drop_duplicates=once, empty="drop")
    if kept:
        assert pairs(data, split) == kept
        assert about(data, split) == "text files en-de" + (f"; left out: {said}" if said else "")
        assert filtered(read_parallel(data, split)) == said
    else:
        assert message(data, split) == f"{folder / f'{split}.en'}: no pair is left; left out: {said}"


def test_batches_are_bounded(put, monkeypatch):
    monkeypatch.setattr(parallel, "BATCH_PAIRS", 3)
    monkeypatch.setattr(parallel, "BATCH_CHARACTERS", 8)
    rows = [("aaaa", "bbbb"), *[("c", "d")] * 4]
    path = put(lines(*("\t".join(row) for row in rows)), "a.tsv")
    dataset = read_parallel(ParallelData(train=str(path)), "train")
    assert [len(chunk) for chunk in dataset.data.column("source").chunks] == [1, 3, 1]  # characters, pairs, the rest
    assert list(zip(dataset["source"], dataset["target"], strict=True)) == rows


def test_a_change_of_either_file_or_of_a_filter_is_seen_and_other_settings_are_not(put, cache_folder):
    folder = put("a\na\n", "train.en").parent
    put("b\nb\n", "train.de")
    put("a\na\n", "valid.en"), put("b\nb\n", "valid.de")
    data = ParallelData(source=str(folder))
    assert pairs(data) == [("a", "b")] * 2
    once = data.model_copy(update={"drop_duplicates": True})
    assert pairs(once) == [("a", "b")]
    put("b\nc\n", "train.de")
    assert pairs(once) == [("a", "b"), ("a", "c")]
    assert pairs(data, "valid") == pairs(once, "valid") == [("a", "b")] * 2
    assert len(list(cache_folder.iterdir())) == 4


# Faults


@pytest.mark.parametrize(
    ("en", "de", "expected"),
    [
        (
            "a\nb\nc\nd\n",
            "a\nb\n",
            "train.en:3: no partner for this line: 4 lines here and 2 in DIR/train.de; expected as",
        ),
        ("a\n", "a\nb\n", "train.de:2: no partner for this line: 2 lines here and 1 in DIR/train.en; expected as many"),
        (
            "a\n\u00a0\n",
            "a\nb\n",
            'train.en:2: empty source; expected a sentence on each side; data.empty = "drop" leaves',
        ),
        ("a\nb\n", "a\n\n", "train.de:2: empty target; expected a sentence on each side"),
        ("\n", "\n", "train.en:1: empty source and target; expected a sentence on each side"),
        ("a\nb\n", "a\n\0b\n", "train.de:2: a NUL character at 1 of the sentence; this is no text, or it is UTF-16"),
        (b"a\n\xff\n", "a\nb\n", "train.en:2: byte 0xff at byte 1 of the line is not UTF-8"),
        ("", "", "train.en: no text: it is empty or blank"),
    ],
)
def test_faults_of_two_files(put, en, de, expected):
    folder = put(en, "train.en").parent
    put(de, "train.de")
    found = message(ParallelData(source=str(folder))).removeprefix(f"{folder}/")
    assert found.startswith(expected.replace("DIR", str(folder)))


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        ("a\tb\na\n", "a.tsv", "2: found 1 column, expected 2 as in line 1"),
        ("a\tb\na\tb\tc\n", "a.tsv", "2: found 3 columns, expected 2 as in line 1"),
        ("a\n", "a.tsv", "1: found 1 column, expected two, parted by a tab"),
        ("a\tb\n\t\n", "a.tsv", "2: empty source and target; expected a sentence on each side"),
        (
            "source\ttraget\n",
            "a.tsv",
            "1: the first row must name the columns: expected one 'target' (data.target_field); found: source, traget; "
            "did you mean 'traget'?",
        ),
        ("source\ttarget\n", "a.tsv", " no text: it is empty or blank"),
        ("", "a", " no text: it is empty or blank"),
        (
            '{"source": "a", "targt": "b"}',
            "a.jsonl",
            "1: no key 'target' (data.target_field); found: source, targt; "
            "\"translation\" with both languages will do too; did you mean 'targt'?",
        ),
        (
            '{"translation": {"en": "a", "fr": "b"}}',
            "a.jsonl",
            "1: \"translation\" has no language 'de' (data.target_language); found: en, fr",
        ),
        ('{"source": "a", "target": 3}', "a.jsonl", "1: 'target' holds int 3, expected a string"),
        ('{"source": "a", "target": null}', "a.jsonl", "1: empty target; expected a sentence on each side"),
        ('{"source": "a\\u0000", "target": "b"}', "a.jsonl", "1: a NUL character at 2 of the sentence"),
        ('["a", "b"]', "a.jsonl", "1: found an array, expected one JSON object a line"),
        (
            "plain text\n",
            "a.fr",
            " cannot tell how this file reads; expected two files that end in .en and .de, or one in TSV (.tsv) or "
            "JSON lines (.jsonl); languages here: fr",
        ),
    ],
)
def test_faults_of_one_file(put, content, name, expected):
    path = put(content, name)
    assert message(ParallelData(train=str(path))).startswith(f"{path}:{expected}")


def test_files_that_are_not_there(put):
    folder = put("a\n", "train.eng").parent
    put("b\n", "train.de"), put("a\n", "test.fr"), put("a\n", "test.cs"), put("a\n", "a.en"), put("a\n", "a.de")
    data = ParallelData(source=str(folder))
    assert message(data) == (
        f"{folder}: no file train.en (data.source_language), plain or .gz; languages here: de, eng; did you mean 'eng'?"
    )
    missing = "no file test.en (data.source_language) and no test.de (data.target_language), plain or .gz"
    assert message(data, "test") == f"{folder}: {missing}; languages here: cs, fr"
    named = ParallelData(train=f"{folder}/train.de")
    assert message(named).startswith(f"{folder}: no file train.en (data.source_language), plain or .gz (data.train); ")
    assert "no file b.en (data.source_language) and no b.de" in message(ParallelData(train=f"{folder}/b"))
    third = ParallelData(train=f"{folder}/a.fr")
    assert message(third).startswith(f"{folder}/a.fr: this is of neither language: it ends in neither .en (data.source")
    assert message(ParallelData(train=str(folder))).endswith("this is a folder; a file is expected (data.train)")
    assert message(ParallelData(source=f"{folder}/a")).endswith(
        f'this is the name of two files; name them by their split: data.train = "{folder}/a"'
    )
    put("a\n", "val_1.en"), put("a\n", "val_2.de")
    assert "the files of valid have different names, val_1.en and val_2.de" in message(data, "valid")
    assert message(ParallelData(source="nltk:brown")).startswith(
        "nltk:brown: no corpus of NLTK is read as translations"
    )
    assert message(ParallelData(source=f"{folder}/none")) == (
        f"{folder}/none: no such folder; expected one with train.en, train.de, valid.en, valid.de, test.en and "
        'test.de, plain or .gz; a source is a folder, "sample", "hub:org/name" or "nltk:corpus"'
    )


def test_the_schema_says_every_fault():
    with pytest.raises(ConfigError) as raised:
        parse(ParallelData, {"target_language": "d/e", "max_length": 0, "langs": 1}, source="r.toml", prefix="data")
    assert [fault.partition(":")[0] for fault in raised.value.faults] == [
        "data.target_language",
        "data.max_length",
        "data.langs",
    ]
    with pytest.raises(ConfigError, match="source_language and target_language are both 'de'; they must differ"):
        parse(ParallelData, {"source_language": "de"}, source="r.toml", prefix="data")
    assert all(field.description for field in ParallelData.model_fields.values())


# Sides the other way round


def table(rows):
    return datasets.Dataset.from_dict({"source": [row[0] for row in rows], "target": [row[1] for row in rows]})


def crossed(rows):
    return [(target, source) for source, target in rows]


def test_swapped_scripts_are_told_by_a_few_sentences():
    russian = [
        ("The dog sleeps in the house.", "Собака спит в доме."),
        ("It was a day in May.", "Это был майский день."),
    ]
    japanese = [("这个城市有很多古老的寺庙和公园。", "この街にはたくさんの古いお寺と公園があります。")]
    for rows, names in ((russian * 2, ("Latin", "Cyrillic")), (japanese * 5, ("Han", "Hiragana"))):
        assert swapped(table(rows), table(rows[:4])) is None
        found = swapped(table(rows), table(crossed(rows)))
        expected = (
            f"the source is mostly {names[1]} and the target {names[0]}, in the training data {names[0]} and {names[1]}"
        )
        assert found is not None and found.startswith(f"the sides look swapped: {expected}; are data.source_language")
    # Of names and numbers alone nothing is said.
    assert swapped(table(russian), table([("Москва 7", "Moscow 7")])) is None


def test_swapped_sides_of_one_script_are_told_by_frequent_words():
    train, valid = translation_sample("train", size=500), translation_sample("valid", size=60)
    assert swapped(table(train), table(valid)) is None
    found = swapped(table(train), table(crossed(valid)))
    assert found is not None
    assert re.search(r"frequent words of the source \(\w+(, \w+){4}\) are those of the target", found)
    assert swapped(table(train), table(crossed(valid[:10]))) is None  # too few words to say


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["copy", "reverse", "capitals"]))
def test_no_alarm_where_the_sides_are_alike(seed, kind):
    rng = random.Random(seed)
    rows = []
    for _ in range(60):
        words = [rng.choice(["ab", "cd", "ef"]) if kind == "capitals" else str(rng.randrange(30)) for _ in range(12)]
        other = {"copy": words, "reverse": words[::-1], "capitals": [word.upper() for word in words]}[kind]
        rows.append((" ".join(words), " ".join(other)))
    assert swapped(table(rows[:30]), table(rows[30:])) is None
    assert swapped(table(rows[:30]), table(crossed(rows[30:]))) is None
