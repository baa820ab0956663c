"""Finding splits, opening text, and the Arrow cache."""

import gzip
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import nltk
import pyarrow as pa
import pytest

from seqtext.data import cache
from seqtext.data.cache import cached, fingerprint
from seqtext.data.sources import (
    Hub,
    MissingSplit,
    Nltk,
    Sample,
    SourceData,
    load_hub,
    load_nltk,
    locate,
    split_of,
    splits_in,
    with_source,
)
from seqtext.data.text import open_columns, open_json, open_text
from seqtext.errors import DataError


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQTEXT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("text\n")
    return folder


# Names of splits and folders


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.conll", "train"),
        ("TRAIN.TXT.gz", "train"),
        ("eng.train", "train"),
        ("eng.testa", "valid"),
        ("esp.testb", "test"),
        ("dev.jsonl", "valid"),
        ("validation.tsv", "valid"),
        ("en_ewt-ud-dev.conllu", "valid"),
        ("test2016.de", "test"),
        ("train-00000-of-00002.txt", "train"),
        ("retrained.txt", None),
        ("latest.txt", None),
        ("train.test.txt", None),
        ("README.md", None),
    ],
)
def test_a_name_tells_its_split(name, split):
    assert split_of(name) == split


def test_a_folder_gives_its_splits(tmp_path):
    folder = touch(tmp_path / "d", "eng.train.gz", "eng.testa", "eng.testb", "README", ".train.swp", "train.txt~")
    assert {split: path.name for split, path in splits_in(folder).items()} == {
        "train": "eng.train.gz",
        "valid": "eng.testa",
        "test": "eng.testb",
    }


def test_an_extension_picks_among_parallel_files(tmp_path):
    folder = touch(tmp_path / "d", "train.de", "train.en", "valid.de.gz", "valid.en", "test2016.de", "test2016.en")
    assert [path.name for path in splits_in(folder, extension="de").values()] == [
        "train.de",
        "valid.de.gz",
        "test2016.de",
    ]
    with pytest.raises(
        DataError, match=re.escape("several files for train: train.de, train.en; name one by data.train")
    ):
        splits_in(folder)


def test_two_files_of_another_split_do_not_hinder(tmp_path):
    folder = touch(tmp_path / "d", "train.txt", "test1.txt", "test2.txt")
    assert locate(SourceData(source=str(folder)), "train") == folder / "train.txt"
    with pytest.raises(DataError, match=r"several files for test: test1\.txt, test2\.txt"):
        locate(SourceData(source=str(folder)), "test")


def test_a_given_file_goes_before_the_folder(tmp_path):
    folder = touch(tmp_path / "d", "train.txt", "test.txt", "other.txt")
    data = SourceData(source=str(folder), test=str(folder / "other.txt"))
    assert locate(data, "test") == folder / "other.txt"
    assert locate(data, "train") == folder / "train.txt"


def test_sources_by_name():
    assert locate(SourceData(), "valid") == Sample()
    assert locate(SourceData(source="hub:org/name"), "valid") == Hub("org/name", None)
    assert locate(SourceData(source="hub:org/name:en"), "valid") == Hub("org/name", "en")
    assert locate(SourceData(source="nltk:conll2002:esp"), "valid") == Nltk("conll2002", "esp")


def test_with_source_takes_a_file_for_the_split_asked_for(tmp_path):
    folder = touch(tmp_path / "d", "train.txt", "notes.txt")
    data = SourceData(source="somewhere", train="a", test="b")
    one = with_source(data, str(folder / "notes.txt"), "test")
    assert locate(one, "test") == folder / "notes.txt"
    with pytest.raises(MissingSplit, match=re.escape("no train file: data.test is given and data.train is not")):
        locate(one, "train")
    assert with_source(data, str(folder), "test") == SourceData(source=str(folder))


