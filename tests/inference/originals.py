"""Two published models by the names of their files, for which no library at hand has a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad, relu6

STAGES = (
    # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""EfficientNet-Lite0: the stages of EfficientNet-B0, without squeeze and excitation."""


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does: where the padding is odd, the end gets more of it."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name that torch gives it
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (
            max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in (input.shape[2], input.shape[3])
        )
        around = (width // 2, width - width // 2, height // 2, height - height // 2)
        return super().forward(pad(input, around))


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """An inverted bottleneck; without an expansion it has no first convolution."""

    def __init__(self, kernel: int, stride: int, expansion: int, channels: int, out: int) -> None:
        super().__init__()
        wide = channels * expansion
        if expansion > 1:
            self._expand_conv = nn.Conv2d(channels, wide, 1, bias=False)
            self._bn0 = norm(wide)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = norm(wide)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = norm(out)
        self.expands = expansion > 1
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        wide = relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        wide = relu6(self._bn1(self._depthwise_conv(wide)))
        narrow: Tensor = self._bn2(self._project_conv(wide))
        return x + narrow if self.adds else narrow


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 by the names of its first port to PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = norm(32)
        blocks: list[Block] = []
        channels = 32
        for kernel, stride, expansion, out, count in STAGES:
            for place in range(count):
                blocks.append(Block(kernel, 1 if place else stride, expansion, channels, out))
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, images: Tensor) -> Tensor:
        x = relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        x = relu6(self._bn1(self._conv_head(x)))
        logits: Tensor = self._fc(x.mean((2, 3)))
        return logits


class VoiceEncoder(nn.Module):
    """Resemblyzer's encoder, [batch, frames, 40 mels] to unit vectors [batch, 256], with its two scalars."""

    def __init__(self) -> None:
        super().__init__()
        self.similarity_weight = nn.Parameter(torch.zeros(1))
        self.similarity_bias = nn.Parameter(torch.zeros(1))
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mels)
        return normalize(self.linear(hidden[-1]).relu())


class SpeakerNet(nn.Module):
    """The same encoder as somebody else would have written it."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(40, 256, 3, batch_first=True)
        self.projection = nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        _, (last, _) = self.recurrent(mels)
        return normalize(self.projection(last[-1]).relu())
