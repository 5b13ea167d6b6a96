"""ResNet-9, the network of the DAWNBench CIFAR-10 entries (Page, 2018)."""

from torch import Tensor, nn


def _convolution(inputs: int, outputs: int, pool: bool = False) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_convolution(channels, channels), _convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ResNet9(nn.Module):
    """Eight convolutions, two of the blocks residual, and a linear layer.

    Takes float (N, 3, H, W) of at least 8 pixels and returns logits, float (N, num_classes).

    Args:
        num_classes: K.
        width: channels of the first convolution; the last has eight times as many. The published network has 64, while
            ``model=resnet9`` has 32 and a quarter of its cost.
        scale: of the logits, which global max pooling leaves large.
    """

    def __init__(self, num_classes: int, width: int = 32, scale: float = 0.125) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _convolution(3, width),
            _convolution(width, 2 * width, pool=True),
            _Residual(2 * width),
            _convolution(2 * width, 4 * width, pool=True),
            _convolution(4 * width, 8 * width, pool=True),
            _Residual(8 * width),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(8 * width, num_classes, bias=False)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)) * self.scale