def test_a_run_keeps_whole_paths_and_names_as_they_are(tmp_path, monkeypatch):
    touch(tmp_path / "corpus", "train.txt")
    monkeypatch.chdir(tmp_path)
    given = SourceData(source="corpus", test="corpus/train.txt", valid="not/there")
    assert given.absolute() == SourceData(
        source=str(tmp_path / "corpus"), test=str(tmp_path / "corpus" / "train.txt"), valid="not/there"
    )
    assert SourceData(source="hub:corpus").absolute().source == f"hub:{tmp_path / 'corpus'}"
    (tmp_path / "sample").mkdir()
    for name in ("sample", "hub:org/name", "nltk:conll2002"):
        assert SourceData(source=name).absolute() == SourceData(source=name)


def test_what_is_not_there_is_said(tmp_path):
    folder = touch(tmp_path / "d", "train.txt", *(f"{n:02}.txt" for n in range(12)))
    expected = (
        f"{folder}: no valid file here: its name must have one of valid, dev, validation, val, testa in it; "
        "found: 00.txt, 01.txt, 02.txt, 03.txt, 04.txt, 05.txt, 06.txt, 07.txt, 08.txt, 09.txt and 3 more"
    )
    with pytest.raises(MissingSplit) as raised:
        locate(SourceData(source=str(folder)), "valid")
    assert str(raised.value) == expected
    with pytest.raises(MissingSplit, match=r"no train file here: .*; found: no file$"):
        locate(SourceData(source=str(touch(tmp_path / "empty"))), "train")
    with pytest.raises(DataError, match=re.escape('conll: no such folder; a source is a folder, "sample", "hub:org')):
        locate(SourceData(source="conll"), "train")
    with pytest.raises(DataError, match=re.escape(f'name it by its split: data.test = "{folder / "train.txt"}"')):
        locate(SourceData(source=str(folder / "train.txt")), "test")
    with pytest.raises(DataError, match=re.escape("gone.txt: no such file (data.valid)")):
        locate(SourceData(valid="gone.txt"), "valid")
    with pytest.raises(DataError, match=re.escape("this is a folder; a file is expected (data.valid)")):
        locate(SourceData(valid=str(folder)), "valid")


# Hub and NLTK


def test_hub_folders_saved_by_datasets(tmp_path):
    rows = {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "validation", "extra")}
    datasets.DatasetDict(rows).save_to_disk(tmp_path / "saved")
    hub = locate(SourceData(source=f"hub:{tmp_path / 'saved'}"), "valid")
    assert list(load_hub(hub, "valid")["text"]) == ["validation"]
    with pytest.raises(MissingSplit, match=r"no test split; .* found: train, validation, extra$"):
        load_hub(hub, "test")
    with pytest.raises(MissingSplit, match=f'write source = "hub:{tmp_path / "saved"}"'):
        locate(SourceData(source=str(tmp_path / "saved")), "valid")
    with pytest.raises(DataError, match=f"hub:{tmp_path}/gone: no such folder"):
        locate(SourceData(source=f"hub:{tmp_path}/gone"), "valid")


def test_one_saved_dataset_is_never_train_and_test_at_once(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "unnamed")
    datasets.Dataset.from_dict({"text": ["a"]}, split="test").save_to_disk(tmp_path / "named")
    assert list(load_hub(Hub(str(tmp_path / "unnamed"), None), "train")["text"]) == ["a"]
    assert list(load_hub(Hub(str(tmp_path / "named"), None), "test")["text"]) == ["a"]
    for name, split in (("unnamed", "test"), ("named", "train")):
        with pytest.raises(MissingSplit, match=f"no {split} split"):
            load_hub(Hub(str(tmp_path / name), None), split)


def test_hub_loading_asks_the_package_and_keeps_its_words(tmp_path, monkeypatch):
    calls = []

    def load_dataset(name, config):
        calls.append((name, config))
        if name == "org/gone":
            raise ConnectionError("cannot reach the hub")
        return datasets.DatasetDict({"validation": datasets.Dataset.from_dict({"text": ["v"]})})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(load_hub(Hub("org/name", "en"), "valid")["text"]) == ["v"]
    assert calls == [("org/name", "en")]
    with pytest.raises(DataError, match=r"^hub:org/gone: cannot be loaded: ConnectionError: cannot reach the hub$"):
        load_hub(Hub("org/gone", None), "train")


