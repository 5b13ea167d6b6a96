"""Masks in image files: one number or one colour a pixel."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from cv_lab.data.pixels import ORIENTATION, upright
from cv_lab.data.problems import Unusable
from cv_lab.data.store import Facts, identities
from cv_lab.labels import IGNORE
from cv_lab.text import listing

READER = 1  # version of the labels that this module reads of a file: increase it with every change of them
UNLABELLED = "unlabelled"  # the name by which `values` and `colours` leave pixels out
BY_NUMBER = ("L", "P", "I", "I;16", "I;16B", "1")  # modes of masks that hold one number a pixel
MOST_LABELS = 256  # that are kept in the facts of one mask; JPEG makes hundreds

Names = Mapping[Any, str | None]


def check_meaning(values: Any, colours: Any) -> None:
    """Refuse what cannot say which class the pixels of masks are.

    Raises:
        ValueError: if both `values` and `colours` are given, or one of them is no mapping.
    """
    if values is not None and colours is not None:
        raise ValueError("data.values and data.colours are both given: masks hold numbers or colours, give one")
    for name, given, example in (
        ("values", values, "{0: background, 255: road}"),
        ("colours", colours, "{road: '#804080'}"),
    ):
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"data.{name}={given} must give the class of each of them: '{example}'")


def pixels_in(files: Sequence[Path], most: int = 16) -> list[int] | list[str]:
    """Return the numbers in masks, or their colours as "#rrggbb"; none if there are more than `most`.

    Masks that cannot be read are passed over.
    """
    numbers: set[int] = set()
    colours: set[int] = set()
    for file in files:
        try:
            with Image.open(file) as mask:
                bands = np.asarray(mask.convert("RGB")).astype(np.int64)
                if mask.mode in BY_NUMBER:
                    numbers |= set(np.unique(np.asarray(mask)).tolist())
        except Exception:  # Pillow's readers raise errors of many kinds on damaged files
            continue
        colours |= set(np.unique(bands @ (65536, 256, 1)).tolist())
    if numbers:
        return sorted(map(int, numbers)) if len(numbers) <= most else []
    return [f"'#{colour:06x}'" for colour in sorted(colours)] if len(colours) <= most else []


class MaskFiles:
    """Masks in files, see :class:`~cv_lab.data.masks.Masks`.

    A mask that is as large as its image is seen upright belongs to the upright image. One that is as large as the
    image's stored pixels, where EXIF turns these, was made from them and is turned with them. A mask that has EXIF's
    orientation itself is turned by that first.

    Args:
        files: of each image.
        classes: names of the classes 0 to K - 1.
        values: the class of each number of a pixel; None takes the number itself, and `IGNORE` for unlabelled.
        colours: the class of each colour, [red, green, blue] or "#rrggbb", by its name; instead of numbers.

    Raises:
        ValueError: if `values` or `colours` name other classes.
    """

    def __init__(
        self, files: Sequence[Path], classes: Sequence[str], values: Names | None = None, colours: Names | None = None
    ) -> None:
        self.files = files
        self.values = (
            None if values is None else {whole(value): _number(name, classes) for value, name in values.items()}
        )
        self.colours = None if colours is None else _colours(colours, classes)
        told = [None if some is None else sorted(some.items()) for some in (self.values, self.colours)]
        self.key: dict[str, Any] = {"masks": identities(files), "mask_reader": READER, "values": told}

    def read(self, number: int, image: Facts) -> tuple[NDArray[np.uint8], Facts]:
        path = self.files[number]
        if not os.path.isfile(path):
            raise Unusable("missing masks", f"there is no mask {path}")
        with opened_mask(path) as mask:
            labels, facts = self._labels(mask, path)
        size = [labels.shape[1], labels.shape[0]]
        if size != image["own"] and size == image["stored"]:
            labels = np.asarray(upright(Image.fromarray(labels), image["orientation"]))
        elif size != image["own"]:
            raise Unusable(
                "masks of another size than their image",
                f"{path} is {size[0]} x {size[1]} pixels, its image {image['own'][0]} x {image['own'][1]}",
            )
        return labels, {**facts, "name": str(path)}

    def _labels(self, mask: Image.Image, path: Path) -> tuple[NDArray[np.uint8], Facts]:
        """Classes of the pixels, with `IGNORE` for what is no class, and the numbers or colours that occur."""
        if self.colours is not None:
            return _by_table(np.asarray(mask.convert("RGB")).astype(np.int64) @ (65536, 256, 1), self.colours)
        facts: Facts = {}
        numbers = pixel_numbers(mask, path)
        if mask.mode == "P":
            palette = np.reshape(mask.getpalette("RGB") or [], (-1, 3)).tolist()
            facts["palette"] = {int(k): palette[k] for k in np.unique(numbers) if k < len(palette)}
        labels, told = _by_table(numbers.astype(np.int64), self.values)
        return labels, {**facts, **told}

    def check(self, facts: Sequence[Facts], classes: Sequence[str]) -> None:
        """See :class:`~cv_lab.data.masks.Masks`.

        Raises:
            ValueError: if a number or colour is of no class, the masks hold 0 and 255 alone, or one number has another
                meaning in another file's palette.
        """
        table: Mapping[int, int] | None = self.values if self.colours is None else self.colours
        known = {*range(len(classes)), IGNORE} if table is None else set(table)
        wrong = [(told["name"], sorted(set(told["labels"]) - known)) for told in facts]
        wrong = [(name, labels) for name, labels in wrong if labels]
        seen = {label for told in facts for label in told["labels"]}
        if table is None and seen == {0, IGNORE}:
            raise ValueError(
                f"the masks hold 0 and {IGNORE} only ({facts[0]['name']}), and {IGNORE} means unlabelled, so that "
                "there would be one class to learn: name what they mean with "
                f"'data.values={{0: {classes[0]}, {IGNORE}: {classes[-1] if len(classes) > 1 else 'NAME'}}}'"
            )
        if wrong:
            raise ValueError(self._message(wrong, len(facts), classes))
        if table is None:
            _refuse_permuted_palettes(facts, classes)

    def _message(self, wrong: Sequence[tuple[str, list[int]]], count: int, classes: Sequence[str]) -> str:
        def text(label: int) -> str:
            return f"#{label:06x}" if self.colours is not None else str(label)

        names = "; ".join(f"{name} has label {listing([text(k) for k in some])}" for name, some in wrong[:5])
        start = f"{len(wrong)} of {count} masks have labels of no class: {names}"
        if any(len(some) > 20 for _, some in wrong) and wrong[0][0].lower().endswith((".jpg", ".jpeg")):
            return f"{start}: JPEG changes the labels of pixels, so that masks must be PNG files"
        if self.colours is not None:
            return f"{start}: name them in data.colours, as '{UNLABELLED}' where pixels should not count"
        if self.values is not None:
            return f"{start}: name them in data.values, as '{UNLABELLED}' where pixels should not count"
        known = "is 1 class, 0" if len(classes) == 1 else f"are {len(classes)} classes, 0 to {len(classes) - 1}"
        return (
            f"{start}, but there {known}, and {IGNORE} for unlabelled: name the class of every label, the background "
            "too, or say which label is which class with 'data.values={0: background, 100: road}'"
        )


@contextlib.contextmanager
def opened_mask(path: Path) -> Iterator[Image.Image]:
    """Open a mask, turned upright if it has EXIF's orientation itself.

    Raises:
        Unusable: if it cannot be decoded, here or in the block that uses it.
    """
    try:
        with Image.open(path) as mask:
            yield upright(mask, mask.getexif().get(ORIENTATION, 1)) if mask.format != "TIFF" else mask
    except Unusable:
        raise
    except Exception as error:  # Pillow's readers raise errors of many kinds on damaged files
        raise Unusable("damaged masks", f"{path} cannot be decoded: {error}") from error


def pixel_numbers(mask: Image.Image, path: Path) -> NDArray[Any]:
    """The number of each pixel, of an integer type, (H, W).

    Raises:
        Unusable: if pixels are colours.
    """
    if mask.mode in BY_NUMBER:
        return np.asarray(mask)
    bands = np.asarray(mask.convert("RGB"))
    if mask.mode not in ("LA", "RGB", "RGBA") or (bands != bands[:, :, :1]).any():
        raise Unusable(
            "masks in colours",
            f"{path} is saved as {mask.mode}: a mask holds one number a pixel, the class, in a grey or palette "
            "image; for colours, give data.colours={road: [128,64,128], ...}",
        )
    return bands[:, :, 0]


def _by_table(numbers: NDArray[np.int64], table: Mapping[int, int] | None) -> tuple[NDArray[np.uint8], Facts]:
    """Classes of `numbers`, with `IGNORE` for those of none, and the numbers that occur."""
    if numbers.min() >= 0 and numbers.max() < 65536:  # several times as fast as sorting them
        found, places = np.flatnonzero(np.bincount(numbers.ravel())), numbers
        classes = np.full(int(found.max()) + 1, IGNORE, np.uint8)
        slots = found
    else:
        found, places = np.unique(numbers, return_inverse=True)
        classes, slots = np.full(len(found), IGNORE, np.uint8), np.arange(len(found))
    known = {k: k for k in found.tolist() if 0 <= k < IGNORE} if table is None else table
    classes[slots] = [known.get(k, IGNORE) for k in found.tolist()]
    return classes[places].reshape(numbers.shape), {"labels": found[:MOST_LABELS].tolist()}


def whole(value: Any, option: str = "values") -> int:
    """Return the number of a pixel that an option names.

    Raises:
        ValueError: if it is none.
    """
    try:
        return int(value)
    except (ValueError, TypeError):
        raise ValueError(f"data.{option} names {value!r}, but masks hold whole numbers: '{{1: road}}'") from None


def _number(name: str | None, classes: Sequence[str]) -> int:
    if name is None or name == UNLABELLED:
        return IGNORE
    if str(name) not in classes:
        raise ValueError(
            f"data.values or data.colours names {name}, but the classes are {', '.join(classes)}: name one of them, "
            f"or '{UNLABELLED}'"
        )
    return list(classes).index(str(name))


def _colours(colours: Names, classes: Sequence[str]) -> dict[int, int]:
    """The class of each colour, as red * 65536 + green * 256 + blue."""
    numbers: dict[int, int] = {}
    for name, colour in colours.items():
        try:
            red, green, blue = ImageColor.getrgb(colour)[:3] if isinstance(colour, str) else map(int, colour or ())
        except (ValueError, TypeError):
            raise ValueError(f"data.colours has {colour} for {name}: give [red, green, blue] or '#rrggbb'") from None
        number = red * 65536 + green * 256 + blue
        if numbers.setdefault(number, kind := _number(name, classes)) != kind:
            raise ValueError(
                f"the colour #{number:06x} is given for several classes, {name} among them: give it to one"
            )
    return numbers


def _refuse_permuted_palettes(facts: Sequence[Facts], classes: Sequence[str]) -> None:
    """Refuse palettes of which one colour has several numbers: an editor sorts them by frequency, for one."""
    colours: dict[str, dict[tuple[int, ...], str]] = defaultdict(dict)  # of each number, with a file that has it
    numbers: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for told in facts:
        palette = {str(number): tuple(colour) for number, colour in told.get("palette", {}).items()}
        if len(set(palette.values())) < len(palette):
            continue  # it says nothing of the classes
        for number, colour in palette.items():
            colours[number].setdefault(colour, told["name"])
            numbers[colour].add(number)
    for number, some in colours.items():
        if len(some) > 1 and any(len(numbers[colour]) > 1 for colour in some):
            (one, here), (other, there), *_ = some.items()
            raise ValueError(
                f"the palettes of the masks differ: label {number} is the colour {list(one)} in {here} and "
                f"{list(other)} in {there}, so that labels do not mean the same class. Give the colours of the "
                f"classes, data.colours={{{classes[0]}: [0,0,0], ...}}, or the meaning of the labels, data.values"
            )
