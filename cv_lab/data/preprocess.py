"""How images become a network's input: normalised, and scaled to the size that it was trained at."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cv_lab.data.memory import send


@dataclass(frozen=True)
class Preprocessing:
    """Normalisation and, where `size` is given, scaling of whole batches on the device.

    Args:
        mean: of the channels of the images that the network was trained on, in 0..1; None takes the data set's.
        std: their standard deviation; None takes the data set's.
        size: side in pixels to which squares of other sizes are scaled; None leaves them as they are. Images that
            are not square have a size that a user asked for, and stay as they are.
        interpolation: "bicubic" or "bilinear".
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    interpolation: str = "bilinear"

    def over(self, mean: tuple[float, ...], std: tuple[float, ...]) -> "Preprocessing":
        """This, with the data set's `mean` and `std` where it has none of its own."""
        return Preprocessing(self.mean or mean, self.std or std, self.size, self.interpolation)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 or float (N, 3, H, W) in 0..255 to float32 of mean 0 and deviation 1, channels last in memory."""
        assert self.mean is not None
        assert self.std is not None
        # Kept for GPUs alone: on the CPU they cost nothing, and under torch.export they are fake tensors.
        constants = _scale_and_shift if images.device.type == "cpu" else _kept
        scale, shift = constants(tuple(self.mean), tuple(self.std), images.device)
        images = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
        # Rows of pixels with their channels side by side: the processor then works on long vectors, not on three
        # numbers at a time, and in place. Ten times as fast as (images - mean) / std on photographs.
        n, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).view(n, height, width * channels)
        if torch.jit.is_tracing():  # which does not see that the images change with the rows
            images = images * scale[:, None, None] + shift[:, None, None]
        else:
            torch.addcmul(shift.repeat(width), rows, scale.repeat(width), out=rows)
        if self.size is None or height != width or width == self.size:
            return images
        shrinks = min(images.shape[2:]) > self.size
        return F.interpolate(
            images, (self.size, self.size), mode=self.interpolation, align_corners=False, antialias=shrinks
        )

    def describe(self) -> dict[str, Any]:
        """As plain values, for keys of caches."""
        return asdict(self)


@torch.inference_mode(False)  # training uses what validation has kept
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the factor and the summand that normalise pixels in 0..255, float32 (C,) each, on `device`."""
    # Lightning changes the default type where it computes in half or in double precision.
    scale = 1 / (torch.tensor(std, dtype=torch.float32) * 255)
    return send(scale, device), send(-torch.tensor(mean, dtype=torch.float32) * 255 * scale, device)


_kept = lru_cache(_scale_and_shift)
