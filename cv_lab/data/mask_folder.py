"""Bring your own masks: a folder of images and a folder of masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cv_lab.data.base import Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.layout import contents
from cv_lab.data.mask_files import UNLABELLED, MaskFiles, Names, check_meaning, pixels_in
from cv_lab.data.mask_pairs import listed_names, mask_sets, names_beside, names_of, pairs
from cv_lab.data.masks import MaskData, class_names
from cv_lab.data.problems import Problems

LOOKED_AT = 5  # masks whose pixels a refusal names


class MaskFolder(MaskData):
    """Images ``root/{train,val,test}/images/NAME.jpg`` with masks ``root/{train,val,test}/masks/NAME.png``.

    Many other layouts serve as well: ``root/images/train`` and ``root/masks/train``, ``root/images`` and
    ``root/masks`` alone, masks beside their images, Pascal VOC's with its lists; see
    :mod:`~cv_lab.data.mask_pairs`. Validation and test sets that are missing are held out from the training set. A mask
    is a grey or palette image of its image's size whose pixels are classes, 255 meaning unlabelled, unless `values` or
    `colours` say otherwise.

    Args:
        root: folder of the splits, or of ``images`` and ``masks``.
        classes: names of the labels 0, 1, 2, ...; by default those of `values` or `colours`, or what a file of names in
            `root` says, such as ``classes.txt`` with a name in each line.
        values: the class of each number of a mask's pixel, {0: background, 255: road}; "unlabelled" leaves pixels out.
        colours: the class of each colour, {road: [128, 64, 128]} or {road: "#804080"}, instead of numbers.
        options: see :class:`~cv_lab.data.masks.MaskData`.
    """

    def __init__(
        self,
        root: str,
        classes: Sequence[str] | str | None = None,
        values: Names | None = None,
        colours: Names | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.given = Path(root).expanduser(), class_names(classes or ())
        self.values, self.colours = values, colours
        check_meaning(values, colours)

    def fingerprint(self) -> str:
        return contents(self.root)

    def splits(self) -> tuple[Split, ...]:
        return tuple(listed_names(self.root)) or tuple(self._sets())

    def load(self, split: Split) -> InMemoryImages:
        """Decode one split.

        Raises:
            FileNotFoundError: if there are no images, no masks, or no names of classes.
            ValueError: if masks cannot be used.
        """
        sets, lists = self._sets(), listed_names(self.root)
        images, masks = sets["train" if lists else split]
        problems = Problems(images.parent)
        found = pairs(images, masks, problems if not lists else Problems(images))
        if lists:
            found = _of_names(found, images, lists[split], problems)
            if not found:
                raise problems.nothing_left(len(lists[split]))
        if not found:
            raise FileNotFoundError(f"{images} holds no images")
        try:
            classes, values, colours = self._meaning()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}{_example([mask for _, mask in found[:LOOKED_AT]])}") from None
        files = MaskFiles([mask for _, mask in found], classes, values, colours)
        return self.decode([image for image, _ in found], files, classes, problems)

    def _sets(self) -> dict[Split, tuple[Path, Path]]:
        sets = mask_sets(self.root)
        if "train" not in sets:
            there = f"{self.root} holds" if self.root.is_dir() else f"there is no folder {self.root}, and so"
            raise FileNotFoundError(
                f"{there} no images with masks to train on: data=mask_folder reads data.root/train/images and "
                "data.root/train/masks, val and test likewise, or data.root/images and data.root/masks"
            )
        return sets

    def _meaning(self) -> tuple[Sequence[str], Names | None, Names | None]:
        """The names of the classes, and the class of each number or colour."""
        if self.given:
            return self.given, self.values, self.colours
        if self.values is not None or self.colours is not None:
            return _named_in(self.values, self.colours), self.values, self.colours
        return meaning(self.root)


def meaning(root: Path, classes: Sequence[str] = ()) -> tuple[Sequence[str], Names | None, Names | None]:
    """The names of classes, and the class of each number or colour, as a file in `root` says.

    Args:
        root: see :func:`~cv_lab.data.mask_pairs.names_beside`.
        classes: names for masks without such a file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it gives two classes one name.
    """
    found, values, colours = names_beside(root)
    if values is not None or colours is not None:
        return _named_in(values, colours), values, colours
    if not (found or classes):
        raise FileNotFoundError(
            f"there is no {root / 'classes.txt'}, which names one class in each line: write it, or give "
            "data.classes=[background,cat,...]"
        )
    return class_names(found or classes), None, None


def _named_in(values: Names | None, colours: Names | None) -> list[str]:
    named = values.values() if values is not None else (colours or {})
    return list(dict.fromkeys(str(name) for name in named if name not in (None, UNLABELLED)))


def _of_names(
    found: Sequence[tuple[Path, Path]], images: Path, names: Sequence[str], problems: Problems
) -> list[tuple[Path, Path]]:
    """The pairs whose images a list names, with or without their suffixes."""
    by_name, masks = names_of([image for image, _ in found], images), dict(found)
    for name in names:
        if name not in by_name:
            problems.drop("names of the list without an image", name)
    return [(by_name[name], masks[by_name[name]]) for name in names if name in by_name]


def _example(masks: Sequence[Path]) -> str:
    """What some masks hold, and the option that names it."""
    found = pixels_in(masks)
    if not found:
        return ""
    option = "colours" if isinstance(found[0], str) else "values"
    return (
        f". The first of the masks hold {', '.join(map(str, found))}: 'data.{option}="
        f"{{{', '.join(f'{value}: NAME' for value in found)}}}' names the class of each, {UNLABELLED} where pixels "
        "count nowhere"
    )
