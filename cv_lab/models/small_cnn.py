"""A plain convolutional network, as in an introductory course."""

from torch import nn


class SmallCNN(nn.Sequential):
    """Three convolutions with max pooling and two linear layers, without batch normalisation.

    Takes float (N, 3, H, W) of any size from 8 pixels up and returns logits, float (N, num_classes).

    Args:
        num_classes: K.
        width: channels of the first convolution; the next two have twice and four times as many.
    """

    def __init__(self, num_classes: int, width: int = 32) -> None:
        def block(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))

        super().__init__(
            block(3, width),
            block(width, 2 * width),
            block(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(4),  # 32 pixels arrive here as 4 x 4 and pass unchanged
            nn.Flatten(),
            nn.Linear(4 * width * 16, 256),
            nn.ReLU(),
            nn.Linear(256, num_classes),
        )
