"""What data sets of photograph files share: the stores, how images fit, and one rule for files that cannot be used."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch

from cv_lab.data.augment import RandomResizedCrop
from cv_lab.data.base import ImageData, Split
from cv_lab.data.in_memory import InMemoryImages, MappedRows
from cv_lab.data.packed import PackedPhotos, packed
from cv_lab.data.pixels import FITS, Fit
from cv_lab.data.preprocess import Preprocessing
from cv_lab.data.problems import Problems
from cv_lab.data.store import Stored, ground_of, photographs

log = logging.getLogger(__name__)
Store = Literal["pixels", "jpeg"]
Size = int | tuple[int, int]  # side of a square, or height and width
LARGEST_SIDE = 16384  # pixels, more than any network takes: a larger one is a mistake that would fill the memory
MARGIN = 1.15  # by which photographs are kept larger than the network's input where random windows are cut out


class PhotoData(ImageData):
    """Images in files.

    A file that cannot be used is dropped, counted and listed with examples; a set or a class of which nothing is left
    is refused.

    Args:
        cache_dir: where decoded pixels are kept; None decodes them in each trial.
        strict: refuse what would be dropped.
        fit: how images of other proportions are made to fit, see :meth:`~cv_lab.data.pixels.Photo.fitted`; None takes
            the first of `fits`.
        store: "pixels" keeps decoded pixels at one size. "jpeg" keeps the bytes of the files, of whatever format, and
            decodes them in every epoch: this takes no more space than the files and leaves random crops all of their
            detail, and costs about a millisecond for each image.
        options: see :class:`~cv_lab.data.base.ImageData`.

    Raises:
        ValueError: if the data set has no such `fit` or `store`.
    """

    mean = (0.485, 0.456, 0.406)  # of ImageNet's photographs; pretrained networks bring their own
    std = (0.229, 0.224, 0.225)
    fits: ClassVar[tuple[Fit, ...]] = FITS
    stores: ClassVar[tuple[Store, ...]] = get_args(Store)

    def __init__(
        self,
        cache_dir: str | None = None,
        strict: bool = False,
        fit: Fit | None = None,
        store: Store = "pixels",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.settled: list[Problems] = []  # of each split, in the order in which they are loaded
        self.files: list[list[str]] = []  # that are used of each split, in the same order
        self.sizes: list[list[tuple[int, int]]] = []  # upright width and height of these files
        self.fit = fit or self.fits[0]
        if self.fit not in self.fits:
            raise ValueError(
                f"data.fit={fit} is not possible with {type(self).__name__}: give {' or '.join(self.fits)}"
            )
        if store not in self.stores:
            raise ValueError(
                f"data.store={store} is not possible with {type(self).__name__}: give {' or '.join(self.stores)}"
            )
        self.cache_dir, self.strict, self.store = cache_dir, strict, store
        self.contents: dict[str, str] = {}  # a file of each content that was read
        self._fit_was_told = False
        if store == "jpeg":
            self._check_jpeg()

    def _check_jpeg(self) -> None:
        if self.resident is True:
            raise ValueError("data.store=jpeg decodes images in every epoch: data.resident=true needs store=pixels")
        self.resident = False
        crop = self._crop()
        if crop is not None and (crop.scale[1] > 1 or crop.size != 1):
            raise ValueError(
                f"data.store=jpeg cuts windows out of whole photographs: scale={list(crop.scale)} and size={crop.size} "
                "of the resized crop must be at most 1 and 1, or take data.store=pixels"
            )
        self.cropped = crop is not None

    def _crop(self) -> RandomResizedCrop | None:
        """The resized crop that training images are augmented with first, if they are."""
        first = next(iter(self.augmentation.transforms if self.augmentation else ()), None)
        return first if isinstance(first, RandomResizedCrop) else None

    def training_samples(self) -> InMemoryImages:
        samples, crop = super().training_samples(), self._crop()
        if crop is None or not isinstance(samples.images, PackedPhotos):
            return samples
        return samples.showing(samples.images.cropped(crop))

    def files_of(self, split: Split) -> list[str]:
        return self._of_split(split, self.files)

    def sizes_of(self, split: Split) -> list[tuple[int, int]]:
        """Width and height of the files of the images of `split`; empty where images have no files of their own."""
        return self._of_split(split, self.sizes)

    def _of_split(self, split: Split, values: Sequence[list[Any]]) -> list[Any]:
        """Those of `values`, one for each file that was loaded, that belong to the images of `split`."""
        loaded = [split for split in self.splits() if split != "val" or self.validation == "split"]
        files = dict(zip(loaded, values, strict=False))  # none where images lie in one array
        images = getattr(self, split)
        if not files:
            return []
        # The rows of a validation set of its own are counted on from those of the training set.
        others = files["train"] + files.get("val", [])
        source = files["test"] if images is self.test and "test" in files else others
        return [source[row] for row in images.rows.tolist()]

    def settle(self, problems: Problems) -> None:
        """Log `problems` and keep them for the trial's record.

        Raises:
            ValueError: if something was dropped and the data set is strict.
        """
        problems.settle(self.strict)
        self.problems += problems.as_plain()
        self.settled.append(problems)
        self.problem_files += problems.files()

    def decode_labelled(
        self, files: Sequence[Path], labels: Sequence[int], classes: Sequence[str], size: Size, problems: Problems
    ) -> InMemoryImages:
        """Return the images in `files` with a label each; see :meth:`decode_files`."""
        pixels, kept = self.decode_files(files, labels, size, problems)
        return InMemoryImages(pixels, torch.tensor([labels[number] for number in kept]), tuple(classes))

    def decode_files(
        self, files: Sequence[Path], labels: Sequence[Any], size: Size, problems: Problems
    ) -> tuple[MappedRows | PackedPhotos, list[int]]:
        """Return images at `size`, a side or height and width, fitted as `fit` says.

        Args:
            files: of the images.
            labels: of each, by which copies are told from contradictions.
            size: side of a square, or height and width, in pixels.
            problems: to which files that cannot be used are added.

        Returns:
            The images that can be used, uint8 (K, 3, H, W), and their numbers in `files`.

        Raises:
            ValueError: if no file can be used.
        """
        sides = (size, size) if isinstance(size, int) else size
        ground = ground_of(self.preprocessing.mean or self.mean)  # as a prediction has it
        if self.store == "jpeg":
            stored = packed(files, self.cache_dir)
        else:
            sides = self.with_margin(sides)
            stored = photographs(files, sides, self.fit, ground, self.cache_dir)
        kept = self.usable(stored, labels, sides, problems)
        rows = torch.tensor(kept)
        if self.store == "jpeg":
            return PackedPhotos(stored.pixels, stored.facts, rows, sides, self.fit, ground), kept
        return MappedRows(stored.pixels.permute(0, 3, 1, 2), rows), kept

    def usable(self, stored: Stored, labels: Sequence[Any], sides: tuple[int, int], problems: Problems) -> list[int]:
        """Return the numbers of the images that can be used; settle `problems`, and say how images fit.

        Raises:
            ValueError: if no image can be used.
        """
        kept = stored.usable(problems)
        self.note_copies(stored, kept, labels, problems)
        self.settle(problems)
        if not kept:
            raise problems.nothing_left(len(labels))
        self.remember(stored, kept)
        self._say_fit(stored, kept, sides)
        return kept

    def with_margin(self, sides: tuple[int, int]) -> tuple[int, int]:
        """The size at which to keep squares, so that resized crops need not be enlarged much."""
        side = self.preprocessing.size or sides[0]
        if self._crop() is None or sides[0] != sides[1] or sides[0] < side:
            return sides
        self.preprocessing = replace(self.preprocessing, size=side)
        kept = max(sides[0], math.ceil(MARGIN * side))
        return kept, kept

    def note_copies(self, stored: Stored, kept: Sequence[int], labels: Sequence[Any], problems: Problems) -> None:
        """Note the files whose content equals that of another file, here or in a set that was read before."""
        first: dict[str, int] = {}
        for number in kept:
            facts = stored.facts[number]
            content, name = facts["content"], facts["name"]
            if content in self.contents:
                problems.note("images are copies of images of another set", f"{name} of {self.contents[content]}")
            if content in first:
                same = labels[number] == labels[first[content]]
                kind = "images are copies of others" + ("" if same else " with another label")
                problems.note(kind, f"{name} of {stored.facts[first[content]]['name']}")
            first.setdefault(content, number)
        self.contents.update({content: stored.facts[number]["name"] for content, number in first.items()})

    def remember(self, stored: Stored, kept: Sequence[int]) -> None:
        """Keep the names and sizes of the files of a split that are used."""
        self.files.append([stored.facts[number]["name"] for number in kept])
        self.sizes.append([tuple(stored.facts[number]["own"]) for number in kept])

    def _say_fit(self, stored: Stored, kept: Sequence[int], sides: tuple[int, int]) -> None:
        """Log once what becomes of images that have not the proportions of `sides`."""
        wanted = sides[1] / sides[0]
        aspects = [stored.facts[number]["own"][0] / stored.facts[number]["own"][1] for number in kept]
        seen = [min(aspect / wanted, wanted / aspect) for aspect in aspects]
        share = 100 * (1 - sum(seen) / len(seen))
        if self._fit_was_told or share < 1:
            return
        self._fit_was_told = True
        what = "largest central square" if sides[0] == sides[1] else "largest central part of that shape"
        words = {
            "crop": f"the {what} of each photograph is used, which leaves out {share:.0f} % of their area on average "
            "(data.fit=crop): data.fit=pad keeps all of it",
            "pad": "photographs are used whole, with plain margins (data.fit=pad)",
            "stretch": "photographs are used whole and stretched, their proportions are lost (data.fit=stretch)",
        }
        log.info("%s", words[self.fit])


def sides_of(image_size: Any) -> tuple[int, int] | None:
    """Height and width, given as such or as the side of a square; None if `image_size` is neither, in whole pixels."""
    sides = list(image_size) if isinstance(image_size, Sequence) else [image_size] * 2
    if len(sides) != 2 or not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in sides):
        return None
    return sides[0], sides[1]


def decoded_size(image_size: int | Sequence[int] | None, preprocessing: Preprocessing, default: int) -> Size:
    """Return the size in pixels at which photographs are decoded.

    Args:
        image_size: what the user asks for, a side or height and width; None takes the size of the network.
        preprocessing: of the network.
        default: for a network that takes any size.

    Raises:
        ValueError: if `image_size` is not one or two positive whole numbers.
    """
    if image_size is None:
        return preprocessing.size or default
    sides = sides_of(image_size)
    if sides is None:
        raise ValueError(
            f"data.image_size={image_size} must be 1 to {LARGEST_SIDE} pixels, [height,width], or null for the size of "
            "the network"
        )
    if sides[0] != sides[1]:
        return sides
    if preprocessing.size is not None and sides[0] < preprocessing.size:
        log.warning(
            "photographs are decoded at data.image_size=%s pixels and scaled up to the network's %s, which costs "
            "accuracy: data.image_size=null decodes them at its size",
            image_size,
            preprocessing.size,
        )
    return sides[0]
