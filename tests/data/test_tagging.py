"""Readers of tagged text: every format to the same rows, and every fault told by file and line."""

import gzip
import json
import re
from pathlib import Path

import datasets
import nltk
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from nltk.corpus.reader import ConllChunkCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from seqtext.config import parse
from seqtext.data import tagging
from seqtext.data.labels import spans
from seqtext.data.samples import ner_sample
from seqtext.data.tagging import TaggingData, open_tagging, read_tagging
from seqtext.errors import ConfigError, DataError

CONLL = """\
-DOCSTART- -X- -X- O

EU NNP B-NP I-ORG
rejects VBZ B-VP O
German JJ B-NP I-MISC
call NN I-NP O

-DOCSTART- -X- -X- O
Peter NNP B-NP I-PER
Blackburn NNP I-NP I-PER

Ann NNP B-NP I-PER
Lee NNP I-NP I-PER
Bob NNP B-NP B-PER
"""
ROWS = [
    (["EU", "rejects", "German", "call"], ["S-ORG", "O", "S-MISC", "O"]),
    (["Peter", "Blackburn"], ["B-PER", "E-PER"]),
    (["Ann", "Lee", "Bob"], ["B-PER", "E-PER", "S-PER"]),
]


@pytest.fixture(autouse=True)
def own_cache(cache_folder):
    return cache_folder


@pytest.fixture
def put(put):
    return lambda content, name="train.conll": put(content, name)


def rows(path: Path, **options):
    return pairs(read_tagging(TaggingData(train=str(path), **options), "train"))


def pairs(dataset):
    return [(row["tokens"], row["tags"]) for row in dataset]


def message(path: Path, **options) -> str:
    """What is said of a file, without the path it begins with; the cache stays as it was."""
    before = list(path.parent.parent.glob("cache/*"))
    with pytest.raises(DataError) as raised:
        rows(path, **options)
    assert str(raised.value).startswith(f"{path}:")
    assert list(path.parent.parent.glob("cache/*")) == before
    return str(raised.value).removeprefix(f"{path}:").strip()


# CoNLL columns


def test_conll(put):
    path = put(CONLL)
    assert rows(path) == ROWS
    dataset, facts = open_tagging(TaggingData(train=str(path)), "train")
    assert facts[:-1] == ("conll", "IOB1", "BIOES", 3, 9, 5)
    assert str(facts) == dataset.info.description == "conll, IOB1 -> BIOES"
    assert dataset.cache_files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", CONLL.replace("\n", "\r\n")),
        ("b.conll", "\ufeff" + CONLL),
        ("c.conll.gz", gzip.compress(CONLL.encode(), mtime=0)),
        ("d.txt", CONLL.rstrip("\n").replace("\n\n", "\n \t\n\n") + "\n\n\n"),
        ("e.txt", CONLL.replace(" ", "\t")),
    ],
)
def test_the_same_rows_however_it_is_written(put, name, content):
    assert rows(put(content, name)) == ROWS


def test_columns_separator_and_comments(put):
    path = put("# sentence 1\nB-LOC\tx\tNew York\nO\ty\t#\n# within\nO\tz\t10 000\n")
    options = {"token_column": 2, "tag_column": 0, "separator": "\t", "comment": "# "}
    assert rows(path, **options) == [(["New York", "#", "10 000"], ["S-LOC", "O", "O"])]


def test_no_break_spaces_are_part_of_tokens(put):
    assert rows(put("10\u00a0000 O\nParis\u2028 B-LOC\n")) == [(["10\u00a0000", "Paris\u2028"], ["O", "S-LOC"])]


