"""Convolutions over words against sums written out window by window."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqtext.nn.cnn import ACTIVATIONS, CNN, CNNConfig

LENGTHS = torch.tensor([4, 1, 7, 2])


def by_the_book(network: CNN, number: int, text: Tensor, padding: str) -> Tensor:
    """Kim 2014, eq. 2, for one text (N, D) and the width of `number`: (N', filters) before the activation."""
    convolution = network.convolutions[number]
    filters, bias = convolution.weight, convolution.bias  # (filters, D, F)
    width, size = filters.size(2), text.size(0)
    if padding == "same":
        before, count = (width - 1) // 2, size
    else:
        before, count = 0, max(size - width + 1, 1)
    rows = []
    for start in range(count):
        total = bias.clone()
        for tap in range(width):
            place = start - before + tap
            if 0 <= place < size:
                total = total + filters[:, :, tap] @ text[place]
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_every_window_is_the_sum_over_its_words(padding: str, activation: str) -> None:
    torch.manual_seed(2)
    config = CNNConfig.model_validate(
        {"widths": [1, 2, 3, 4, 9], "filters": 2, "padding": padding, "activation": activation}
    )
    network = CNN(3, config).double()
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    x[torch.arange(7) >= LENGTHS[:, None]] = 1e30  # padding, which no window may see
    outputs = network(x, LENGTHS)
    squash = {"relu": torch.relu, "tanh": torch.tanh, "gelu": torch.nn.functional.gelu, "none": torch.clone}[activation]
    for number, width in enumerate(config.widths):
        for row, length in enumerate(LENGTHS.tolist()):
            expected = squash(by_the_book(network, number, x[row, :length], padding))
            count = int(outputs[number].lengths[row])
            assert count == len(expected) == network.output_lengths(length)[number]
            torch.testing.assert_close(outputs[number].values[row, :count], expected, rtol=1e-9, atol=1e-9)
            if padding == "valid" and length >= width:
                assert count == length - width + 1
