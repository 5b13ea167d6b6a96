"""What data sets of images with masks share: pairs of files, checked and decoded once into memory."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.progress import track

from cv_lab.data.base import ImageData
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.labels import IGNORE

log = logging.getLogger(__name__)

SHOWN = 5  # files named in a message
Pixels = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """An image's file, and how to get its mask, uint8 (H, W), given the image's width and height.

    `mask` raises a ValueError or FileNotFoundError that names the file.
    """

    image: Path
    mask: Callable[[tuple[int, int]], Pixels]


class MaskData(ImageData):
    """Images of any size with masks, scaled to one size.

    An image keeps its proportions; where it does not fill the given size, the rest is plain and unlabelled.

    Args:
        image_size: height and width in pixels.
        options: see :class:`~cv_lab.data.base.ImageData`.
    """

    mean = (0.485, 0.456, 0.406)  # of ImageNet's photographs; pretrained networks bring their own
    std = (0.229, 0.224, 0.225)
    targets = ("mask",)
    target = "mask"

    def __init__(
        self,
        image_size: Sequence[int] = (256, 256),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.image_size = height_and_width(image_size)

    def decode(self, pairs: Sequence[Pair], classes: Sequence[str]) -> InMemoryImages:
        """All `pairs` in memory.

        Raises:
            ValueError: if any cannot be used; the message names the files and what is wrong with each.
        """
        height, width = self.image_size
        images = frames(len(pairs), self.image_size, self.mean)
        masks = np.full((len(pairs), height, width), IGNORE, np.uint8)

        def read(number: int) -> str | None:
            try:
                image, mask = _read(pairs[number], (height, width), len(classes))
            except (ValueError, FileNotFoundError) as error:
                return str(error)
            images[number, : image.shape[0], : image.shape[1]] = image
            masks[number, : mask.shape[0], : mask.shape[1]] = mask
            return None

        if problems := [message for message in read_all(read, len(pairs)) if message is not None]:
            raise ValueError(f"{len(problems)} of {len(pairs)} images cannot be used: {_list(problems, '; ')}")
        if empty := [str(pair.image) for pair, mask in zip(pairs, masks, strict=True) if (mask == IGNORE).all()]:
            log.warning("%s images have no labelled pixel and teach nothing: %s", len(empty), _list(empty, ", "))
        channels_last = torch.from_numpy(images).permute(0, 3, 1, 2)  # a view
        labels = torch.zeros(len(pairs), dtype=torch.long)  # splits need no balance
        return InMemoryImages(channels_last, labels, tuple(classes), masks=torch.from_numpy(masks))


def height_and_width(image_size: Sequence[int]) -> tuple[int, int]:
    """`image_size`, if it is one.

    Raises:
        ValueError: if it is not.
    """
    if len(image_size) != 2 or min(image_size) < 1:
        raise ValueError(f"data.image_size={list(image_size)} must be a height and a width in pixels: [240,320]")
    return image_size[0], image_size[1]


def class_names(classes: Sequence[str] | str) -> tuple[str, ...]:
    """What `data.classes` names, where a single class may stand without brackets."""
    return (classes,) if isinstance(classes, str) else tuple(classes)


def read_all(read: Callable[[int], T], count: int) -> list[T]:
    """What `read` answers for each of `count` images, by its number; in threads, and with a bar where they are many."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        answers = pool.map(read, range(count))
        return list(track(answers, "decoding images", count, transient=True, disable=count < 100))


def frames(count: int, size: tuple[int, int], mean: Sequence[float]) -> Pixels:
    """`count` plain images of colour `mean`, in 0..1, for others to be laid on; (count, H, W, 3)."""
    images = np.empty((count, *size, 3), np.uint8)
    images[:] = np.round(255 * np.array(mean))
    return images


def mask_file(path: Path) -> Callable[[tuple[int, int]], Pixels]:
    """Reads a mask whose pixels are classes, grey or indices of a palette, as :class:`Pair` wants it."""

    def read(size: tuple[int, int]) -> Pixels:
        if not path.is_file():
            raise FileNotFoundError(f"there is no mask {path}")
        try:
            with Image.open(path) as mask:
                if mask.mode not in ("L", "P", "I", "I;16", "1"):
                    raise ValueError(
                        f"{path} is saved as {mask.mode}: a mask holds one number a pixel, the class, in a grey or "
                        "palette image"
                    )
                labels = np.asarray(mask)
                found, palette = mask.size, " (indices of its palette)" if mask.mode == "P" else ""
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"{path} cannot be decoded: {error}") from error
        if found != size:
            raise ValueError(f"{path} is {found[0]} x {found[1]} pixels, its image {size[0]} x {size[1]}")
        if labels.max() > IGNORE:
            raise ValueError(f"{path} has label {labels.max()}{palette}, beyond 8 bits")
        return labels.astype(np.uint8)

    return read


def read_fitting(path: Path, size: tuple[int, int]) -> tuple[Pixels, tuple[int, int]]:
    """An image (h, w, 3), scaled in proportion to fit into `size`, height and width; and its own width and height.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image, or a damaged one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no image {path}")
    try:
        with Image.open(path) as image:
            original = image.size
            scale = min(size[0] / original[1], size[1] / original[0])
            fitting = (max(1, round(original[0] * scale)), max(1, round(original[1] * scale)))
            image.draft("RGB", fitting)  # lets the JPEG decoder leave out what would be scaled away
            return np.asarray(image.convert("RGB").resize(fitting, Image.Resampling.BILINEAR)), original
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"{path} cannot be decoded as an image: {error}") from error


def _read(pair: Pair, size: tuple[int, int], num_classes: int) -> tuple[Pixels, Pixels]:
    """Image (h, w, 3) and mask (h, w), scaled to fit into `size`."""
    pixels, original = read_fitting(pair.image, size)
    labels = pair.mask(original)
    if (wrong := labels[(labels >= num_classes) & (labels != IGNORE)]).size:
        known = "is 1 class, 0" if num_classes == 1 else f"are {num_classes} classes, 0 to {num_classes - 1}"
        raise ValueError(
            f"the mask of {pair.image} has label {wrong.max()}, but there {known}, and {IGNORE} for unlabelled: name "
            "the class of every label, the background too"
        )
    return pixels, np.asarray(
        Image.fromarray(labels).resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.NEAREST)
    )


def _list(texts: Sequence[str], separator: str) -> str:
    return separator.join(texts[:SHOWN]) + (f"{separator}..." if len(texts) > SHOWN else "")
