"""seqtext: text sequence tasks in Python and PyTorch.

    import seqtext

    run = seqtext.train("ner", data="my-corpus", overrides={"train.epochs": 20})
    tagger = seqtext.load(run.folder)
    tagger.predict(["Angela Merkel flew from Berlin to Washington."])
    seqtext.evaluate(run.folder, "my-corpus")

The names below are loaded on first use, so that importing seqtext imports no torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqtext.api import check, evaluate, export, load, predict, train, train_folds, train_seeds, tune

# Threads that wait for each other should soon sleep instead of spinning on: with more busy threads than cores, spinning
# as long as OpenMP does by itself costs three to thirty times as much. Ten thousand turns, some half a millisecond, are
# as fast as that where the cores are free; a thousand, which suit busy ones best, cost up to half of the speed there,
# since steps of recurrent layers are shorter than it takes to wake up. OpenMP reads this when torch is loaded; what the
# user has set stands.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# On a CPU oneDNN, and torch's layer over it, each keep what they made for the last 1,024 shapes of tensors: batches of
# text have that many, and memory grows by hundreds of megabytes over epochs. Fewer of torch's are as fast. Of oneDNN's
# own not quite as few: for bfloat16 it compiles a kernel for each shape, which takes longer than to run it. With
# 64 memory is steady after some epochs; with 128 it still grew by 2 to 3% in the next sixteen.
for _cache, _entries in (("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64"), ("LRU_CACHE_CAPACITY", "32")):
    os.environ.setdefault(_cache, _entries)

__version__ = "0.1.0"
__all__ = ["__version__", "check", "evaluate", "export", "load", "predict"]
__all__ += ["train", "train_folds", "train_seeds", "tune"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in __all__:
        from seqtext import api

        return getattr(api, name)
    raise AttributeError(f"module 'seqtext' has no attribute {name!r}")
