"""Words back to text: what the Treebank's rules split off is put back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.data.corpus_sample import corpus_sample
from seqtext.data.detokenize import detokenize
from seqtext.data.sentences import split_text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("", ""),
        ("It is n't , and ca n't be , what they 'd say it 's .", "It isn't, and can't be, what they'd say it's."),
        ("the dogs ' tails ; i can not , i 'm gon na", "the dogs' tails; i cannot, i'm gonna"),
        ("$ 3.5 million , or 10 % ( of it ) : yes !", "$3.5 million, or 10% (of it): yes!"),
        ("-lrb- a -RRB- -LSB- b -RSB- , c", "(a) [b], c"),
        ("`` Hello , world ! '' he said .", '"Hello, world!" he said.'),
        ('" Hello , " he said . " Go ! "', '"Hello," he said. "Go!"'),
        ('she said : " call " , or " do', 'she said: "call", or "do'),
        ("“ He ’ s in , ” she said . ‘ now ’ . the dogs ’ tails", "“He’s in,” she said. ‘now’. the dogs’ tails"),
        ("it 's -- a dash -- ok ... yes", "it's -- a dash -- ok... yes"),
        ("... and so ...", "... and so..."),
        ('call " dir ( ) " again', 'call "dir()" again'),
        ("the <unk> of <unk> , N N %", "the <unk> of <unk>, N N%"),
    ],
)
def test_detokenize(words, text):
    assert detokenize(words.split()) == text


def test_most_of_real_prose_comes_back_as_it_was():
    texts = [text for text in corpus_sample("train") if not any(mark in text for mark in "\"'_([<=*@/")]
    same = sum(detokenize([word for word, _, _ in split_text(text)]) == text for text in texts)
    assert len(texts) > 150 and same > 0.95 * len(texts)


@given(st.lists(st.text("abN'\"`.,!?()-$%<>’“”", min_size=1, max_size=4), max_size=12))
def test_no_letter_is_lost_whatever_the_words(words):
    def letters(text: str) -> str:
        return "".join(character for character in text if character.isalpha())

    assert letters(detokenize(words)) == letters("".join(words))
