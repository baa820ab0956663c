"""Translators as the searches use them: one, or several runs as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqtext.data.pairs import START
from seqtext.nn.decoder import DecoderState, Memory
from seqtext.nn.seq2seq import Seq2Seq
from seqtext.search.decoder import Decoder, select
from seqtext.search.ensemble import Ensemble
from seqtext.search.forced import forced


class TranslationDecoder:
    """One translator."""

    def __init__(self, module: Seq2Seq) -> None:
        self.module, self.size = module, module.size

    def start(self, memory: Memory) -> DecoderState:
        return self.module.start(memory)

    def step(self, tokens: Tensor, state: DecoderState, memory: Memory) -> tuple[Tensor, DecoderState]:
        return self.module.step(tokens, state, memory)

    def scores(self, output: Tensor) -> Tensor:
        return self.module.softmax.logits(output)

    def reorder(self, state: DecoderState, rows: Tensor) -> DecoderState:
        return select(state, rows)

    def attention(self, state: DecoderState) -> Tensor | None:
        """(N, S): the attention of the last step; None where the model has none."""
        return state.weights

    def real(self, memory: Memory) -> Tensor:
        """(B, S) bool."""
        return memory.real


class Several(nn.Module):
    """Modules of runs that read and write the same tokens; the memory is a tuple of theirs."""

    members: Any

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(modules)

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[Memory, ...]:
        """source (B, S) int64, lengths (B,) on the CPU."""
        return tuple(member.encode(source, lengths) for member in self.members)


def decoder_of(module: Seq2Seq | Several) -> Decoder[Any]:
    """What searches step through: of several modules, the mean of their probabilities."""
    if isinstance(module, Several):
        return Ensemble([TranslationDecoder(member) for member in module.members], same_source=True)
    return TranslationDecoder(module)


def reference_losses(
    module: Seq2Seq | Several, source: Tensor, lengths: Tensor, inputs: Tensor, targets: Tensor
) -> Tensor:
    """source (B, S), lengths (B,) on the CPU, inputs and targets (B, T), -1 at padding -> (B, T) nats, 0 at padding."""
    if isinstance(module, Several):
        decoder, memory = decoder_of(module), module.encode(source, lengths)
        first = torch.full_like(lengths, START).to(source.device)
        return -forced(decoder, decoder.start(memory), first, targets, memory=memory)
    return module.nll(module(source, lengths, inputs), targets)
