"""Models that are trained on shaped links: what users of slow networks train, small enough for two cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional


@final
@dataclass(frozen=True)
class Workload:
    """A model and a batch.

    Args:
        model: with random weights, equal wherever the seed is equal.
        loss: of the model on this rank's batch, which stays the same: what is timed does not depend on data.
    """

    model: nn.Module
    loss: Callable[[nn.Module], Tensor]


@final
class LanguageLSTM(nn.Module):
    """Embedding, two LSTM layers and an output layer: 13.3 million parameters, half of them of words."""

    words, width = 5000, 650

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(self.words, self.width)
        self.layers = nn.LSTM(self.width, self.width, num_layers=2)
        self.output = nn.Linear(self.width, self.words)

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.output(self.layers(self.embedding(tokens))[0])
        return found


@final
class SmallTransformer(nn.Module):
    """Four blocks of width 256 over 2000 words, with learned positions: 4.2 million parameters."""

    words, width, length = 2000, 256, 64

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(self.words, self.width)
        self.positions = nn.Parameter(torch.zeros(self.length, self.width))
        block = nn.TransformerEncoderLayer(self.width, 4, 4 * self.width, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 4, enable_nested_tensor=False)
        self.output = nn.Linear(self.width, self.words)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        found: Tensor = self.output(self.blocks(self.embedding(tokens) + self.positions, mask=mask, is_causal=True))
        return found


@final
class _Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)])
        self.direct = nn.Conv2d(inside, outside, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.norms[0](self.first(x)))
        return functional.relu(self.norms[1](self.second(inner)) + self.direct(x))


@final
class SmallResNet(nn.Module):
    """Eight residual blocks over 32 x 32 images, as ResNet-18 is built, at half its width: 2.8 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 1, 1, bias=False)
        widths = (32, 64, 128, 256)
        blocks: list[nn.Module] = []
        for before, after in zip((32, *widths), widths, strict=False):
            blocks += [_Residual(before, after, 1 if before == after else 2), _Residual(after, after, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Linear(widths[-1], 10)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.output(self.blocks(self.stem(images)).mean(dim=(2, 3)))
        return found


def _language(model: type[nn.Module], shape: tuple[int, int], words: int, rank: int) -> Workload:
    draw = torch.Generator().manual_seed(rank)
    tokens = torch.randint(words, shape, generator=draw)
    targets = torch.randint(words, shape, generator=draw).flatten()
    return Workload(model(), lambda made: functional.cross_entropy(made(tokens).flatten(0, 1), targets))


def lstm(rank: int) -> Workload:
    """Return the LSTM language model: 20 steps of 4 sequences."""
    return _language(LanguageLSTM, (20, 4), LanguageLSTM.words, rank)


def transformer(rank: int) -> Workload:
    """Return the transformer: 4 sequences of 64."""
    return _language(SmallTransformer, (4, SmallTransformer.length), SmallTransformer.words, rank)


def resnet(rank: int) -> Workload:
    """Return the CNN: 4 images."""
    draw = torch.Generator().manual_seed(rank)
    images, labels = torch.randn(4, 3, 32, 32, generator=draw), torch.randint(10, (4,), generator=draw)
    return Workload(SmallResNet(), lambda made: functional.cross_entropy(made(images), labels))


WORKLOADS: dict[str, Callable[[int], Workload]] = {"lstm": lstm, "transformer": transformer, "resnet": resnet}
