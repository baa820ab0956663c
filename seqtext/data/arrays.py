"""Arrow arrays of texts, words and numbers, for prediction from raw text.

`pyarrow.array` and `to_numpy` are the usual ways; but they load pandas where that is installed, which takes longer than
to tag a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pyarrow as pa


def texts(values: Sequence[str]) -> pa.StringArray:
    """An array of strings."""
    builder = pa.lib.StringBuilder()
    builder.append_values(values)
    return builder.finish()


def words(rows: Sequence[Sequence[str]]) -> pa.ListArray:
    """An array of lists of strings."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return _lists(texts(list(chain.from_iterable(rows))), lengths)


def lists(values: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """An array of lists of int32, from what is in all of them and how many each has."""
    values = np.ascontiguousarray(values, np.int32)
    return _lists(pa.Int32Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(values)]), lengths)


def numbers(array: pa.Array) -> np.ndarray:
    """The numbers of an array without nulls, not copied."""
    return np.from_dlpack(array)


def _lists(values: pa.Array, lengths: np.ndarray) -> pa.ListArray:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_buffers(
        pa.list_(values.type), len(lengths), [None, pa.py_buffer(offsets)], children=[values]
    )
