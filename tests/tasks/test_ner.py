"""The tagger: its probabilities against enumeration, both heads, odd input, and how it is shown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from seqtext import api, recipe
from seqtext.config import parse
from seqtext.data.labels import continues, is_valid, spans
from seqtext.errors import DataError, InputError
from seqtext.run import Run
from seqtext.task import predict_all
from seqtext.tasks.ner import Entity, Ner, NerData, NerModel, Prediction, Sentence, Tagger
from tests.reference.enumerate_crf import EnumeratedChain

TRAIN = {
    "tokens": [["Ann", "Lee", "met", "Bo", "."], ["Bo", "Bo", "left"], ["Rain"], ["No", "one", "came"]],
    "tags": [["B-PER", "E-PER", "O", "S-PER", "O"], ["S-PER", "S-PER", "O"], ["O"], ["O", "O", "O"]],
}
SMALL: dict[str, Any] = {
    "embedding": {"size": 4, "shapes": 2, "characters": {"name": "cnn", "size": 3, "filters": 3}},
    "encoder": {"hidden_size": 3},
}


def make(*, sharp: float = 1.0, **model: Any) -> Any:
    """A tagger with random weights, `sharp` times their usual size in the output."""
    data = NerData()
    task: Any = Ner.fit(data, datasets.Dataset.from_dict(TRAIN))
    torch.manual_seed(8)
    module = task.build(parse(NerModel, {**SMALL, **model}, source="recipe")).eval()
    module.output.weight.data.mul_(sharp)
    if module.crf is not None:
        for parameter in module.crf.parameters():
            parameter.data.normal_()
    return api.Model(Run(Path("none"), recipe.load("ner"), task, {}), module, torch.device("cpu"))


def logits_of(model: Any, text: str) -> torch.Tensor:
    """(T, C) for one sentence, alone."""
    (batch,) = model.task.batches(model.task.inputs([Sentence.read(text, pretokenized=True)]), tokens=1)
    with torch.inference_mode():
        return model.module(batch.words, batch.lengths)[0].double()


def enumerate_chain(model: Any, text: str) -> EnumeratedChain:
    crf = model.module.crf
    masked = [
        torch.where(getattr(crf, f"{name}_allowed"), getattr(crf, name).detach().double(), -math.inf).tolist()
        for name in ("start", "transitions", "end")
    ]
    return EnumeratedChain(logits_of(model, text).tolist(), *masked)


TEXTS = ["Ann Lee met Bo .", "Bo", "Rain Bo Ann", "Lee Lee Lee Lee"]


def test_tags_confidence_and_alternatives_are_those_of_enumeration() -> None:
    model = make(sharp=4.0)
    names = model.task.labels.names
    assert names == ("O", "B-PER", "I-PER", "E-PER", "S-PER")
    follows = continues(names, "BIOES")
    found = model.predict(TEXTS, pretokenized=True, confidence=True, nbest=5)
    checked = 0
    for text, prediction in zip(TEXTS, found):
        chain = enumerate_chain(model, text)
        ranked = chain.ranked()
        named = [[names[label] for label in path] for _, path in ranked]
        assert prediction.tags == named[0] and is_valid(prediction.tags, "BIOES")
        assert [entity[:3] for entity in prediction.entities] == [tuple(span) for span in spans(named[0], "BIOES")]
        for entity in prediction.entities:
            labels = ranked[0][1][entity.start : entity.end]
            expected = chain.span_probability(entity.start, labels, follows)
            assert entity.confidence == pytest.approx(expected, abs=1e-6)
            checked += 1
        assert [tags for tags, _ in prediction.alternatives] == named[:5]
        chances = [chance for _, chance in prediction.alternatives]
        assert chances == pytest.approx([math.exp(score - chain.log_sum()) for score, _ in ranked[:5]], abs=1e-6)
        assert chances == sorted(chances, reverse=True) and sum(chances) <= 1 + 1e-9
    assert checked >= 3 and len(found[1].alternatives) == 2  # a single word is O or S
    plain = model.predict(TEXTS, pretokenized=True)
    assert [prediction.tags for prediction in plain] == [prediction.tags for prediction in found]
    assert all(entity.confidence is None for prediction in plain for entity in prediction.entities)
    assert all(prediction.alternatives == [] for prediction in plain)


def test_the_loss_is_that_of_enumeration() -> None:
    model = make(sharp=4.0)
    task, module = model.task, model.module
    (batch,) = task.batches(task.encode(datasets.Dataset.from_dict(TRAIN)), tokens=1000)
    loss = task.loss(module, batch)
    expected = 0.0
    for tokens, tags in zip(TRAIN["tokens"], TRAIN["tags"]):
        chain = enumerate_chain(model, " ".join(tokens))
        expected += chain.log_sum() - chain.scores[tuple(task.labels.names.index(tag) for tag in tags)]
    assert loss.total.item() == pytest.approx(expected, rel=1e-5) and loss.count.item() == 12


def test_the_softmax_head_takes_each_label_by_itself() -> None:
    model = make(sharp=4.0, head="softmax")
    task = model.task
    assert model.module.crf is None
    (batch,) = task.batches(task.encode(datasets.Dataset.from_dict(TRAIN)), tokens=1000)
    loss, expected = task.loss(model.module, batch), 0.0
    found = model.predict(TEXTS, pretokenized=True, confidence=True)
    for tokens, tags in zip(TRAIN["tokens"], TRAIN["tags"]):
        chances = logits_of(model, " ".join(tokens)).softmax(-1)
        expected -= sum(math.log(row[task.labels.names.index(tag)]) for row, tag in zip(chances.tolist(), tags))
    assert loss.total.item() == pytest.approx(expected, rel=1e-5) and loss.count.item() == 12
    entities = 0
    for text, prediction in zip(TEXTS, found):
        best, labels = logits_of(model, text).softmax(-1).max(-1)
        assert prediction.tags == [task.labels.names[label] for label in labels.tolist()]
        for start, end, _, confidence in prediction.entities:
            assert confidence == pytest.approx(best[start:end].prod().item(), rel=1e-4)
            entities += 1
    assert entities
    with pytest.raises(DataError, match=r"^--nbest needs a model with head = 'crf'; this run was trained with head"):
        model.predict(TEXTS, nbest=2)


@pytest.mark.parametrize("head", ["crf", "softmax"])
def test_a_line_without_a_word_has_an_empty_result_in_its_place(head: str) -> None:
    model = make(sharp=4.0, head=head)
    lines = ["", "Ann Lee met Bo .", " \t ", "Bo"]
    found = model.predict(lines, confidence=True)
    assert [len(prediction.tags) for prediction in found] == [0, 5, 0, 1]
    assert found[0] == found[2] == Prediction([], [], [])
    assert found[1::2] == model.predict(lines[1::2], confidence=True)
    assert model.predict(["", "\n"]) == [Prediction([], [], [])] * 2
    streamed = [prediction for _, prediction in model.stream(iter(lines), confidence=True)]
    for one, other in zip(streamed, found):
        assert one.tags == other.tags
    empty = Sentence.read("")
    assert model.task.show(empty, found[0]) == ""
    assert model.task.record(empty, found[0]) == {"text": "", "tokens": [], "tags": [], "entities": []}


def test_a_sentence_of_20000_words() -> None:
    model = make(sharp=4.0)
    model.module.output.bias.data[1:] += 1.5  # more entities
    unit = ["Ann", "Lee", "met", "Bo", ".", "Rain", "unknown"]
    words = (unit * 3000)[:20_000]
    short, long = model.predict(["Bo left", " ".join(words)], pretokenized=True, confidence=True)
    assert len(long.tags) == 20_000 and is_valid(long.tags, "BIOES")
    assert short == model.predict(["Bo left"], pretokenized=True, confidence=True)[0]
    # Far from the ends the text looks the same at every seventh word, and so must what is found there.
    middle = [entity for entity in long.entities if 700 <= entity.start < 19_200]
    assert len({entity.start % 7 for entity in middle}) * 18_500 // 7 == pytest.approx(len(middle), abs=7)
    for phase in {entity.start % 7 for entity in middle}:
        alike = [entity for entity in middle if entity.start % 7 == phase]
        assert len({(entity.end - entity.start, entity.type) for entity in alike}) == 1
        chances = [entity.confidence for entity in alike]
        assert chances == pytest.approx([chances[0]] * len(chances), rel=1e-4) and 0.0 < chances[0] < 1.0


def test_a_sentence_and_its_entities_as_text_and_as_a_record() -> None:
    model = make()
    task = model.task
    text = "Dr. Ann  Lee's boat (Bo)"
    sentence = task.prepare(text)
    assert sentence.words == ["Dr.", "Ann", "Lee", "'s", "boat", "(", "Bo", ")"]
    tags = ["O", "B-PER", "E-PER", "O", "O", "O", "S-PER", "O"]
    entities = [Entity(1, 3, "PER", 0.123456), Entity(6, 7, "PER", None)]
    prediction = Prediction(tags, entities, [(tags, 0.75), (["O"] * 8, 0.1234567)])
    assert task.show(sentence, prediction) == "Dr. [PER Ann Lee] 's boat ( [PER Bo] )"
    assert task.record(sentence, prediction) == {
        "text": text,
        "tokens": sentence.words,
        "tags": tags,
        "entities": [
            {"start": 4, "end": 12, "label": "PER", "text": "Ann  Lee", "confidence": 0.1235},
            {"start": 21, "end": 23, "label": "PER", "text": "Bo"},
        ],
        "nbest": [{"tags": tags, "probability": 0.75}, {"tags": ["O"] * 8, "probability": 0.123457}],
    }
    (record,) = model.records([text], confidence=True)
    assert record == task.record(sentence, model.predict([text], confidence=True)[0])
    with pytest.raises(InputError, match=r"^predict takes a list of texts, not one text: predict\(\[text\]\)$"):
        model.predict(text)
    split = task.prepare(text, pretokenized=True)
    assert split.words == ["Dr.", "Ann", "Lee's", "boat", "(Bo)"] and split.offsets[2] == (9, 14)
    row = {"tokens": ["Bo", "left"], "tags": ["S-PER", "O"]}
    assert task.record(row, Prediction(["O", "O"], [], [])) == {
        "tokens": ["Bo", "left"],
        "gold": ["S-PER", "O"],
        "tags": ["O", "O"],
    }


@pytest.mark.parametrize("head", ["crf", "softmax"])
@pytest.mark.parametrize("characters", ["none", "cnn", "rnn"])
@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_every_way_to_build_it_batches_as_alone_and_learns(head: str, characters: str, cell: str) -> None:
    embedding = {"size": 4, "characters": {"name": characters}}
    model = make(head=head, embedding=embedding, encoder={"cell": cell, "hidden_size": 3, "layers": 2})
    task, module = model.task, model.module
    assert isinstance(module, Tagger)
    encoded = task.encode(datasets.Dataset.from_dict(TRAIN))
    (together,) = task.batches(encoded, tokens=1000)
    loss = task.loss(module, together)
    alone = sum(task.loss(module, batch).total.item() for batch in task.batches(encoded, tokens=1))
    assert alone == pytest.approx(loss.total.item(), rel=1e-5)
    loss.total.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("recurrence", ["hidden", "output", "both"])
@pytest.mark.parametrize("encoder", ["none", "esn"])
def test_what_is_fed_back_does_not_depend_on_other_sentences(encoder: str, recurrence: str) -> None:
    """Alone or in a batch, by its own labels and by the true ones; and nothing below a reservoir has a gradient."""
    feedback = {} if recurrence == "hidden" else {"cell": "gru", "hidden_size": 9}
    overrides = {"model.encoder": {"name": encoder}, "model.recurrence": recurrence, "model.feedback": feedback}
    chosen = recipe.load("ner-jordan", overrides)
    data = Ner.read(chosen.data, "valid").select(range(25))
    task: Any = Ner.fit(chosen.data, data)
    torch.manual_seed(1)
    module = task.build(chosen.model).eval()
    for parameter in module.output.parameters():
        torch.nn.init.normal_(parameter)
    encoded = task.encode(data)
    found, losses = [], []
    for tokens in (1, 10**6):
        batches = list(task.batches(encoded, tokens=tokens))
        found.append(predict_all(task, module, encoded, batches, torch.device("cpu")))
        losses.append(sum(task.loss(module, batch).total.item() for batch in batches))
    assert found[0] == found[1] and len({tag for prediction in found[0] for tag in prediction.tags}) > 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    module.zero_grad()
    task.loss(module.train(), batches[0]).total.backward()
    learned = {name.partition(".")[0] for name, each in module.named_parameters() if each.grad is not None}
    above = {"output"} | ({"feedback"} if recurrence != "hidden" else set())
    assert learned == above | ({"embedding"} if encoder == "none" else set())