def test_widths_may_differ_where_columns_count_from_the_left(put):
    path = put("Ann B-PER x\n\nBob B-PER x y\n")
    assert rows(path, tag_column=1) == [(["Ann"], ["S-PER"]), (["Bob"], ["S-PER"])]
    assert message(put("Ann x B-PER\n\nBob x y B-PER\n", "b")).startswith(
        "3: found 4 columns, expected 3 as on line 1; "
    )


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("a x B-A\nb x O\nc x\n", {}, "3: found 2 columns, expected 3 as on line 1; columns that hold spaces need "),
        ("a x B-A\nb O\nc\n", {"tag_column": 2}, "2: found 2 columns, expected at least 3 (data.token_column = 0, "),
        (
            "a x y B-A\n\nb\n",
            {},
            "3: found 1 column, expected 4 as on line 1 (data.token_column = 0, data.tag_column = -1)",
        ),
        (
            "# id = 1\na x B-A\n",
            {},
            '2: found 3 columns, expected 4 as on line 1; columns that hold spaces need data.separator = "\\t"; if '
            "widths rightly differ, count from the left; if lines that begin with # are comments, set data.comment",
        ),
        ("#\na B-A\n", {}, "1: found 1 column, expected at least 2 (data.token_column = 0, data.tag_column = -1); if "),
        ("plain\ntext\n", {}, "1: found 1 column, expected at least 2 (data.token_column = 0, data.tag_column = -1)"),
        (
            "a B-A\n",
            {"tag_column": -2},
            "1: found 2 columns, and token and tag are the same one (data.token_column = 0, ",
        ),
        ("a\tB-A\n\tO\n", {"separator": "\t"}, "2: the token (column 0) is empty"),
        ("a B-A\nb O\nc X-A\n", {}, "3: tag 'X-A': unknown prefix 'X'; allowed are B, I, O, E, S (IOB1, IOB2, BIOES)"),
        ("a B-A\nb O\n\nc PER\n", {}, "4: tag 'PER': no prefix, although other tags have one, such as 'B-A'"),
        ("a B-A\nb S-A\n", {"input_scheme": "IOB2"}, "2: tag 'S-A': prefix not in IOB2; allowed are B, I and O"),
        (b"a B-A\nb\xff O\n", {}, "2: byte 0xff at byte 2 of the line is not UTF-8"),
        ("", {}, "no sentence: the file is empty or blank"),
        ("\n \n", {}, "no sentence: the file is empty or blank"),
        ("-DOCSTART- O\n\n", {}, "no sentence in it"),
        (
            "-DOCSTART- -X- O O\n\nEU NNP I-ORG O\n\na DT O O\n",
            {},
            "no entity in 2 sentences: is data.tag_column = -1 right? the first line is 'EU NNP I-ORG O'",
        ),
    ],
)
def test_faults_of_conll(put, content, options, expected):
    said = message(put(content), **options)
    assert said[: len(expected)] == expected


def test_a_missing_file():
    with pytest.raises(DataError, match=re.escape("gone.conll: no such file (data.train)")):
        rows(Path("gone.conll"))


TAGS = st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B", "E-A", "S-B"])
WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="\ufeff"), min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sentences=st.lists(st.lists(st.tuples(WORDS, TAGS), min_size=1, max_size=6), min_size=1, max_size=5),
    separator=st.sampled_from([None, "\t", " ", ";;"]),
    target=st.sampled_from(["IOB1", "IOB2", "BIOES"]),
)
def test_whatever_is_written_is_read_back(put, monkeypatch, sentences, separator, target):
    monkeypatch.setattr(tagging, "BATCH", 2)
    sentences = [[(word.replace(";", "."), tag) for word, tag in sentence] for sentence in sentences]
    blocks = [
        "\n".join(f"{separator or ' '}".join((word, "x", tag)) for word, tag in sentence) for sentence in sentences
    ]
    path = put("\n\n".join(blocks), "round.conll")
    expected = [list(zip(*sentence)) for sentence in sentences]
    assume(any(spans(tags, "IOB2") for _, tags in expected))
    read = rows(path, separator=separator, scheme=target, format="conll")
    assert [tokens for tokens, _ in read] == [list(words) for words, _ in expected]
    assert [spans(tags, target) for _, tags in read] == [spans(tags, "IOB2") for _, tags in expected]


# JSON lines


