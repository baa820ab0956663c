"""The example in the README of an ONNX export: Python that runs in its folder, without seqtext and without torch."""

from __future__ import annotations

from seqtext.data.lexicon import SHAPES, WordsConfig
from seqtext.exporting.graphs import Graph, LanguageModelGraph, TaggerGraph, WordsGraph

NUMBER = """
def number(tokenizer, text):
    text = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
    found = tokenizer.token_to_id(text)
    return 1 if found is None else found

"""
SHAPE = f"""
def shape(word):  # {", ".join(SHAPES)}
    kinds = [unicodedata.category(character) for character in word]
    letters, digits = (any(kind[0] == first for kind in kinds) for first in "LN")
    if digits or not letters:
        return 7 if not digits else 6 if letters else 5
    if "Lu" in kinds and "Ll" not in kinds and len(kinds) > 1:
        return 3
    if kinds[0] == "Lu" and "Lu" not in kinds[1:]:
        return 2
    return 4 if "Lu" in kinds else 1 if "Ll" in kinds and "Lt" not in kinds else 0

"""
FILES = {"words": "tokenizer", "characters": "characters"}
ARRAYS = {
    "words": "np.zeros((len(rows), time), np.int64)",
    "characters": "np.zeros((len(rows), time, {most}), np.int64)",
    "shapes": "np.zeros((len(rows), time), np.int64)",
    "vectors": "np.zeros((len(rows), time, {size}), np.float32)",
    "pretrained": "np.zeros((len(rows), time), bool)",
    "lengths": "np.array([len(row) for row in rows])",
}
FILLED = {
    "words": ['given["words"][place] = number(words, word)'],
    "characters": [
        "word = word if len(word) <= {most} else word[:{first}] + word[len(word) - {last} :]",
        'given["characters"][place][: len(word)] = [number(characters, letter) for letter in word]',
    ],
    "shapes": ['given["shapes"][place] = shape(word)'],
}
TAGGED = """
(labels,) = session.run(["labels"], given)
for row, found in zip(rows, labels):
    print(*(f"{word}/{names[label]}" for word, label in zip(row, found)))
"""
CLASSIFIED = """
(probabilities,) = session.run(["probabilities"], given)
for row, found in zip(rows, probabilities):
    print(names[found.argmax()], f"{found.max():.4f}", *row)
"""
FOLLOWED = """
given = {"tokens": np.array([ids])}
given |= {state.name: np.zeros((1, state.shape[1]), np.float32) for state in session.get_inputs()[1:]}
(chances,) = session.run(["log_probabilities"], given)
print(f"{sum(chances[0, place, token] for place, token in enumerate(ids[1:])):.4f}", text)
print("next:", *(tokens.id_to_token(int(token)) for token in chances[0, -1].argsort()[::-1][:3]))
"""
SESSION = 'session = onnxruntime.InferenceSession("model.onnx")'


def example(graph: Graph, words: WordsConfig | None, *, unit: str) -> str:
    """Python code for a graph: `words` are [data.words] of its run, `unit` that of its tokenizer."""
    if isinstance(graph, LanguageModelGraph):
        return _of_tokens(unit)
    assert isinstance(graph, WordsGraph) and words is not None
    return _of_words(graph, words)


def _of_words(graph: WordsGraph, config: WordsConfig) -> str:
    most = config.max_characters
    sizes = {"most": most, "first": (most + 1) // 2, "last": most // 2, "size": graph.vector_size}
    read = list(graph.inputs)
    own, files = [], [name for name in FILES if name in read]
    own += ["import json", *(["import unicodedata"] if "shapes" in read else []), ""]
    own += ["import numpy as np", "import onnxruntime", *(["from tokenizers import Tokenizer"] if files else []), ""]
    own += [NUMBER] if files else []
    own += [SHAPE] if "shapes" in read else []
    own += [f'{name} = Tokenizer.from_file("{FILES[name]}.json")' for name in files]
    own += ['names = json.loads(open("labels.json", encoding="utf-8").read())["names"]', SESSION]
    own += ['texts = ["Angela Merkel flew from Berlin to Washington .", "It was not bad ."]  # words, parted by spaces']
    own += ["rows = [text.split() for text in texts]", "time = max(map(len, rows))"]
    if "vectors" in read:
        own += [f"# For right answers, fill in the vectors of {config.vectors}, which are not in this folder."]
    own += ["given = {", *(f'    "{name}": {ARRAYS[name].format(**sizes)},' for name in read), "}"]
    filled = [line.format(**sizes) for name in read for line in FILLED.get(name, [])]
    if filled:
        own += ["for number_of_row, row in enumerate(rows):", "    for step, word in enumerate(row):"]
        own += ["        place = number_of_row, step", *(f"        {line}" for line in filled)]
    return "\n".join(own) + (TAGGED if isinstance(graph, TaggerGraph) else CLASSIFIED)


def _of_tokens(unit: str) -> str:
    numbers = {
        "word": "(number(tokens, word) for word in text.split())",
        "char": "(number(tokens, character) for character in text)",
    }.get(unit, "tokens.encode(text, add_special_tokens=False).ids")
    own = ["import numpy as np", "import onnxruntime", "from tokenizers import Tokenizer", ""]
    own += [NUMBER] if "number(" in numbers else []
    own += ['tokens = Tokenizer.from_file("tokenizer.json")', SESSION]
    own += ['text = "The value of"' + ("  # words, parted by spaces" if unit == "word" else "")]
    own += [f'ids = [tokens.token_to_id("<eos>"), *{numbers}]']
    return "\n".join(own) + FOLLOWED
