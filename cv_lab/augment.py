"""Augmentation of whole batches on the device, with a draw of its own for every sample.

`torchvision.transforms.v2` applied to a batch draws one crop for the whole batch, and applied sample by sample costs
more than a small network's step; what is common is therefore written for batches here. Each transform takes and
returns a batch: a dict with "image", uint8 or float (N, C, H, W) in 0..255, "label", int64 (N,), and, where pixels
have classes, "mask", uint8 (N, H, W). What moves pixels moves image and mask alike, without interpolating masks;
pixels of which the image shows nothing are labelled 255, which no loss and no metric counts. Where objects have masks
of their own, "masks", uint8 (N, M, H, W) of 0 and 1, they move as well; boxes are taken from them afterwards.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchvision import tv_tensors
from torchvision.transforms import v2

from cv_lab.losses import IGNORE
from cv_lab.memory import send

Batch = dict[str, Any]  # tensors, and lists of what images have beside pixels
Transform = Callable[[Batch], Batch]


class Augmentation:
    """Named transforms, applied in the order given. The names are there for overrides: ``augmentation.flip=null``."""

    def __init__(self, **transforms: Transform | None) -> None:
        self.transforms = [transform for transform in transforms.values() if transform is not None]

    def __call__(self, batch: Batch) -> Batch:
        for transform in self.transforms:
            batch = transform(batch)
        return batch


class RandomCrop:
    """Pad with zeros and cut out a random window of the old size, as `torchvision.transforms.RandomCrop` does.

    Args:
        padding: on each side, as a fraction of the image's height: 0.125 pads 32 pixels by 4.
    """

    def __init__(self, padding: float = 0.125) -> None:
        self.padding = padding

    def __call__(self, batch: Batch) -> Batch:
        images = batch["image"]
        n, _, height, width = images.shape
        pad = round(self.padding * height)
        y, x = torch.randint(0, 2 * pad + 1, (2, n), device=images.device)

        def crop(pixels: Tensor, fill: int) -> Tensor:
            padded = F.pad(pixels, (pad, pad, pad, pad), value=fill)
            # A view in which [i, :, y, x] is the window of image i whose corner is (y, x); indexing it copies once.
            windows = padded.unfold(2, height, 1).unfold(3, width, 1)
            return windows[torch.arange(n, device=images.device), :, y, x]

        batch = {**batch, "image": crop(images, 0)}
        if "mask" in batch:
            batch["mask"] = crop(batch["mask"][:, None], IGNORE)[:, 0]
        if "masks" in batch:
            batch["masks"] = crop(batch["masks"], 0)
        return batch


class RandomHorizontalFlip:
    """Mirror each image with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, batch: Batch) -> Batch:
        # Drawn on the CPU: with a mask on a GPU, the processor would wait to learn how many images it chooses.
        chosen = torch.rand(len(batch["image"])) < self.p
        chosen = send(chosen.nonzero().flatten(), batch["image"].device)

        def flip(pixels: Tensor) -> Tensor:
            pixels = pixels.clone()
            pixels[chosen] = pixels[chosen].flip(-1)
            return pixels

        return {**batch, **{name: flip(batch[name]) for name in ("image", "mask", "masks") if name in batch}}