def lines(*records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_json_tokens(put):
    first = {"tokens": ["Ann", "Lee", "of", "Oslo"], "tags": ["B-PER", "I-PER", "O", "B-LOC"], "id": 3}
    expected = [(first["tokens"], ["B-PER", "E-PER", "O", "S-LOC"])]
    content = lines(first, {"tokens": [], "tags": []})
    assert rows(put(content, "a.jsonl")) == expected
    assert rows(put(content, "train")) == expected  # known by its content
    assert rows(put(content, "b.conll"), format="jsonl") == expected


TEXT = "Ann Lee didn't visit New York."
OFFSETS = [
    {"text": TEXT, "entities": [{"start": 21, "end": 29, "label": "LOC"}, {"start": 0, "end": 7, "type": "PER"}]},
    {"text": "Oslo, Bergen", "entities": [[0, 4, "LOC"], [5, 12, "LOC"]]},
    {"text": " ", "entities": []},
    {"text": "Nobody.", "entities": []},
]


def test_json_entities(put):
    data = TaggingData(train=str(put(lines(*OFFSETS), "a.jsonl")))
    dataset, facts = open_tagging(data, "train")
    assert pairs(dataset) == [
        (["Ann", "Lee", "did", "n't", "visit", "New", "York", "."], ["B-PER", "E-PER", *"OOO", "B-LOC", "E-LOC", "O"]),
        (["Oslo", ",", "Bergen"], ["S-LOC", "O", "S-LOC"]),
        (["Nobody", "."], ["O", "O"]),
    ]
    assert facts[:-1] == ("jsonl entities", "offsets", "BIOES", 3, 13, 4)


def test_offsets_count_characters_not_bytes(put):
    path = put(lines({"text": "Zoë 😀 in Łódź", "entities": [[0, 3, "PER"], [9, 13, "LOC"]]}), "a.jsonl")
    assert rows(path) == [(["Zoë", "😀", "in", "Łódź"], ["S-PER", "O", "O", "S-LOC"])]


def test_an_entity_that_splits_a_token(put):
    records = [
        OFFSETS[1],
        {"text": "pro-Washington talks", "entities": [[4, 14, "LOC"]]},
        {"text": "Ann Lees", "entities": [[0, 7, "PER"], [4, 8, "X"]]},
    ]
    path = put(lines(*records), "a.jsonl")
    assert message(path) == (
        "2: entity 'Washington' (LOC, characters 4 to 14) splits the token 'pro-Washington'; so does 1 other "
        'entity of this file; mend the offsets, or set data.misaligned = "expand" to widen entities to whole tokens'
    )
    path = put(lines(*records[:2]), "b.jsonl")
    assert rows(path, misaligned="expand")[1] == (["pro-Washington", "talks"], ["S-LOC", "O"])
    assert message(put(lines(*records), "c.jsonl"), misaligned="expand").startswith("3: entities 'Ann Lees' (PER) and ")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, '2: 2 "tokens" and 1 "tags"'),
        ({"tokens": ["a"]}, '2: "tags" is missing'),
        ({"tokens": "a", "tags": ["O"]}, '2: "tokens" is not a list of strings'),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, '2: "tokens" is not a list of strings that are not empty'),
        ({"tokens": ["a"], "tags": [3]}, '2: "tags" is not a list of strings'),
        ({"tokens": ["a"], "tags": ["Q-PER"]}, "2: tag 'Q-PER': unknown prefix 'Q'"),
    ],
)
def test_faults_of_json_tokens(put, record, expected):
    good = {"tokens": ["a"], "tags": ["B-A"]}
    assert message(put(lines(good, record), "a.jsonl")).startswith(expected)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"entities": []}, '2: "text" is no string, or is missing'),
        ({"text": "a"}, '2: "entities" is no list, or is missing'),
        (
            {"text": "abc", "entities": [[0, 4, "A"]]},
            "2: entity 0: start 0 and end 4 are not 0 <= start < end <= 3, the ",
        ),
        ({"text": "abc", "entities": [[2, 2, "A"]]}, "2: entity 0: start 2 and end 2 are not 0 <= start < end <= 3"),
        ({"text": "abc", "entities": [[-1, 2, "A"]]}, "2: entity 0: start -1 and end 2 are not 0 <= start"),
        (
            {"text": "abc", "entities": [[0, 3]]},
            '2: entity 0: found [0, 3], expected {"start": 0, "end": 5, "label": "PER"}',
        ),
        ({"text": "abc", "entities": [{"start": 0, "end": True, "label": "A"}]}, "2: entity 0: found {"),
        ({"text": "abc", "entities": ["abc"]}, '2: entity 0: found "abc", expected {'),
        ({"text": "a   b", "entities": [[1, 3, "A"]]}, "2: entity '  ' (A, characters 1 to 3) has no token in it"),
        (
            {"text": "the Ann Lee show", "entities": [[8, 16, "B"], [4, 11, "A"]]},
            "2: entities 'Ann Lee' (A) and 'Lee show' (B) overlap; a token has one tag",
        ),
    ],
)
def test_faults_of_json_entities(put, record, expected):
    assert message(put(lines(OFFSETS[1], record), "a.jsonl")).startswith(expected)


