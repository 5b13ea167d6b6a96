"""What data sets of photograph files share: the store of decoded pixels, and one rule for files that cannot be used."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cv_lab.data.base import ImageData
from cv_lab.data.in_memory import InMemoryImages, MappedRows
from cv_lab.data.preprocess import Preprocessing
from cv_lab.data.problems import Problems, listed
from cv_lab.data.store import squares

log = logging.getLogger(__name__)


class PhotoData(ImageData):
    """Images in files.

    A file that cannot be used is dropped, counted and listed with examples; a set or a class of which nothing is left
    is refused.

    Args:
        cache_dir: where decoded pixels are kept; None decodes them in each trial.
        strict: refuse what would be dropped.
        options: see :class:`~cv_lab.data.base.ImageData`.
    """

    mean = (0.485, 0.456, 0.406)  # of ImageNet's photographs; pretrained networks bring their own
    std = (0.229, 0.224, 0.225)

    def __init__(self, cache_dir: str | None = None, strict: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.cache_dir, self.strict = cache_dir, strict
        self.settled: list[Problems] = []  # of each split, in the order in which they are loaded
        self.files: list[list[str]] = []  # that are used of each split, in the same order

    def settle(self, problems: Problems) -> None:
        """Log `problems` and keep them for the trial's record.

        Raises:
            ValueError: if something was dropped and the data set is strict.
        """
        problems.settle(self.strict)
        self.problems += problems.as_plain()
        self.settled.append(problems)

    def usable_squares(self, files: Sequence[Path], size: int, problems: Problems) -> tuple[MappedRows, list[int]]:
        """Return the largest central squares of those `files` that can be used, uint8 (N, 3, size, size), and which.

        Raises:
            ValueError: if no file can be used.
        """
        stored = squares(files, size, self.cache_dir)
        kept = stored.usable(problems)
        self.settle(problems)
        if not kept:
            raise ValueError(
                f"{problems.source}: none of the {len(files)} images can be used: "
                f"{listed([example for some in problems.dropped.values() for example in some], '; ')}"
            )
        self.files.append([stored.facts[number]["name"] for number in kept])
        return MappedRows(stored.pixels.permute(0, 3, 1, 2), torch.tensor(kept)), kept

    def decode_squares(
        self, files: Sequence[Path], labels: Sequence[int], classes: Sequence[str], size: int, problems: Problems
    ) -> InMemoryImages:
        """Return the largest central squares of `files` at `size` pixels.

        Raises:
            ValueError: if no file can be used.
        """
        pixels, kept = self.usable_squares(files, size, problems)
        return InMemoryImages(pixels, torch.tensor([labels[number] for number in kept]), tuple(classes))


def decoded_size(image_size: int | None, preprocessing: Preprocessing, default: int) -> int:
    """Return the side in pixels at which photographs are decoded.

    Args:
        image_size: what the user asks for; None takes the size of the network.
        preprocessing: of the network.
        default: for a network that takes any size.

    Raises:
        ValueError: if `image_size` is not a positive whole number.
    """
    if image_size is None:
        return preprocessing.size or default
    if not isinstance(image_size, int) or image_size < 1:
        raise ValueError(
            f"data.image_size={image_size} must be at least 1 pixel, or null for the size of the network: photographs "
            "are cut to squares, so it is one number"
        )
    if preprocessing.size is not None and image_size < preprocessing.size:
        log.warning(
            "photographs are decoded at data.image_size=%s pixels and scaled up to the network's %s, which costs "
            "accuracy: data.image_size=null decodes them at its size",
            image_size,
            preprocessing.size,
        )
    return image_size
