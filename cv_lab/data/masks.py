"""What data sets of images with masks share: both are decoded once into the store, and checked."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cv_lab.data.in_memory import InMemoryImages, MappedRows
from cv_lab.data.photos import PhotoData, Store, sides_of
from cv_lab.data.pixels import Fit, Pixels
from cv_lab.data.problems import Problems
from cv_lab.data.store import Facts, Stored, framed, store
from cv_lab.labels import IGNORE

log = logging.getLogger(__name__)


class Masks(Protocol):
    """The masks of N images.

    Attributes:
        key: plain values that the masks depend on.
    """

    key: dict[str, Any]

    def read(self, number: int, image: Facts) -> tuple[NDArray[np.uint8], Facts]:
        """Return a mask of the image's upright size, uint8 (H, W), and facts about it.

        Args:
            number: of the image.
            image: its facts, see :func:`~cv_lab.data.store.framed`.

        Raises:
            Unusable: if there is no usable mask.
        """

    def check(self, facts: Sequence[Facts], classes: Sequence[str]) -> None:
        """Refuse masks that together cannot be what they seem, from the facts that :meth:`read` gave.

        Raises:
            ValueError: if so.
        """


class MaskData(PhotoData):
    """Images of any size with masks, scaled to one size.

    With `fit` "pad", an image keeps its proportions; where it does not fill the given size, the rest is plain and
    unlabelled. "stretch" scales it to the whole size.

    Args:
        image_size: height and width in pixels.
        options: see :class:`~cv_lab.data.photos.PhotoData`.
    """

    targets: tuple[str, ...] = ("mask",)
    fits: ClassVar[tuple[Fit, ...]] = ("pad", "stretch")
    stores: ClassVar[tuple[Store, ...]] = ("pixels",)

    def __init__(self, image_size: int | Sequence[int] = (256, 256), **options: Any) -> None:
        super().__init__(**options)
        self.image_size = height_and_width(image_size)

    def decode(
        self, images: Sequence[Path], masks: Masks, classes: Sequence[str], problems: Problems
    ) -> InMemoryImages:
        """Return `images` with `masks`.

        Raises:
            ValueError: if no image can be used, or the masks are not of `classes`.
        """
        pixels = framed(images, self.image_size, self.preprocessing.mean or self.mean, self.cache_dir, self.fit)
        labels = _stored_masks(masks, pixels, self.image_size, self.cache_dir)
        with_mask = set(labels.usable(problems))
        kept = [number for number in pixels.usable(problems) if number in with_mask]
        facts = [labels.facts[number] for number in kept]
        for number, told in zip(kept, facts, strict=True):
            if told["empty"]:
                problems.note("images have no labelled pixel and teach nothing", str(images[number]))
        self.note_copies(pixels, kept, [0] * len(images), problems)
        self.settle(problems)
        if not kept:
            raise problems.nothing_left(len(images))
        masks.check(facts, classes)
        self.remember(pixels, kept)
        rows = torch.tensor(kept)
        balance = torch.zeros(len(kept), dtype=torch.long)  # splits need no balance
        channels_last = pixels.pixels.permute(0, 3, 1, 2)  # a view
        return InMemoryImages(
            MappedRows(channels_last, rows), balance, tuple(classes), masks=MappedRows(labels.pixels, rows)
        )


def height_and_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Return `image_size`, a height and a width or the side of a square, as two numbers.

    Raises:
        ValueError: if it is neither.
    """
    sides = sides_of(image_size)
    if sides is None:
        raise ValueError(f"data.image_size={image_size} must be a height and a width in pixels, [240,320], or one side")
    return sides


def class_names(classes: Any) -> tuple[str, ...]:
    """Return what `data.classes` names, where a single class may stand without brackets.

    Raises:
        ValueError: if it is no list, or has a name twice.
    """
    if not isinstance(classes, Sequence):
        raise ValueError(f"data.classes={classes} must be a list of names: [background,cat]")
    names = (classes,) if isinstance(classes, str) else tuple(map(str, classes))
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"there are several classes {', '.join(twice)}: give each a name of its own")
    return names


def _stored_masks(masks: Masks, images: Stored, size: tuple[int, int], cache_dir: str | None) -> Stored:
    """Masks scaled like their images, uint8 (N, H, W), with `IGNORE` where a frame is not filled.

    Facts: those of the reader, and "empty", whether no pixel is labelled.
    """

    def read(number: int) -> tuple[Pixels, Facts]:
        frame = np.full(size, IGNORE, np.uint8)
        image = images.facts[number]
        if "problem" in image:
            return frame, {"empty": True}
        labels, facts = masks.read(number, image)
        assert labels.shape == (image["own"][1], image["own"][0])
        height, width = image["shown"]
        scaled = Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)
        frame[:height, :width] = np.asarray(scaled)
        return frame, {**facts, "empty": bool((frame == IGNORE).all())}

    return store(read, len(images.facts), size, {**masks.key, "images": images.key}, cache_dir, "masks")