def test_other_faults_of_json(put):
    assert message(put('{"tokens": [\n', "a.jsonl")) == "1: not valid JSON: Expecting value at character 13"
    expected = '1: found keys \'sentence\', \'label\'; expected "tokens" and "tags", or "text" and "entities"'
    assert message(put('{"sentence": "a", "label": 1}', "b.jsonl")) == expected
    assert message(put(lines({"tokens": ["a"], "tags": ["O"]}), "c.jsonl")) == "no entity in 1 sentence: every tag is O"
    assert message(put(lines(OFFSETS[3]), "d.jsonl")) == 'no entity in 1 sentence: every "entities" is empty'


# One scheme for all splits


def test_the_training_data_tells_the_scheme_of_all_splits(put):
    folder = put("a I-A\nb B-A\n\nc I-A\n").parent
    put("d B-A\ne I-A\n", "test.conll")
    data = TaggingData(source=str(folder))
    assert open_tagging(data, "test").facts.input_scheme == "IOB1"
    alone = TaggingData(test=str(folder / "test.conll"))
    assert open_tagging(alone, "test").facts.input_scheme == "IOB2"
    stated = TaggingData(source=str(folder), input_scheme="IOB2")
    assert open_tagging(stated, "test").facts.input_scheme == "IOB2"


def test_plain_types_need_a_training_file_of_plain_types(put):
    folder = put("a B-A\n").parent
    put("b A\nc A\nd O\n", "test.conll")
    with pytest.raises(
        DataError, match=re.escape("test.conll:1: tag 'A': no prefix; IOB2 tags are O or a prefix (B, I)")
    ):
        read_tagging(TaggingData(source=str(folder)), "test")
    alone = TaggingData(test=str(folder / "test.conll"))
    assert pairs(read_tagging(alone, "test")) == [(["b", "c", "d"], ["B-A", "E-A", "O"])]


def test_offsets_tell_no_scheme(put):
    folder = put(lines(*OFFSETS), "train.jsonl").parent
    put("a I-A\nb B-A\n\nc I-A\n", "test.conll")
    assert open_tagging(TaggingData(source=str(folder)), "test").facts.input_scheme == "IOB1"


# Cache


def test_a_change_of_content_or_settings_is_seen(put, cache_folder):
    path = put("a B-A\n")
    assert rows(path) == [(["a"], ["S-A"])]
    assert rows(path, scheme="IOB2") == [(["a"], ["B-A"])]
    put("b B-A\n")
    assert rows(path) == [(["b"], ["S-A"])]
    assert len(list(cache_folder.iterdir())) == 3


def test_a_second_reading_comes_from_the_cache_or_mends_it(put, cache_folder, monkeypatch):
    path = put(CONLL)
    assert rows(path) == ROWS
    built = []
    monkeypatch.setattr(tagging, "spans", lambda *args: built.append(args) or spans(*args))
    assert rows(path) == ROWS and not built
    file = next(cache_folder.iterdir())
    file.write_bytes(file.read_bytes()[:-50])
    assert rows(path) == ROWS and len(built) == 3


def test_memory_is_bounded_by_batches(put, monkeypatch):
    monkeypatch.setattr(tagging, "BATCH", 2)
    path = put("".join(f"w{n} B-A\n\n" for n in range(5)))
    dataset = read_tagging(TaggingData(train=str(path)), "train")
    assert [len(batch) for batch in dataset.data.column("tokens").chunks] == [2, 2, 1]


# Other sources


def test_the_sample():
    dataset, facts = open_tagging(TaggingData(), "valid")
    assert facts[:3] == ("sample", "IOB2", "BIOES") and facts.sentences == len(dataset) > 100
    written = [(tokens, spans(tags, "IOB2")) for tokens, tags in ner_sample("valid")]
    assert [(tokens, spans(tags, "BIOES")) for tokens, tags in pairs(dataset)] == written


NAMES = ["O", "B-LOC", "I-LOC"]


def saved(tmp_path, tags, feature):
    features = datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": feature})
    columns = {"tokens": [["New", "York", "!"], [], ["Oslo"]], "ner_tags": tags}
    split = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict({"train": split, "validation": split}).save_to_disk(tmp_path / "hub")
    return TaggingData(source=f"hub:{tmp_path / 'hub'}")


def test_hub_datasets_of_class_labels_or_strings(tmp_path):
    expected = [(["New", "York", "!"], ["B-LOC", "E-LOC", "O"]), (["Oslo"], ["S-LOC"])]
    labels = saved(tmp_path, [[1, 2, 0], [], [1]], datasets.Sequence(datasets.ClassLabel(names=NAMES)))
    dataset, facts = open_tagging(labels, "valid")
    assert pairs(dataset) == expected and str(facts) == "hub, IOB2 -> BIOES"
    strings = saved(
        tmp_path / "b", [["B-LOC", "I-LOC", "O"], [], ["B-LOC"]], datasets.Sequence(datasets.Value("string"))
    )
    assert pairs(read_tagging(strings, "train")) == expected


