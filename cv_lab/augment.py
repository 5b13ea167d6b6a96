"""Augmentation of whole batches on the device, with a draw of its own for every sample.

`torchvision.transforms.v2` applied to a batch draws one crop for the whole batch, and applied sample by sample costs
more than a small network's step; crop and flip are therefore written for batches here. Each transform takes and
returns a batch: a dict with "image", uint8 (N, C, H, W), and "label", int64 (N,).
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

Batch = dict[str, Tensor]
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
        padded = nn.functional.pad(images, (pad, pad, pad, pad))
        # A view in which [i, :, y, x] is the window of image i whose corner is (y, x); indexing it copies once.
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        y, x = torch.randint(0, 2 * pad + 1, (2, n), device=images.device)
        return {**batch, "image": windows[torch.arange(n, device=images.device), :, y, x]}


class RandomHorizontalFlip:
    """Mirror each image with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, batch: Batch) -> Batch:
        images = batch["image"].clone()
        chosen = torch.rand(len(images), device=images.device) < self.p
        images[chosen] = images[chosen].flip(-1)
        return {**batch, "image": images}


class PerImage:
    """Apply a torchvision transform that draws once a call, such as `TrivialAugmentWide`, to every image by itself."""

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.transform = transform

    def __call__(self, batch: Batch) -> Batch:
        return {**batch, "image": torch.stack([self.transform(image) for image in batch["image"]])}


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
