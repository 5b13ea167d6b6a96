"""A small residual network that works at half the resolution of the image and below."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    padding = (kernel - 1) // 2
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm2d(outputs))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(channels, channels), _convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class SmallResNet(nn.Module):
    """Stages of residual blocks at strides of 4, 8, 16 and so on, and a linear layer.

    Takes float (N, 3, H, W) of any size and returns logits, float (N, num_classes).

    Args:
        num_classes: K.
        width: channels of the first stage; each next one has twice as many.
        blocks: residual blocks of each stage.
    """

    def __init__(self, num_classes: int, width: int = 32, blocks: Sequence[int] = (1, 1, 1)) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, width, kernel=4, stride=2), nn.ReLU())
        widths = [width * 2**level for level in range(len(blocks))]
        stages = []
        for inputs, outputs, count in zip([width, *widths], widths, blocks, strict=False):
            down = nn.Sequential(_convolution(inputs, outputs, stride=2), nn.ReLU())
            stages.append(nn.Sequential(down, *(_Residual(outputs) for _ in range(count))))
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))
