"""What is fuzzed: for each target how an input is made, and what reads it."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fuzz_readers
import tiny
from fuzz_inputs import PIECES, VALUES, damaged, damaged_json, damaged_tensors, damaged_value
from fuzz_readers import Target

from seqtext.config import parse

# Tokenizers


def _text(rng: random.Random, seeds: Sequence[bytes]) -> str:
    longest = 50_000 if rng.random() < 0.01 else 500
    return damaged(seeds, rng).decode("utf-8", rng.choice(("replace", "surrogateescape")))[:longest]


TEXTS = [
    b'The cat sat on the mat, didn\'t it? "Yes", it did.',
    "Caf\u00e9 \u00dcber 10\u00a0000 \u0130stanbul \u4e2d\u6587 \U0001f600 na\u00efve e\u0301".encode(),
    b"<unk> <pad> </s> <0x41> a_b a--b ... ''quoted'' ``so''",
    "\u2581\u2581 a\u2581b \u3000 \u2028 \x1c\x1d \x85".encode(),
    b"a",
    b"",
]


def tokenizer(scratch: Path) -> Target:
    """Training on texts, and what was trained: encoding, decoding, saving and loading."""
    from seqtext.data.tokenizer import Tokenizer
    from seqtext.data.tokenizer_training import TokenizerConfig

    def make(rng: random.Random) -> tuple[dict[str, Any], list[str], list[str]]:
        unit = rng.choice(("word", "char", "bpe", "bpe", "unigram"))
        values: dict[str, Any] = {"unit": unit, "lowercase": rng.random() < 0.3, "fold_digits": rng.random() < 0.3}
        pieces = unit in ("bpe", "unigram")
        values["byte_fallback"] = pieces and rng.random() < 0.5
        if pieces or rng.random() < 0.3:
            values["max_size"] = rng.choice((3, 30, 60)) + 256 * values["byte_fallback"]
        texts = [_text(rng, TEXTS) for _ in range(rng.choice((0, 1, 3)))]
        return values, texts, [_text(rng, TEXTS) for _ in range(2)]

    def use(given: tuple[dict[str, Any], list[str], list[str]]) -> None:
        values, texts, others = given
        found = Tokenizer.train(texts, parse(TokenizerConfig, values, source="fuzz"), specials=["<s>", "</s>"])
        path = scratch / "tokenizer.json"
        found.save(path)
        again = Tokenizer.load(path)
        for text in [*texts, *others]:
            encoding = found.encode(text)
            _check(text, encoding, found, values)
            if again.encode(text) != encoding:
                raise AssertionError("saved and loaded, it encodes otherwise")
            if found.unit != "word" and found.encode_flat([text])[0].tolist() != encoding.ids:
                raise AssertionError("encode_flat is not encode")

    return Target(make, use)


def _check(text: str, encoding: Any, found: Any, values: Mapping[str, Any]) -> None:
    if not all(0 <= id < found.size and id not in (0, 2, 3) for id in encoding.ids):
        raise AssertionError("an id that no text has")
    if any(not 0 <= start <= end <= len(text) for start, end in encoding.offsets):
        raise AssertionError("offsets outside of the text")
    decoded = found.decode(encoding.ids)
    if values["byte_fallback"] and not values["lowercase"] and not values["fold_digits"]:
        one, other = (re.sub("[\\s\u2581\x1c-\x1f]+", "", string) for string in (text, decoded))
        if re.sub("[\ud800-\udfff]", "\ufffd", one) != other:
            raise AssertionError("decoding does not give the text back")


def tokenizer_file(scratch: Path) -> Target:
    from seqtext.data.tokenizer import Tokenizer
    from seqtext.data.tokenizer_training import TokenizerConfig

    texts = [text.decode() for text in TEXTS]
    seeds = []
    for unit, size, folded in (("word", None, True), ("char", None, False), ("bpe", 300, False), ("unigram", 50, True)):
        values = {"unit": unit, "max_size": size and size * 2, "lowercase": folded, "byte_fallback": unit == "bpe"}
        seeds.append(Tokenizer.train(texts, parse(TokenizerConfig, values, source="fuzz")).to_json().encode())
    path = scratch / "tokenizer.json"

    def use(data: bytes) -> None:
        path.write_bytes(data)
        found = Tokenizer.load(path)
        if found.unit == "word":
            found.encode_words(["cat", "Caf\u00e9"])
        else:
            found.encode_flat(texts)
        if found.unit == "char":
            found.encode_chars(["cat"], 10)
        found.decode(found.encode(texts[0]).ids)

    return Target(lambda rng: damaged_json(rng.choice(seeds), rng), use)


# Recipes


def _recipes() -> list[Path]:
    from seqtext.shelf import shipped

    return list(shipped().values())


def recipe(scratch: Path) -> Target:
    """TOML texts: damaged in their bytes, or written of damaged values."""
    import tomli_w

    from seqtext import recipe as room

    seeds = [path.read_bytes() for path in _recipes()]
    tables = [tomllib.loads(seed.decode()) for seed in seeds]
    path = scratch / "mine.toml"

    def make(rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            return damaged(seeds, rng)
        try:
            return tomli_w.dumps(damaged_value(rng.choice(tables), rng)).encode("utf-8", "surrogatepass")
        except (TypeError, AttributeError, ValueError):  # a value that TOML does not have
            return damaged(seeds, rng)

    def use(data: bytes) -> None:
        path.write_bytes(data)
        text = room.load(str(path)).toml()
        path.write_text(text, encoding="utf-8")
        if room.load(str(path)).toml() != text:
            raise AssertionError("a recipe written out is another one")

    return Target(make, use)


def override(scratch: Path) -> Target:
    """KEY=VALUE on the command line."""
    from seqtext import recipe as room

    keys = {str(path): _keys(tomllib.loads(path.read_text(encoding="utf-8"))) for path in _recipes()}
    values = [
        "3",
        "0.5",
        "true",
        '"lstm"',
        "gru",
        "[1, 2]",
        '{name = "none"}',
        "",
        "1e400",
        "2024-01-01",
        "x\ny = 1",
        "'",
    ]

    def one(name: str, rng: random.Random) -> str:
        key = rng.choice(keys[name])
        if rng.random() < 0.2:
            key = damaged([key.encode()], rng).decode("utf-8", "replace")
        value = rng.choice(values) if rng.random() < 0.5 else str(rng.choice(VALUES))
        if rng.random() < 0.3:
            value = rng.choice(PIECES).decode("utf-8", "surrogateescape") * rng.choice((1, 2, 20))
        if rng.random() < 0.001:
            value = "[" * 100_000
        return rng.choice(("{}={}", "{}={}", "{} = {}", "{}{}")).format(key, value)

    def make(rng: random.Random) -> tuple[str, list[str]]:
        name = rng.choice(list(keys))
        return name, [one(name, rng) for _ in range(rng.choice((1, 1, 1, 2)))]

    def use(given: tuple[str, list[str]]) -> None:
        room.load(*given).toml()

    return Target(make, use)


def _keys(table: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every dotted key of a table."""
    found = []
    for key, value in table.items():
        found.append(prefix + key)
        if isinstance(value, Mapping):
            found += _keys(value, f"{prefix}{key}.")
    return found


