"""Words as vectors: characters against a word alone, and which word gets which vector, in training and after."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqtext.config import parse
from seqtext.errors import ConfigError, InputError
from seqtext.nn.embedding import (
    CharacterCNN,
    CharacterRNN,
    CNNOverCharacters,
    EmbeddingConfig,
    RNNOverCharacters,
    WordEmbedding,
    Words,
)

SPELLED = [[2, 3, 4], [5], [6, 2, 2, 7, 3, 4], [3, 3], [2, 4, 6, 5]]
UNKNOWN = 1


def pad(words: list[list[int]], more: int = 0) -> Tensor:
    longest = max(map(len, words)) + more
    return torch.tensor([word + [0] * (longest - len(word)) for word in words])


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("widths", [[3], [1], [2, 3, 5], [4, 4]], ids=str)
def test_characters_by_convolution_are_those_of_torch_word_by_word(widths: list[int]) -> None:
    torch.manual_seed(0)
    model = CNNOverCharacters(8, CharacterCNN(size=5, filters=4, widths=widths)).double()
    model.bias.data.normal_()
    found = model(pad(SPELLED[:2], more=2), pad(SPELLED[2:]))
    expected = []
    for word in SPELLED:
        x = model.embedding.weight[word].T[None]  # (1, D, L)
        parts, start = [], 0
        for width in widths:
            taps = model.taps.weight[start : start + width * 4].unflatten(0, (width, 4))  # (w, F, D)
            # Every window with a real character in it; beyond the word is zero.
            y = nn.functional.conv1d(x, taps.permute(1, 2, 0), padding=width - 1)
            parts.append(y[0].max(1).values)
            start += width * 4
        expected.append(torch.cat(parts) + model.bias)
    close(found, torch.stack(expected))
    share = torch.randn_like(found)
    parameters = [model.embedding.weight, model.taps.weight, model.bias]
    gradients = torch.autograd.grad((share * found).sum(), parameters)
    # Padding is one row of the embedding, and learns nothing.
    wanted = torch.autograd.grad((share * torch.stack(expected)).sum(), parameters)
    close(gradients, wanted)
    assert gradients[0][0].eq(0).all()
    with torch.no_grad():
        close(model.eval()(pad(SPELLED)), found)


@pytest.mark.parametrize("cell", ("rnn", "lstm", "gru"))
def test_characters_by_recurrence_are_those_of_each_word_alone(cell: str) -> None:
    torch.manual_seed(0)
    config = parse(CharacterRNN, {"name": "rnn", "cell": cell, "size": 5, "hidden_size": 3}, source="recipe")
    model = RNNOverCharacters(8, config).double()
    found = model(pad(SPELLED, more=2))
    for row, word in enumerate(SPELLED):
        x = model.embedding.weight[word][None]  # (1, L, D)
        ends = [model.forwards(x)[0][0, -1], model.backwards(x.flip(1))[0][0, -1]]
        close(found[row], torch.cat(ends))
    found.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


# Types of a batch: 0 in both, 1 known to training alone, 2 known to the vectors alone, 3 to neither, 4 as 0 but rare,
# 5 as 1 but rare.
IDS = torch.tensor([2, 3, UNKNOWN, UNKNOWN, 6, 7])
PRETRAINED = torch.tensor([True, False, True, False, True, False])
RARE_FROM = 6


def words(*, vectors: bool = True) -> Words:
    table = torch.randn(6, 4, generator=torch.Generator().manual_seed(9)) * PRETRAINED.unsqueeze(1)
    return Words(
        positions=torch.tensor([[0, 1, 2, 3, 4, 5], [5, 5, 1, 0, 0, 0]]),
        ids=IDS,
        characters=(pad([*SPELLED, [4, 4]][:2]), pad([*SPELLED, [4, 4]][2:])),
        shapes=torch.tensor([1, 2, 0, 3, 1, 4]),
        vectors=table if vectors else None,
        pretrained=PRETRAINED if vectors else torch.zeros(6, dtype=torch.bool),
    )


def build(*, vectors: bool = True, plain: bool = True, **options: Any) -> Any:
    """An embedding of 8 words; `plain` leaves out characters."""
    torch.manual_seed(2)
    config = {"size": 4, "rare_dropout": 0.0, **({"characters": {"name": "none"}} if plain else {}), **options}
    pretrained = torch.zeros(8, dtype=torch.bool)
    pretrained[IDS[[0, 4]]] = True
    return WordEmbedding(
        parse(EmbeddingConfig, config, source="recipe"),
        vocabulary=8,
        characters=8,
        shapes=5,
        vector_size=4 if vectors else 0,
        pretrained=pretrained if vectors else None,
        rare_from=RARE_FROM,
    )


def by_type(model: WordEmbedding, given: Words) -> Tensor:
    """(6, E): the vector of each type, one a row."""
    return model(given)[0]


def train(model: WordEmbedding, given: Words) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    (by_type(model.train(), given) - 1.0).square().sum().backward()
    optimizer.step()
    model.eval()


@pytest.mark.parametrize("tune", [True, False])
def test_what_a_word_starts_as(tune: bool) -> None:
    model, given = build(tune=tune).eval(), words()
    found = by_type(model, given)
    assert given.vectors is not None and model.table is not None
    assert torch.equal(found[PRETRAINED], given.vectors[PRETRAINED])
    assert torch.equal(found[~PRETRAINED], model.table.weight[IDS[~PRETRAINED]])
    assert model.table.weight[2:].ne(0).any(1).tolist() == [False, True, True, True, False, True]


def test_tuned_vectors_move_and_a_word_first_met_later_keeps_its_own() -> None:
    model, given = build(tune=True), words()
    train(model, given)
    found = by_type(model, given)
    assert given.vectors is not None and model.table is not None
    for known in (0, 4):
        assert (found[known] - given.vectors[known]).abs().min() > 0
    assert torch.equal(found[2], given.vectors[2])  # whatever the unknown word's embedding has become
    assert torch.equal(found[3], model.table.weight[UNKNOWN]) and found[3].ne(build().table.weight[UNKNOWN]).all()


def test_frozen_vectors_stay_and_words_without_one_learn() -> None:
    model, given = build(tune=False), words()
    before = by_type(model.eval(), given)
    train(model, given)
    found = by_type(model, given)
    assert torch.equal(found[PRETRAINED], before[PRETRAINED])
    assert found[~PRETRAINED].ne(before[~PRETRAINED]).all()


def test_without_vectors_the_table_is_all() -> None:
    model = build(vectors=False, size=3, plain=False, shapes=2).eval()
    found = by_type(model, words(vectors=False))
    assert model.table is not None and model.shapes is not None and model.characters is not None
    expected = [model.table.weight[IDS], model.characters(pad([*SPELLED, [4, 4]])), model.shapes.weight[words().shapes]]
    close(found, torch.cat(expected, 1))
    assert found.shape[1] == model.output_size


@pytest.mark.parametrize("vectors", [True, False])
def test_rare_words_and_no_others_are_read_as_unknown_while_training(vectors: bool) -> None:
    model, given = build(vectors=vectors, rare_dropout=1.0), words(vectors=vectors)
    kept, found = by_type(model.eval(), given), by_type(model.train(), given)
    assert torch.equal(kept, by_type(build(vectors=vectors).train(), given))  # which drops nothing
    assert torch.equal(found[:4], kept[:4])
    assert model.table is not None
    assert torch.equal(found[5], model.table.weight[UNKNOWN])
    # A rare word with a vector keeps that, and what was added to it is left out.
    assert torch.equal(found[4], model.table.weight[UNKNOWN] if given.vectors is None else given.vectors[4])
    assert torch.equal(by_type(model.eval(), given), kept)


def test_a_rare_word_is_dropped_as_often_as_the_recipe_says() -> None:
    model = build(vectors=False, rare_dropout=0.3).train()
    ids = torch.full((4000,), 7)
    many = Words(torch.arange(4000)[None], ids, ids[:, None], ids, None, ids == 0)
    assert model.table is not None
    share = (model(many)[0] == model.table.weight[UNKNOWN]).all(1).float().mean()
    assert abs(share - 0.3) < 5 * (0.3 * 0.7 / 4000) ** 0.5


@pytest.mark.parametrize("characters", ["cnn", "rnn"])
def test_once_a_type_is_the_same_as_once_a_position_and_padding_may_be_any_type(characters: str) -> None:
    model, given = build(plain=False, characters={"name": characters}, shapes=3).eval().double(), words()
    found = model(given)
    flat = given.positions.flatten()
    vectors = given.vectors
    assert vectors is not None
    spread = Words(
        positions=torch.arange(len(flat)).view_as(given.positions),
        ids=given.ids[flat],
        characters=(nn.functional.pad(pad([*SPELLED, [4, 4]])[flat], (0, 3)),),
        shapes=given.shapes[flat],
        vectors=vectors[flat],
        pretrained=given.pretrained[flat],
    )
    close(model(spread), found)
    # Dropout is off: what training computes anew, evaluation looks up.
    close(model.train()(given), found)
    model.eval()
    other = given.positions.clone()
    other[1, 3:] = torch.tensor([4, 2, 5])
    again = model(given._replace(positions=other))
    close(again[0], found[0])
    close(again[1, :3], found[1, :3])
    alone = given._replace(positions=given.positions[1:, :3])
    close(model(alone)[0], found[1, :3])


@pytest.mark.parametrize("characters", ["none", "cnn", "rnn"])
@pytest.mark.parametrize("tune", [True, False])
def test_every_parameter_learns(characters: str, tune: bool) -> None:
    model = build(plain=False, characters={"name": characters}, shapes=3, tune=tune)
    model(words()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dropout": 1.0}, "e.dropout: expected less than 1, got 1.0"),
        ({"rare_dropout": 1.5}, "e.rare_dropout: expected less than or equal to 1, got 1.5"),
        ({"characters": {"name": "cnm"}}, "e.characters.name: expected one of none, cnn, rnn, got 'cnm'; did you mean"),
        ({"characters": {"name": "rnn", "widths": [3]}}, "e.characters.widths: unknown key"),
        ({"characters": {"name": "cnn", "widths": [3, 0]}}, "e.characters.widths.1: expected greater than or equal"),
        ({"characters": {"name": "cnn", "widths": []}}, "e.characters.widths: list should have at least 1 item"),
    ],
)
def test_what_a_recipe_may_not_say(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(EmbeddingConfig, values, source="recipe.toml", prefix="e")


def test_an_embedding_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"^model.embedding: a word has no features; give it a size, characters"):
        build(vectors=False, size=0)
    assert build(vectors=True, size=None).output_size == 4  # with vectors their size counts
    with pytest.raises(InputError, match=r"^model.embedding.size = 9: the vectors have 4 features; leave it out$"):
        build(vectors=True, size=9)