def test_faults_of_hub_datasets(tmp_path):
    data = saved(tmp_path, [[1, 2, 0], [], [-1]], datasets.Sequence(datasets.ClassLabel(names=NAMES)))
    with pytest.raises(DataError, match=r'hub:3: "ner_tags" is not a list of strings'):
        read_tagging(data, "train")
    numbers = saved(tmp_path / "b", [[1, 2, 0], [], [1]], datasets.Sequence(datasets.Value("int64")))
    with pytest.raises(DataError, match=r'hub:1: "ner_tags" is not a list of strings'):
        read_tagging(numbers, "train")
    with pytest.raises(DataError, match=re.escape("no column 'tags' (data.tags_field); found: tokens, ner_tags")):
        read_tagging(data.model_copy(update={"tags_field": "tags"}), "train")
    with pytest.raises(
        DataError, match="no test split; it would be called one of test, testb; found: train, validation"
    ):
        read_tagging(data, "test")


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A folder in NLTK's form of conll2002, in place of the corpora of the machine."""
    folder = tmp_path / "nltk" / "corpora" / "conll2002"
    folder.mkdir(parents=True)
    text = {"esp": "El DA O\nAbogado NC B-PER\nGeneral AQ I-PER\n\nde SP O\nMadrid NP B-LOC\n", "ned": "Jan N B-PER\n"}
    for language, content in text.items():
        for part in ("train", "testa", "testb"):
            (folder / f"{language}.{part}").write_text(content + "\n")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])
    loader = LazyCorpusLoader(
        "conll2002", ConllChunkCorpusReader, r".*\.(test|train).*", ("LOC", "PER", "ORG", "MISC"), encoding="utf-8"
    )
    monkeypatch.setattr(nltk.corpus, "conll2002", loader)
    return folder


def test_nltk_corpora(corpus):
    dataset, facts = open_tagging(TaggingData(source="nltk:conll2002:esp"), "valid")
    assert pairs(dataset) == [
        (["El", "Abogado", "General"], ["O", "B-PER", "E-PER"]),
        (["de", "Madrid"], ["O", "S-LOC"]),
    ]
    assert str(facts) == "nltk, IOB2 -> BIOES"
    (corpus / "esp.testa").write_text("Ana N B-PER\n\n")
    assert pairs(read_tagging(TaggingData(source="nltk:conll2002:esp"), "valid")) == [(["Ana"], ["S-PER"])]


def test_faults_of_nltk_corpora(corpus):
    advice = "several files for train: esp.train, ned.train; pick by prefix, such as nltk:conll2002:esp"
    with pytest.raises(DataError, match=re.escape(f"nltk:conll2002: {advice}")):
        read_tagging(TaggingData(source="nltk:conll2002"), "train")
    with pytest.raises(DataError, match=r"no train file; .* found: esp.testa, esp.testb, esp.train, ned.testa"):
        read_tagging(TaggingData(source="nltk:conll2002:fra"), "train")
    (corpus / "esp.train").write_text("Ana N Z-PER\n\n")
    with pytest.raises(DataError, match=re.escape("nltk:conll2002: esp.train:1: tag 'Z-PER': unknown prefix 'Z'")):
        read_tagging(TaggingData(source="nltk:conll2002:esp"), "train")
    (corpus / "esp.train").write_text("Ana N B-PER\nx\n\n")
    with pytest.raises(DataError, match=r"nltk:conll2002: esp\.train: Inconsistent number of columns"):
        read_tagging(TaggingData(source="nltk:conll2002:esp"), "train")


def test_the_schema_says_every_fault():
    with pytest.raises(ConfigError) as raised:
        parse(TaggingData, {"formt": "conll", "scheme": "BILOU", "tag_column": "3"}, source="r.toml", prefix="data")
    assert raised.value.faults == [
        "data.tag_column: expected a valid integer, got '3'",
        "data.scheme: expected 'IO', 'IOB1', 'IOB2' or 'BIOES', got 'BILOU'",
        "data.formt: unknown key; did you mean 'format'?",
    ]
    assert all(field.description for field in TaggingData.model_fields.values())