# What training left


def _trained(scratch: Path) -> list[Path]:
    """A tiny run of every task."""
    import torch

    import seqtext

    torch.set_num_threads(1)
    runs = []
    for task in tiny.FILES:
        data = tiny.write_corpus(task, scratch / task, train=12)
        settings = [*tiny.overrides(task), "train.epochs=1"]
        runs.append(
            seqtext.train(task, data=str(data), overrides=settings, out=scratch / f"{task}-run", device="cpu").folder
        )
    return runs


def run(scratch: Path) -> Target:
    """A run folder of which a file is damaged."""
    import seqtext

    folders = _trained(scratch)
    files = [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != "metrics.jsonl" and not path.name.startswith("predictions.")
    ]
    whole = {path: path.read_bytes() for path in files}

    def make(rng: random.Random) -> tuple[Path, bytes]:
        path = rng.choice(files)
        if path.suffix == ".toml":
            return path, damaged([whole[path]], rng)
        return path, (damaged_tensors if path.suffix == ".safetensors" else damaged_json)(whole[path], rng)

    def use(given: tuple[Path, bytes]) -> None:
        path, data = given
        try:
            _write(path, data)
            seqtext.load(path.parent, device="cpu")
        finally:
            _write(path, whole[path])

    return Target(make, use)


def _write(path: Path, data: bytes) -> None:
    """Another file under this name, as all of seqtext writes them: tensors of the old one may be mapped."""
    path.unlink()
    path.write_bytes(data)


def checkpoint(scratch: Path) -> Target:
    """A checkpoint, restored and gone on from by a step."""
    from itertools import islice

    import torch

    from seqtext import run as runs
    from seqtext import session
    from seqtext.training.checkpoint import load_checkpoint
    from seqtext.training.distributed import Devices
    from seqtext.training.loop import fit

    devices = Devices(torch.device("cpu"), precision="float32")
    jobs, files = {}, []
    for folder in _trained(scratch):
        opened = runs.open_run(folder)
        encoded = opened.task.encode(session.read_splits(opened.recipe)["train"])
        last = folder / "checkpoints" / "last"
        jobs[last] = opened.task, opened.task.build(opened.recipe.model), encoded, opened.recipe
        files += sorted(last.iterdir())
    whole = {path: path.read_bytes() for path in files}

    def make(rng: random.Random) -> tuple[Path, bytes]:
        path = rng.choice(files)
        return path, (damaged_json if path.suffix == ".json" else damaged_tensors)(whole[path], rng)

    def use(given: tuple[Path, bytes]) -> None:
        path, data = given
        task, module, encoded, recipe = jobs[path.parent]
        try:
            _write(path, data)
            snapshot = load_checkpoint(path.parent)
        finally:
            _write(path, whole[path])
        config = recipe.train.model_copy(update={"epochs": 2})
        for _ in islice(fit(task, module, encoded, None, config, devices=devices, seed=1, resume=snapshot), 2):
            pass

    return Target(make, use)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "tagging": fuzz_readers.tagging,
    "classification": fuzz_readers.classification,
    "corpus": fuzz_readers.corpus,
    "parallel": fuzz_readers.parallel,
    "trees": fuzz_readers.trees,
    "vectors": fuzz_readers.vectors,
    "tokenizer": tokenizer,
    "tokenizer-file": tokenizer_file,
    "recipe": recipe,
    "override": override,
    "run": run,
    "checkpoint": checkpoint,
}
