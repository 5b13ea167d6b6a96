"""A small convolutional network that learns in few epochs, after airbench (Jordan, 2024, arXiv:2404.00498)."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class Whitening(nn.Conv2d):
    """A fixed convolution that decorrelates 2 x 2 patches; its filters are computed from the first training batch.

    Its 24 outputs are the 12 principal components of the patches, each divided by its deviation, and their negatives,
    so that the activation behind it loses nothing.
    """

    fitted: Tensor

    def __init__(self) -> None:
        super().__init__(3, 24, 2, bias=False)
        self.weight.requires_grad = False
        self.register_buffer("fitted", torch.tensor(False))
        self.known_to_be_fitted = False  # reading the buffer waits for a GPU, so it is read once

    def forward(self, images: Tensor) -> Tensor:
        if self.training and not self.known_to_be_fitted:
            if not self.fitted:
                self.fit(images)
            self.known_to_be_fitted = True
        return super().forward(images)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.known_to_be_fitted = False

    @torch.compiler.disable
    @torch.no_grad()
    def fit(self, images: Tensor, floor: float = 5e-4) -> None:
        """Compute the filters from images, float (N, 3, H, W); `floor` is added to the variance of each component."""
        patches = F.unfold(images.float(), 2).transpose(1, 2).reshape(-1, 12)
        with torch.autocast(images.device.type, enabled=False):  # in half precision small variances become negative
            variance, components = torch.linalg.eigh(patches.T.cov())
        filters = (components / (variance + floor).sqrt()).T.view(12, 3, 2, 2)
        self.weight.copy_(torch.cat([filters, -filters]))
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(self.weight, 0)  # the processes have different batches, and DDP shares gradients alone
        self.fitted.fill_(True)


class FastBiasNorm(nn.BatchNorm2d):
    """Batch normalisation without a scale, whose shift learns `SPEED` squared times as fast as other parameters."""

    SPEED = 8.0

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight.requires_grad = False

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (self.bias * (self.SPEED - 1)).view(1, -1, 1, 1)


class Convolution(nn.Conv2d):
    """3 x 3 without a bias; the first outputs start as copies of the inputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)
        nn.init.dirac_(self.weight[:inputs].data)


class WhitenedCNN(nn.Module):
    """Whitening, three groups of two convolutions, and a linear layer.

    Takes float (N, 3, H, W) of at least 16 pixels and returns logits, float (N, num_classes).

    Args:
        num_classes: K.
        widths: channels of the three groups.
        scale: of the logits, which global max pooling leaves large.
    """

    def __init__(self, num_classes: int, widths: tuple[int, int, int] = (16, 32, 64), scale: float = 0.5) -> None:
        super().__init__()

        def group(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                Convolution(inputs, outputs),
                nn.MaxPool2d(2),
                FastBiasNorm(outputs),
                nn.GELU(),
                Convolution(outputs, outputs),
                FastBiasNorm(outputs),
                nn.GELU(),
            )

        groups = [group(i, o) for i, o in zip((24, *widths), widths, strict=False)]
        self.features = nn.Sequential(Whitening(), nn.GELU(), *groups, nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)) * self.scale
