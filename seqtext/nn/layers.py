"""A module's layers from input to output, for learning rates and freezing layer by layer (Howard & Ruder 2018)."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from seqtext.nn.rnn import Recurrent


class Layer(NamedTuple):
    """Weights that are trained alike."""

    name: str
    """`embedding`, `encoder.layers.0` and so on, or `encoder` where it does not recur, `head`."""
    parameters: list[nn.Parameter]


def recurrence(module: nn.Module) -> Recurrent | None:
    """The recurrent layers of a module's `encoder`; None where there are none."""
    encoder = getattr(module, "encoder", None)
    if encoder is None:
        return None
    return next((part for part in encoder.modules() if isinstance(part, Recurrent)), None)


def layers(module: nn.Module) -> list[Layer]:
    """The layers of `module` that are trained, the one nearest to the input first.

    Its `embedding` is the first, its `encoder` the next (each layer by itself, where it recurs), and the head is all
    else. A parameter of several layers belongs to the last of them: a table tied to the output layer to the head.
    """
    stack = recurrence(module)
    if stack is None:
        named = [("encoder", getattr(module, "encoder", None))]
    else:
        named = [(f"encoder.layers.{depth}", stack.of_layer(depth)) for depth in range(len(stack.layers))]
    named.insert(0, ("embedding", getattr(module, "embedding", None)))
    parts = [(name, part) for name, part in named if part is not None]
    place = {parameter: depth for depth, (_, part) in enumerate(parts) for parameter in part.parameters()}
    inside = {each for _, part in parts for each in part.modules()}
    for other in module.modules():
        if other not in inside:
            place |= dict.fromkeys(other.parameters(recurse=False), len(parts))
    found = [Layer(name, []) for name in [*(name for name, _ in parts), "head"]]
    for parameter in module.parameters():
        if parameter.requires_grad:
            found[place[parameter]].parameters.append(parameter)
    return [layer for layer in found if layer.parameters]
