"""A trained module in fewer bits, for prediction only: its matrices as whole numbers of 8 bits, or all of it bfloat16.

Recurrent layers (LSTM, GRU), linear layers, the output layer over a vocabulary and tables of embeddings are kept in 8
bits, wherever they stand in a module, and compute from them; but an LSTM of few states is read back and computes in
float32, which is the faster. Other weights (plain recurrences, convolutions, reservoirs, biases, transitions of labels)
stay float32, and so does what is too small to gain anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seqtext.nn.cells import GRU, LSTM
from seqtext.nn.crf import CRF
from seqtext.nn.int8 import SUPPORTED, Int8Embedding, Int8Kernel, Int8Linear, dequantize, quantize
from seqtext.nn.softmax import Int8Softmax, Softmax

LEAST = 4096
"""Numbers of a matrix, below which it stays float32."""
NARROW = 160
"""States of an LSTM, below which it computes in float32: the kernel of 8 bits is then the slower of the two, even where
the processor has instructions for it (AVX-512 VNNI). A GRU always gains."""
SCALE = ".scale"
"""What the name of a matrix's scales ends in."""


class Part(NamedTuple):
    """A layer that can have 8 bits."""

    name: str
    """Where it stands in the module."""
    kind: str
    matrices: list[str]
    """The names of its matrices among the module's tensors."""
    computes: bool = True
    """Whether it computes from 8-bit numbers, or they are only how it is kept."""


def parts(module: nn.Module) -> list[Part]:
    """The layers of a module in float32 that are worth keeping in 8 bits."""
    return [part for part in _parts(module, "") if sum(module.get_parameter(n).numel() for n in part.matrices) >= LEAST]


def _parts(module: nn.Module, place: str) -> Iterator[Part]:
    for (
        child,
        layer,
    ) in module._modules.items():  # not `named_children`, which leaves out the second name of a shared one
        name = f"{place}{child}"
        if layer is None:
            continue
        if type(layer) in (LSTM, GRU):
            kernel = [f"{name}.kernel.{matrix}" for matrix in ("weight_ih_l0", "weight_hh_l0")]
            wide = type(layer) is GRU or int(layer.kernel.hidden_size) >= NARROW  # type: ignore[union-attr, arg-type]
            yield Part(name, "recurrent layers", kernel, computes=wide)
        elif type(layer) in (nn.Linear, nn.Embedding, Softmax):
            kinds = {nn.Linear: "linear layers", nn.Embedding: "embeddings", Softmax: "softmax"}
            yield Part(name, kinds[type(layer)], [f"{name}.weight"])
        else:
            yield from _parts(layer, f"{name}.")


def to_int8(module: nn.Module, matrices: Iterable[str]) -> nn.Module:
    """The module with the layers whose `matrices` these are computing from 8-bit numbers, where that is the faster.

    Raises `ValueError` for a name that is none of such a layer.
    """
    wanted = set(matrices)
    found = [part for part in _parts(module, "") if wanted.issuperset(part.matrices)]
    if unknown := wanted - {name for part in found for name in part.matrices}:
        raise ValueError(f"{', '.join(sorted(unknown))}: no matrix that can have 8 bits")
    if not SUPPORTED:
        return module
    made: dict[int, nn.Module] = {}  # a table that two sides share stays one
    layers = [(part, module.get_submodule(part.name)) for part in found if part.computes]
    layer: Any
    for part, layer in layers:
        above, _, name = part.name.rpartition(".")
        if isinstance(layer, LSTM | GRU):
            layer.kernel = Int8Kernel(layer.kernel)
            continue
        if id(layer) not in made:
            if isinstance(layer, Softmax):
                made[id(layer)] = Int8Softmax(layer)
            elif isinstance(layer, nn.Embedding):
                made[id(layer)] = Int8Embedding(layer.weight.detach())
            else:
                made[id(layer)] = Int8Linear(layer.weight, layer.bias)
        setattr(module.get_submodule(above), name, made[id(layer)])
    return module


def in_float32(module: nn.Module) -> list[nn.Parameter]:
    """What `to_bf16` leaves: the scores of labels' transitions, which are few and are added up in float64."""
    return [parameter for part in module.modules() if isinstance(part, CRF) for parameter in part.parameters()]


def to_bf16(module: nn.Module) -> nn.Module:
    """The module in bfloat16, but for `in_float32`."""
    kept = [(parameter, parameter.data) for parameter in in_float32(module)]
    module = module.to(torch.bfloat16)
    for parameter, data in kept:
        parameter.data = data
    return module


def packed(tensors: Mapping[str, Tensor], matrices: Iterable[str]) -> dict[str, Tensor]:
    """A module's tensors with these matrices as int8, and their scales beside them."""
    found = dict(tensors)
    for name in matrices:
        found[name], found[name + SCALE] = quantize(tensors[name])
    return found


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` gives as a module takes it. Raises `ValueError` naming a matrix without its scales."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dtype == torch.int8:
            scale = found.pop(name + SCALE, None)
            if scale is None or tensor.dim() != 2 or scale.shape != tensor.shape[:1]:
                raise ValueError(f"{name}: no scale for each row")
            found[name] = dequantize(tensor, scale.float())
    return found