def test_nltk_corpora_that_are_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(
        DataError, match=r"^nltk:conll2000: this corpus is not downloaded; .*nltk\.downloader conll2000$"
    ):
        load_nltk(Nltk("conll2000", ""), "train")
    for name in ("conll1066", "reader", "demo", "__name__"):
        with pytest.raises(DataError, match=f"^nltk:{name}: NLTK has no corpus of this name$"):
            load_nltk(Nltk(name, ""), "train")


# Text


def test_lines_end_at_lf_and_crlf_only_and_the_bom_goes(tmp_path):
    content = "\ufeffa\u00a0b\r\n\n\u2028c\x0cd\nlast".encode()
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "zipped").write_bytes(gzip.compress(content))
    expected = [(1, "a\u00a0b"), (2, ""), (3, "\u2028c\x0cd"), (4, "last")]
    assert list(open_text(tmp_path / "plain")) == list(open_text(tmp_path / "zipped")) == expected


def test_columns_part_at_spaces_and_tabs_or_the_separator(tmp_path):
    (tmp_path / "a").write_text("# no\n10\u00a0000 \t x\n\n plain  b \n", encoding="utf-8")
    assert list(open_columns(tmp_path / "a", comment="#")) == [(2, ["10\u00a0000", "x"]), (3, []), (4, ["plain", "b"])]
    (tmp_path / "b").write_text("New York\tLOC\n\t\n")
    assert list(open_columns(tmp_path / "b", separator="\t")) == [(1, ["New York", "LOC"]), (2, [])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"good\nca\xe9f\n", ":2: byte 0xe9 at byte 3 of the line is not UTF-8; convert the file to UTF-8"),
        ("wide".encode("utf-16"), ":1: this file is UTF-16; convert it to UTF-8"),
        (b"good\n\xff\xfec\n", ":2: byte 0xff at byte 1 of the line is not UTF-8; convert the file to UTF-8"),
        (gzip.compress(b"text" * 100, mtime=0)[:-9], ": damaged gzip file: Compressed file ended"),
        (gzip.compress(b"text" * 100, mtime=0)[:12] + b"\xff" * 40, ": damaged gzip file: "),
    ],
)
def test_bytes_that_are_no_text(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match="^" + re.escape(f"{path}{message}")):
        list(open_text(path))


