"""Recipes as typed values: every fault at once by its dotted key, overrides, choices by `name`, TOML there and back."""

import importlib
import pkgutil
import re
import tomllib
import types
import typing
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

import seqtext
from seqtext.config import Config, override, parse, read_toml, to_toml
from seqtext.errors import ConfigError


class Sgd(Config):
    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    momentum: float = 0.0


class Adam(Config):
    name: Literal["adam"] = "adam"
    lr: float = Field(default=0.001, gt=0)
    beta: float = 0.9


class Layer(Config):
    size: int
    kind: Literal["lstm", "gru"] = "lstm"


class Train(Config):
    epochs: int = Field(default=3, ge=1)
    shuffle: bool = True
    optimizer: Sgd | Adam = Field(default=Sgd(), discriminator="name")
    warmer: Annotated[Sgd | Adam, Field(discriminator="name")] | None = None
    every: int | Literal["epoch"] = "epoch"
    extra: Layer | None = None
    layers: list[Layer] = Field(default=[])
    stages: list[Annotated[Sgd | Adam, Field(discriminator="name")]] = Field(default=[])
    tables: dict[str, Layer] = Field(default={})
    widths: list[int] = Field(default=[3], min_length=1)

    @model_validator(mode="after")
    def _check(self):
        if self.epochs == 13:
            raise ValueError("epochs of 13, an unlucky number, are not allowed")
        return self


class Recipe(Config):
    task: Literal["ner", "lm"]
    train: Train = Train()