class RandomResizedCrop:
    """Cut out a random window and scale it to one size, as `torchvision.transforms.RandomResizedCrop` does.

    Images are interpolated bilinearly, masks take the nearest pixel. Windows larger than the image show
    black, unlabelled pixels around it.

    Args:
        scale: range of the window's area as a share of the image's; may exceed 1.
        ratio: range of the factor by which the window's aspect ratio differs from the image's.
        size: of the result, as a share of the image's height and width.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.25, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        size: float = 1.0,
    ) -> None:
        self.scale, self.ratio, self.size = scale, ratio, size

    def __call__(self, batch: Batch) -> Batch:
        images = batch["image"]
        n, device = len(images), images.device

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(n, device=device).uniform_(low, high)

        area, stretch = uniform(*self.scale), uniform(*map(math.log, self.ratio)).exp().sqrt()
        longest = max(1.0, math.sqrt(self.scale[1]))
        width = (area.sqrt() * stretch).clamp(max=longest)  # as a share of the image's
        height = (area.sqrt() / stretch).clamp(max=longest)
        # A window within the image lies anywhere in it; along an axis that it exceeds, it contains the image.
        x, y = ((1 - side).abs() * uniform(-1, 1) for side in (width, height))
        zero = torch.zeros_like(x)
        theta = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
        size = [round(self.size * side) for side in images.shape[2:]]
        grid = F.affine_grid(theta, [n, 1, *size], align_corners=False)
        batch = {**batch, "image": F.grid_sample(images.float(), grid, align_corners=False)}
        if "mask" in batch:
            # Zeros come in from outside: labels are shifted so that the unlabelled ones are 0 meanwhile.
            shifted = (batch["mask"][:, None] + 1).float()  # uint8: 255 becomes 0
            moved = F.grid_sample(shifted, grid, mode="nearest", align_corners=False)
            batch["mask"] = moved[:, 0].to(torch.uint8) - 1
        if "masks" in batch:
            moved = F.grid_sample(batch["masks"].float(), grid, mode="nearest", align_corners=False)
            batch["masks"] = moved.to(torch.uint8)
        return batch


class ColourJitter:
    """Change brightness, contrast and saturation of each image by random factors around 1.

    Args:
        brightness: the factor lies in 1 - b to 1 + b; 0 leaves it out.
        contrast: likewise, around the mean grey of the image.
        saturation: likewise, around the grey of each pixel.
    """

    def __init__(self, brightness: float = 0.3, contrast: float = 0.3, saturation: float = 0.3) -> None:
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation

    def __call__(self, batch: Batch) -> Batch:
        images = batch["image"].float()
        n, device = len(images), images.device
        # All three at once: image = b (c (s (x - grey) + grey) + (1 - c) mean).
        b, c, s = (
            1 + strength * torch.empty(n, 1, 1, 1, device=device).uniform_(-1, 1)
            for strength in (self.brightness, self.contrast, self.saturation)
        )
        red, green, blue = images.split(1, dim=1)
        grey = (0.299 * red).add_(0.587 * green).add_(0.114 * blue)
        mean = grey.mean((2, 3), keepdim=True)
        changed = (b * c * s) * images + (b * c * (1 - s)) * grey + b * (1 - c) * mean
        return {**batch, "image": changed.clamp_(0, 255)}


class PerImage:
    """Apply a torchvision transform that draws once a call, such as `TrivialAugmentWide`, to every image by itself.

    Masks go through it with their images; transforms that take none, such as `TrivialAugmentWide`, raise a TypeError.
    """

    def __init__(self, transform: Callable[..., Tensor]) -> None:
        self.transform = transform

    def __call__(self, batch: Batch) -> Batch:
        on_cpu = batch["image"].device.type == "cpu"
        with nullcontext() if on_cpu else _ConstantsWithoutWaiting():
            return self._transformed(batch)

    def _transformed(self, batch: Batch) -> Batch:
        kind = next((name for name in ("mask", "masks") if name in batch), None)
        if kind is None:
            return {**batch, "image": torch.stack([self.transform(image) for image in batch["image"]])}
        pairs = [
            self.transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
            for image, mask in zip(batch["image"], batch[kind], strict=True)
        ]
        images, masks = zip(*pairs, strict=True)
        return {**batch, "image": torch.stack(images), kind: torch.stack(masks)}


class _ConstantsWithoutWaiting(TorchFunctionMode):
    """Make ``torch.tensor(values, device=...)``, which torchvision's transforms call, not wait for a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))
            return send(torch.tensor(*args, **kwargs), device)
        return func(*args, **kwargs)


class Mix:
    """MixUp (Zhang et al., 2018) or CutMix (Yun et al., 2019), one of the two at random for each batch.

    Adds "soft_label", float (N, K), which the loss then uses; "label" stays the class of the first image.
    """

    def __init__(self, mixup_alpha: float = 0.2, cutmix_alpha: float = 1.0) -> None:
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.num_classes: int | None = None

    def __call__(self, batch: Batch) -> Batch:
        mix = v2.RandomChoice(
            [
                v2.MixUp(alpha=self.mixup_alpha, num_classes=self.num_classes),
                v2.CutMix(alpha=self.cutmix_alpha, num_classes=self.num_classes),
            ]
        )
        image, soft_label = cast(tuple[Tensor, Tensor], mix(batch["image"].float(), batch["label"]))
        return {**batch, "image": image, "soft_label": soft_label}