def test_files_that_do_not_open(tmp_path):
    (tmp_path / "plain.txt.gz").write_text("text\n")
    with pytest.raises(
        DataError, match=r"plain.txt.gz: not gzip, though its name ends in .gz; rename it if it is plain$"
    ):
        list(open_text(tmp_path / "plain.txt.gz"))
    (tmp_path / "empty.gz").touch()
    assert list(open_text(tmp_path / "empty.gz")) == []
    with pytest.raises(DataError, match=r"gone: no such file$"):
        list(open_text(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"this is a folder; a file is expected$"):
        list(open_text(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": }', "not valid JSON: Expecting value at character 7"),
        ("[1, 2]", "found an array, expected one JSON object a line"),
        ("3", "found a single value, expected one JSON object a line"),
        ('{"a": "\\ud800"}', "a \\u escape is half of a surrogate pair, no character"),
        ("[" * 100_000, "not valid JSON: "),
        ("9" * 5000, "not valid JSON: "),
    ],
)
def test_json_lines(tmp_path, line, message):
    path = tmp_path / "file.jsonl"
    path.write_text('{"a": "\\ud83d\\ude00"}\n\n' + line)
    lines = open_json(path)
    assert next(lines) == (1, {"a": "\U0001f600"})
    with pytest.raises(DataError, match="^" + re.escape(f"{path}:3: {message}")):
        next(lines)


# Cache

SCHEMA = pa.schema([("n", pa.int64())])


def test_the_fingerprint_is_of_content_and_settings(tmp_path):
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
    same = fingerprint([tmp_path / "a"], {"x": 1, "y": None})
    assert re.fullmatch("[0-9a-f]{32}", same)
    assert fingerprint([tmp_path / "b"], {"y": None, "x": 1}) == same
    others = [
        fingerprint([tmp_path / "c"], {"x": 1, "y": None}),
        fingerprint([tmp_path / "a"], {"x": 2, "y": None}),
        fingerprint([tmp_path / "a", tmp_path / "c"], {"x": 1, "y": None}),
        fingerprint([tmp_path / "c", tmp_path / "a"], {"x": 1, "y": None}),
    ]
    assert len({same, *others}) == 5


def test_built_once_and_mapped(cache_folder):
    builds = []

    def build(write):
        builds.append(1)
        write({"n": [1, 2]})
        write({"n": [3]})
        return {"rows": 3, "name": "é"}

    for _ in range(2):
        dataset, facts = cached("key", schema=SCHEMA, build=build, kind="test", about="three numbers")
        assert list(dataset["n"]) == [1, 2, 3] and facts == {"rows": 3, "name": "é"}
        assert dataset.info.description == "three numbers"
        assert [file["filename"] for file in dataset.cache_files] == [str(cache_folder / "test-key.arrow")]
    assert len(builds) == 1
    assert [path.name for path in cache_folder.iterdir()] == ["test-key.arrow"]


def test_any_damage_rebuilds(cache_folder):
    def build(write):
        write({"n": [7] * 50})
        write({"n": [8] * 50})
        return {"rows": 100}

    cached("key", schema=SCHEMA, build=build)
    path = cache_folder / "data-key.arrow"
    whole = path.read_bytes()
    damaged = [whole[:cut] for cut in (0, 10, len(whole) // 2, len(whole) - 1)]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 97)]
    for content in damaged:
        path.write_bytes(content)
        assert cached("key", schema=SCHEMA, build=build).facts == {"rows": 100}
        assert path.read_bytes() == whole


def test_a_build_that_fails_leaves_nothing(cache_folder):
    def build(write):
        write({"n": [1]})
        assert sorted(path.suffix for path in cache_folder.iterdir()) == [".lock", ".tmp"]
        raise DataError("line 2 is wrong", path="file")

    with pytest.raises(DataError, match=r"^file: line 2 is wrong$"):
        cached("key", schema=SCHEMA, build=build)
    assert list(cache_folder.iterdir()) == []


def test_who_comes_while_another_builds_waits_for_it(cache_folder):
    builds = []

    def build(write):
        builds.append(1)
        time.sleep(0.2)
        write({"n": [1]})
        return {}

    with ThreadPoolExecutor(4) as several:
        found = list(several.map(lambda _: cached("key", schema=SCHEMA, build=build).dataset["n"][0], range(4)))
    assert (found, builds) == ([1] * 4, [1])
    assert [path.suffix for path in cache_folder.iterdir()] == [".arrow"]


def test_old_leftovers_are_swept_and_young_ones_kept(cache_folder, monkeypatch):
    touch(cache_folder, "data-a.arrow.1.tmp")
    cached("one", schema=SCHEMA, build=lambda write: {})
    assert (cache_folder / "data-a.arrow.1.tmp").exists()
    monkeypatch.setattr(cache, "STALE_SECONDS", -1)
    cached("two", schema=SCHEMA, build=lambda write: {})
    assert not (cache_folder / "data-a.arrow.1.tmp").exists()


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEQTEXT_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"file: the data cache cannot be written: .*; set SEQTEXT_CACHE to a folder"):
        cached("key", schema=SCHEMA, build=lambda write: {})


def test_the_cache_folder_follows_the_environment(monkeypatch):
    assert cache.cache_folder().name == "cache"
    monkeypatch.delenv("SEQTEXT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.cache_folder() == Path("/x/seqtext")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path.home() / ".cache" / "seqtext"