def faults_of(values: dict[str, Any], prefix: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(Recipe, values, source="r.toml", prefix=prefix)
    return caught.value.faults


def test_every_fault_of_a_recipe_is_told_at_once():
    text = """
    task = "nre"
    trian = 1
    [train]
    epochs = 0
    optimzer = {}
    optimizer = {name = "adma", lr = 1.0}
    shuffle = "True"
    every = "day"
    extra = {siz = 2}
    layers = [{size = 1}, {size = "2", kindd = "gru", kind = "rnn"}]
    widths = []
    """
    with pytest.raises(ConfigError) as caught:
        parse(Recipe, tomllib.loads(text), source="r.toml")
    assert str(caught.value).splitlines() == [
        "r.toml: 13 faults",
        "  task: expected 'ner' or 'lm', got 'nre'",
        "  train.epochs: expected greater than or equal to 1, got 0",
        "  train.shuffle: expected true or false, got 'True'",
        "  train.optimizer.name: expected one of sgd, adam, got 'adma'; did you mean 'adam'?",
        "  train.every: expected a valid integer or 'epoch', got 'day'",
        "  train.extra.size: missing; a value is required",
        "  train.extra.siz: unknown key; did you mean 'size'?",
        "  train.layers.1.size: expected a valid integer, got '2'",
        "  train.layers.1.kind: expected 'lstm' or 'gru', got 'rnn'",
        "  train.layers.1.kindd: unknown key; did you mean 'kind'?",
        "  train.widths: list should have at least 1 item after validation, not 0, got []",
        "  train.optimzer: unknown key; did you mean 'optimizer'?",
        "  trian: unknown key; did you mean 'train'?",
    ]


@pytest.mark.parametrize(
    ("train", "fault"),
    [
        (
            {"optimizer": {"name": "sgd", "beta": 0.5}},
            "optimizer.beta: unknown key; known keys here: lr, momentum, name",
        ),
        ({"warmer": {"name": "adam", "lrr": 1.0}}, "warmer.lrr: unknown key; did you mean 'lr'?"),
        ({"optimizer": {"name": "adam", "lr": -1}}, "optimizer.lr: expected greater than 0, got -1"),
        ({"optimizer": {"lr": 1.0}}, "optimizer.name: missing; it must be one of sgd, adam"),
        ({"optimizer": {"name": 3}}, "optimizer.name: expected one of sgd, adam, got 3"),
        ({"optimizer": "sgd"}, "optimizer: expected a table with a name, got 'sgd'"),
        (
            {"stages": [{"name": "sgd"}, {"name": "sgd", "beta": 1.0}]},
            "stages.1.beta: unknown key; known keys here: lr, ",
        ),
        ({"tables": {"sgd": {"size": True}}}, "tables.sgd.size: expected a valid integer, got True"),
        ({"tables": {"a": {"size": 1, "sizee": 1}}}, "tables.a.sizee: unknown key; did you mean 'size'?"),
        ({"extra": 5}, "extra: expected a table, got 5"),
        ({"every": 1.5}, "every: expected a valid integer or 'epoch', got 1.5"),
        ({"epochs": 2.0}, "epochs: expected a valid integer, got 2.0"),
        ({"optimizer": {"name": "sgd", "lr": float("nan")}}, "optimizer.lr: expected a finite number, got nan"),
        ({"a]": 1}, "a]: unknown key; known keys here: epochs, every, extra,"),
        ({"epochs": 13}, "epochs of 13, an unlucky number, are not allowed"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "job"])
def test_a_fault_is_named_by_the_key_a_user_wrote(train, fault, prefix):
    (line,) = faults_of({"task": "ner", "train": train}, prefix)
    join = ": " if "unlucky" in fault else "."
    assert line.startswith(f"{prefix}.train{join}{fault}" if prefix else f"train{join}{fault}")


@given(st.sampled_from(sorted(Train.model_fields)), st.data())
def test_a_key_with_one_letter_wrong_is_put_right(key, data):
    place = data.draw(st.integers(0, len(key) - 1))
    letter = data.draw(st.sampled_from("0123456789"))  # no letter, which could make another key as near
    wrong = key[:place] + letter + key[place + 1 :]
    assert faults_of({"task": "ner", "train": {wrong: 1}}) == [f"train.{wrong}: unknown key; did you mean '{key}'?"]


def test_a_config_cannot_be_changed_and_takes_whole_numbers_for_real_ones():
    recipe = parse(Recipe, {"task": "ner", "train": {"optimizer": {"name": "sgd", "lr": 1}}}, source="r.toml")
    assert isinstance(recipe.train.optimizer, Sgd) and recipe.train.optimizer.lr == 1.0
    with pytest.raises(ValidationError, match="frozen"):
        recipe.train.epochs = 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("1e-3", 0.001), ("true", True), ("[1, 2]", [1, 2]), ('"3"', "3"), ("{size = 1}", {"size": 1}),
        pytest.param("1" * 5000, "1" * 5000, id="digits"), ("[" * 30 + "]" * 30, "[" * 30 + "]" * 30),
        pytest.param("[" * 5000, "[" * 5000, id="brackets"),
        pytest.param(f'"{"x" * 20_000}"', f'"{"x" * 20_000}"', id="long"), ("bf16", "bf16"),
        ("a=b", "a=b"), ("", ""), ("data/x.txt", "data/x.txt"), ("1\nepochs = 2", "1\nepochs = 2"),
    ],
)  # fmt: skip
def test_an_override_is_read_as_toml_and_else_as_text(text, value):
    found = override({"train": {"epochs": 1}}, [f"train.x ={text}"], source="command line")
    assert found == {"train": {"epochs": 1, "x": value}}
    assert type(found["train"]["x"]) is type(value)


def test_overrides_make_tables_go_in_order_and_leave_what_was_given_alone():
    values = {"a": {"b": 1}}
    table = {"c": 1}
    assert override(values, {"x.y.z": 1, "t": table, "t.c": 2}, source="s") == {
        "a": {"b": 1},
        "x": {"y": {"z": 1}},
        "t": {"c": 2},
    }
    assert override(values, ["a.b=2", "a.b=3"], source="s") == {"a": {"b": 3}}
    assert (values, table) == ({"a": {"b": 1}}, {"c": 1})


def test_another_choice_drops_the_settings_of_the_old_one_but_none_given_beside_it():
    values = {"name": "mine", "lr": 7, "o": {"name": "sgd", "lr": 1, "momentum": 0.9, "sub": {"a": 1}}}
    kept = {"name": "mine", "lr": 7}
    assert override(values, ["o.name=adam"], source="s") == kept | {"o": {"name": "adam"}}
    assert override(values, ["o.name=sgd"], source="s") == values
    both = kept | {"o": {"name": "adam", "lr": 2}}
    assert override(values, ["o.name=adam", "o.lr=2"], source="s") == both
    assert override(values, ["o.lr=2", "o.name=adam"], source="s") == both
    assert override(values, ["lr=7", "o.name=adam"], source="s") == kept | {"o": {"name": "adam"}}
    assert override(values, ["o.sub.a=2", "o.name=adam"], source="s")["o"] == {"name": "adam", "sub": {"a": 2}}
    assert override(values, ['o={name="x", lr=3}', "o.name=adam"], source="s")["o"] == {"name": "adam"}
    assert override(values, ["name=yours"], source="s") == values | {"name": "yours"}  # the recipe itself is no choice


