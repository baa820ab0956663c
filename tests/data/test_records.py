import json
import re
from pathlib import Path

import datasets
import pytest

from seqtext.data.records import instead, missing, open_records, string, suffix_of
from seqtext.errors import DataError

FIELDS = {"text_field": "text", "label_field": "label"}


def test_json_lines_and_parquet_give_the_same_values_and_numbers(tmp_path):
    rows = [{"n": n, "label": f"l{n}", "text": [str(n)] if n % 2 else None} for n in range(2500)]
    expected = [(n + 1, [row["text"], row["label"]]) for n, row in enumerate(rows)]
    (tmp_path / "a").write_text("\n".join(map(json.dumps, rows)))
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "b")
    assert list(open_records(tmp_path / "a", "jsonl", FIELDS)) == expected
    assert list(open_records(tmp_path / "b", "parquet", FIELDS)) == expected


def test_class_labels_read_by_their_names_in_whichever_column(tmp_path):
    names = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features({"text": names, "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict({"text": [1, 0, -1], "label": [0, 1, 1]}, features=features)
    rows.to_parquet(tmp_path / "a")
    assert [values for _, values in open_records(tmp_path / "a", "parquet", FIELDS)] == [
        ["yes", 0],
        ["no", 1],
        [None, 1],
    ]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["label", "text"], None),
        (
            ["Text", "text ", "label"],
            "no key 'text' (data.text_field); found: Text, text , label; did you mean 'Text'?",
        ),
        (["n"], "no key 'text' (data.text_field) and no key 'label' (data.label_field); found: n"),
        ([], "no key 'text' (data.text_field) and no key 'label' (data.label_field); found: none"),
        (["text", "x" * 50], f"no key 'label' (data.label_field); found: text, {'x' * 40}"),
    ],
)
def test_what_is_missing(there, expected):
    assert missing(FIELDS, there, "key") == expected


def test_a_hint_stands_before_the_name_that_is_meant():
    assert instead(["eng", "fr"], ["en"], "here", hint="look") == "here: eng, fr; look; did you mean 'eng'?"
    assert instead(["en", "fr"], ["de"]) == "found: en, fr"  # one letter in common is no likeness


@pytest.mark.parametrize(("value", "found"), [(None, "nothing"), (["a"], "list ['a']"), (3, "int 3")])
def test_a_value_that_is_no_string(value, found):
    with pytest.raises(DataError, match=re.escape(f"a.json:7: 'text' holds {found}, expected a string")):
        string(value, "text", "a.json", 7)


def test_what_a_name_ends_in():
    assert [suffix_of(Path(name)) for name in ("a/Train.CSV.gz", "b.d/train", "x.json", "y.gz")] == [
        ".csv",
        "",
        ".json",
        "",
    ]
