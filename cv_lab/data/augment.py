"""Augmentation of whole batches on the device, with a draw of its own for every sample.

`torchvision.transforms.v2` applied to a batch draws one crop for the whole batch, and applied sample by sample costs
more than a small network's step; what is common is therefore written for batches here. Each transform takes and
returns a batch: a dict with "image", uint8 or float (N, C, H, W) in 0..255, "label", int64 (N,), and, where pixels
have classes, "mask", uint8 (N, H, W). What moves pixels moves image and mask alike, without interpolating masks;
pixels of which the image shows nothing are labelled 255, which no loss and no metric counts. Where objects have masks
of their own, "masks", uint8 (N, M, H, W) of 0 and 1, they move as well; boxes are taken from them afterwards.
Batches also hold "index", int64 (N,), where each image stands in the training set, and "epoch", counted from 0.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchvision import tv_tensors
from torchvision.transforms import v2

from cv_lab.data.memory import send
from cv_lab.labels import IGNORE

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
    """Pad and cut out a random window of the old size, as `torchvision.transforms.RandomCrop` does.

    Args:
        padding: on each side, as a fraction of the image's height: 0.125 pads 32 pixels by 4.
        padding_mode: "constant" pads images with zeros, and masks as unlabelled; "reflect" mirrors both at their edges.

    Raises:
        ValueError: if the mode is not known, or batches hold masks of objects, which reflection would double.
    """

    def __init__(self, padding: float = 0.125, padding_mode: str = "constant") -> None:
        if padding_mode not in ("constant", "reflect"):
            raise ValueError(f"padding_mode={padding_mode} of a random crop is not known: give constant or reflect")
        self.padding, self.padding_mode = padding, padding_mode

    def __call__(self, batch: Batch) -> Batch:
        images = batch["image"]
        n, _, height, width = images.shape
        pad = round(self.padding * height)
        y, x = torch.randint(0, 2 * pad + 1, (2, n), device=images.device)

        def crop(pixels: Tensor, fill: int) -> Tensor:
            padded = v2.functional.pad(pixels, [pad] * 4, fill, self.padding_mode)
            # A view in which [i, :, y, x] is the window of image i whose corner is (y, x); indexing it copies once.
            windows = padded.unfold(2, height, 1).unfold(3, width, 1)
            return windows[torch.arange(n, device=images.device), :, y, x]

        batch = {**batch, "image": crop(images, 0)}
        if "mask" in batch:
            batch["mask"] = crop(batch["mask"][:, None], IGNORE)[:, 0]
        if "masks" in batch:
            if self.padding_mode == "reflect":
                raise ValueError("padding_mode=reflect would show parts of objects twice: give padding_mode=constant")
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


class AlternatingFlip:
    """Mirror each image in every other epoch, a random half of them in the first (Jordan, 2024, arXiv:2404.00498).

    Any two epochs in a row show both versions of each image, where independent flips repeat one of them for half of the
    images. Batches hold "index", int64 (N,), the place of each image in the training set, and "epoch", counted from 0.

    Args:
        seed: decides which images are mirrored in the first epoch.
    """

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed

    def __call__(self, batch: Batch) -> Batch:
        # A hash needs no state, so a continued trial goes on as it began. Mixes 32 bits, as in Wellons' "lowbias32".
        bits = (batch["index"] + self.seed * 1_000_003) & 0xFFFFFFFF
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            bits = ((bits ^ (bits >> shift)) * factor) & 0xFFFFFFFF
        mirrored = ((bits >> 16) + batch["epoch"]) % 2 == 1

        def flip(pixels: Tensor) -> Tensor:
            return torch.where(mirrored.view(-1, *[1] * (pixels.ndim - 1)), pixels.flip(-1), pixels)

        return {**batch, **{name: flip(batch[name]) for name in ("image", "mask", "masks") if name in batch}}


class RandomResizedCrop:
    """Cut out a random window and scale it to one size, as `torchvision.transforms.v2.RandomResizedCrop` does.

    Area, aspect and place of the window have torchvision's distribution: a window that does not fit is drawn again, ten
    times in all, and then the largest one of an allowed aspect is cut from the centre. Images are interpolated
    bilinearly, with antialiasing where they shrink; masks take the nearest pixel.

    Two things are not torchvision's. The aspect is relative to the image's, since the result has the image's shape:
    `ratio` is by how much objects are distorted. (torchvision's is absolute; on square images that is the same.) And
    `scale` may exceed 1: a window's side may then be longer than the image's by the square root of the largest scale.
    Along such a side the window contains the whole image, at a random place in black, unlabelled pixels.

    A batch may hold "side", that of the network's input: windows of larger images are scaled to it. One that holds
    "cropped" was cut when its files were decoded, and stays as it is.

    Args:
        scale: range of the window's area as a share of the image's.
        ratio: range of the window's width by height, relative to the image's.
        size: of the result, as a share of the image's height and width.

    Raises:
        ValueError: if a range does not run from a lower to a higher positive number, or `size` is not positive.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.7, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        size: float = 1.0,
    ) -> None:
        for name, (low, high) in {"scale": scale, "ratio": ratio}.items():
            if not 0 < low <= high:
                raise ValueError(
                    f"{name}=[{low},{high}] of a resized crop must be two positive numbers, the lower first"
                )
        if size <= 0:
            raise ValueError(f"size={size} of a resized crop must be positive: 1.0 keeps the image's")
        self.scale, self.ratio, self.size = scale, ratio, size
        self.longest = max(1.0, math.sqrt(scale[1]))  # side of a window, as a share of the image's

    def __call__(self, batch: Batch) -> Batch:
        if batch.get("cropped"):
            return batch
        images = batch["image"]
        sides = images.shape[2:]
        side = batch.get("side")
        scaled = sides if side is None or side >= min(sides) else (side, side)
        windows = self.windows(len(images), sides[0], sides[1], images.device)
        axes = [
            _Resampled(start, length, side, round(self.longest * side) - side, max(1, round(self.size * size)))
            for start, length, side, size in zip(*windows, sides, scaled, strict=True)
        ]
        batch = {**batch, "image": _interpolated(images.float(), *axes)}
        (rows, rows_seen), (columns, columns_seen) = (axis.nearest() for axis in axes)
        seen = rows_seen[:, None, :, None] & columns_seen[:, None, None, :]
        places = (rows[:, :, None] * sides[1] + columns[:, None, :]).flatten(1)[:, None]

        def move(pixels: Tensor, fill: int) -> Tensor:
            moved = pixels.flatten(2).gather(2, places.expand(-1, pixels.shape[1], -1))
            return torch.where(seen, moved.unflatten(2, seen.shape[2:]), fill)

        if "mask" in batch:
            batch["mask"] = move(batch["mask"][:, None], IGNORE)[:, 0]
        if "masks" in batch:
            batch["masks"] = move(batch["masks"], 0)
        return batch

    def windows(
        self, count: int, height: int, width: int, device: torch.device
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Draw `count` windows for images of `height` x `width` pixels.

        Returns:
            (top, left), (height, width): whole pixels, float (count,) each.
        """
        shape = (10, count)  # all tries at once
        area = torch.empty(shape, device=device).uniform_(*self.scale)
        stretch = torch.empty(shape, device=device).uniform_(*map(math.log, self.ratio)).exp()
        drawn = (height * (area / stretch).sqrt()).round(), (width * (area * stretch).sqrt()).round()
        fits = torch.ones(shape, dtype=torch.bool, device=device)
        for length, side in zip(drawn, (height, width), strict=True):
            fits &= (length > 0) & (length <= round(self.longest * side))
        first, found = fits.int().argmax(0, keepdim=True), fits.any(0)
        nearest = min(max(1.0, self.ratio[0]), self.ratio[1])  # the allowed stretch that leaves most of the image
        corner, size = [], []
        for length, side, whole in zip(drawn, (height, width), (1 / nearest, nearest), strict=True):
            length = torch.where(found, length.gather(0, first)[0], round(side * min(1.0, whole)))
            spare = side - length  # negative where the window exceeds the image
            place = (torch.rand(count, device=device) * (spare.abs() + 1)).floor() + spare.clamp(max=0)
            corner.append(torch.where(found, place, (spare / 2).floor()))
            size.append(length)
        return (corner[0], corner[1]), (size[0], size[1])


@dataclass(frozen=True)
class _Resampled:
    """Windows along one axis of N images, and the pixels that they are scaled to.

    Attributes:
        start: first pixel of each window, float (N,).
        length: pixels of each window, float (N,).
        side: pixels of an image.
        margin: by how many pixels windows may exceed an image at either end.
        size: pixels to scale to.
    """

    start: Tensor
    length: Tensor
    side: int
    margin: int
    size: int

    @property
    def may_shrink(self) -> bool:
        """Whether a window may have more pixels than it is scaled to."""
        return self.side + self.margin > self.size

    def _centres(self) -> Tensor:
        """Where the middles of the new pixels lie among the old ones, float (N, size)."""
        middles = torch.arange(self.size, device=self.start.device) + 0.5
        return self.start[:, None] + middles * self.length[:, None] / self.size

    def grid(self) -> Tensor:
        """Where `torch.nn.functional.grid_sample` takes the new pixels from, float (N, size).

        No place is closer to the window's edge than the middle of its last pixel, so that nothing is mixed with what
        lies beyond the window.
        """
        start = self.start[:, None]
        middles = self._centres().clamp(start + 0.5, start + self.length[:, None] - 0.5)
        return middles * (2 / self.side) - 1

    def bilinear(self) -> Tensor:
        """The weight of each old pixel in each new one, float (N, size, side).

        A triangle as wide as a new pixel, or as an old one where these are wider, within the window: the filter of PIL,
        and of `torch.nn.functional.interpolate` with ``antialias=True``.
        """
        places = torch.arange(-self.margin, self.side + self.margin, device=self.start.device)
        reach = (self.length / self.size).clamp(min=1)[:, None, None]
        weights = (1 - (places + 0.5 - self._centres()[:, :, None]).abs() / reach).clamp(min=0)
        start, end = self.start[:, None, None], (self.start + self.length)[:, None, None]
        weights = weights * ((places >= start) & (places < end))
        return (weights / weights.sum(2, keepdim=True))[:, :, self.margin : self.margin + self.side]

    def nearest(self) -> tuple[Tensor, Tensor]:
        """The old pixel that each new one lies in, int64 (N, size), and whether there is one, bool (N, size)."""
        place = self._centres().floor().long()
        return place.clamp(0, self.side - 1), (place >= 0) & (place < self.side)


def _interpolated(images: Tensor, rows: _Resampled, columns: _Resampled) -> Tensor:
    """Windows of `images`, float (N, C, H, W), scaled to float (N, C, rows.size, columns.size).

    Windows that only grow need two pixels a side for each new one, and `grid_sample` is several times as fast.
    """
    if rows.may_shrink or columns.may_shrink:
        return torch.einsum("nyh,nchw,nxw->ncyx", rows.bilinear(), images, columns.bilinear())
    grid = torch.broadcast_tensors(columns.grid()[:, None, :], rows.grid()[:, :, None])
    return F.grid_sample(images, torch.stack(grid, 3), align_corners=False)


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

    Takes batches with "label", int64 (N,), and "num_classes", K, or with "label" as float (N, K). Adds "soft_label",
    float (N, K), which the loss then uses; "label" stays that of the first image.

    Args:
        mixup_alpha: of the Beta(alpha, alpha) distribution that MixUp draws its shares from.
        cutmix_alpha: likewise of CutMix.
    """

    def __init__(self, mixup_alpha: float = 0.2, cutmix_alpha: float = 1.0) -> None:
        # The type of number in force, which may be float64 later, decides what the transforms draw; for the same reason
        # `v2.RandomChoice` does not choose.
        self.kinds = (v2.MixUp(alpha=mixup_alpha), v2.CutMix(alpha=cutmix_alpha))

    def __call__(self, batch: Batch) -> Batch:
        label = batch["label"]
        if label.ndim == 1:
            label = F.one_hot(label, batch["num_classes"]).float()
        mix = self.kinds[int(torch.randint(len(self.kinds), ()))]
        image, soft_label = cast(tuple[Tensor, Tensor], mix(batch["image"].float(), label))
        return {**batch, "image": image, "soft_label": soft_label}