def test_overrides_that_cannot_be_made_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        override({"a": {"b": 1}}, ["a.b.c=1", "epochs", "=1", "a..b=1", "a.=2", "good=1"], source="command line")
    how = "an override is written KEY=VALUE, for example train.epochs=3"
    assert str(caught.value).splitlines() == [
        "command line: 5 faults",
        "  a.b.c: 'a.b' is a value, not a table",
        *(f"  '{text}': {how}" for text in ("epochs", "=1", "a..b=1", "a.=2")),
    ]


keys = st.text(min_size=1, max_size=5)
leaves = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
tables = st.recursive(
    st.dictionaries(keys, leaves | st.lists(leaves, max_size=3), max_size=4),
    lambda inner: st.dictionaries(keys, inner | leaves | st.lists(inner, max_size=3), max_size=4),
    max_leaves=8,
)


@given(tables)
def test_toml_there_and_back(values):
    again = tomllib.loads(to_toml(values))
    assert again == values and repr(again) == repr(tomllib.loads(to_toml(again)))


def test_a_long_value_is_shown_in_part():
    with pytest.raises(ConfigError) as caught:
        parse(Train, {"epochs": "1" * 5000}, source="r.toml")
    assert str(caught.value).splitlines()[1] == f"  epochs: expected a valid integer, got '{'1' * 96}..."


def test_none_is_left_out_of_toml():
    assert tomllib.loads(to_toml({"a": None, "b": {"c": None, "d": (1, 2)}})) == {"b": {"d": [1, 2]}}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'a = 1\nb = = 2\n', r"not valid TOML: Invalid value \(at line 2, column 5\)"),
        pytest.param(b"a = " + b"[" * 5000, "not valid TOML: maximum recursion depth exceeded.*", id="brackets"),
        pytest.param(b"a." * 30 + b"a=1", "tables and lists within each other, more than 20 deep", id="deep"),
        pytest.param(b"a = " + b"1" * 5000, "not valid TOML: Exceeds the limit .*", id="digits"),
        pytest.param(b"a." * 15_000 + b"a=1", "30,003 characters; a recipe has at most 20,000", id="long"),
        (b"a = '\xff'\n", "byte 5 is not UTF-8; a recipe is a UTF-8 TOML file"),
        (None, "no such file"),
        ("folder", "this is a folder; a recipe is a TOML file"),
        ("inside a file", "cannot be read: Not a directory"),
    ],
)  # fmt: skip
def test_a_recipe_file_that_cannot_be_read(tmp_path, content, fault):
    path = tmp_path / "r.toml"
    if content == "folder":
        path.mkdir()
    elif content == "inside a file":
        path.write_text("")
        path /= "r.toml"
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: 1 fault\n  {fault}$"):
        read_toml(path)


def test_a_recipe_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 'caf\xc3\xa9'\r\n")
    assert read_toml(path) == {"a": "café"}


def schemas():
    """Every schema of the package, and those of this file."""
    for module in pkgutil.walk_packages(seqtext.__path__, "seqtext."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, todo = [], [Config]
    while todo:
        subclasses = todo.pop().__subclasses__()
        found += subclasses
        todo += subclasses
    return found


def test_every_schema_of_the_package_survives_toml():
    for schema in schemas():
        for key, field in schema.model_fields.items():
            members = typing.get_args(field.annotation)
            # TOML has no None, so a None that is not the default could not be written.
            assert types.NoneType not in members or field.default is None, f"{schema.__name__}.{key}"
        if not any(field.is_required() for field in schema.model_fields.values()):
            written = tomllib.loads(to_toml(schema().model_dump()))
            assert parse(schema, written, source=schema.__name__) == schema()
    assert {"TrainConfig", "Train"} <= {schema.__name__ for schema in schemas()}
