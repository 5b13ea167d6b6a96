"""Bring your own masks: a folder of images and a folder of masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cv_lab.data.base import Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.layout import image_files, split_folders
from cv_lab.data.mask_files import UNLABELLED, MaskFiles, Names, check_meaning
from cv_lab.data.masks import MaskData, class_names
from cv_lab.data.problems import Problems

FOLDERS = ("masks", "labels", "annotations", "gt")
ENDINGS = ("", "_mask", "-mask", "_masks", "_label", "_labels", "_seg", "_gt", "_L")  # behind the name of the image


class MaskFolder(MaskData):
    """Images ``root/{train,val,test}/images/NAME.jpg`` with masks ``root/{train,val,test}/masks/NAME.png``.

    ``root/images`` and ``root/masks`` serve as well. Validation and test sets that are missing are held out from the
    training set. A mask is a grey or palette image of its image's size whose pixels are classes, 255 meaning
    unlabelled, unless `values` or `colours` say otherwise.

    Args:
        root: folder of the splits, or of ``images`` and ``masks``.
        classes: names of the labels 0, 1, 2, ...; by default those of `values` or `colours`, or the lines of
            ``root/classes.txt``.
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

    def splits(self) -> tuple[Split, ...]:
        return tuple(self._folders())

    def load(self, split: Split) -> InMemoryImages:
        """Decode one split.

        Raises:
            FileNotFoundError: if there are no images, no masks, or no names of classes.
            ValueError: if masks cannot be used.
        """
        folder = self._folders()[split]
        if not (folder / "images").is_dir():
            raise FileNotFoundError(
                f"there is no folder {folder / 'images'}: data=mask_folder reads images and masks of data.root/train, "
                "data.root/val and data.root/test, or of data.root"
            )
        problems = Problems(folder)
        images = image_files(folder / "images", problems)
        if not images:
            raise FileNotFoundError(f"{folder / 'images'} holds no images")
        classes = self._classes()
        masks = MaskFiles(_masks_of(images, folder, problems), classes, self.values, self.colours)
        return self.decode(images, masks, classes, problems)

    def _folders(self) -> dict[Split, Path]:
        found = split_folders(self.root)
        return (
            found
            if "train" in found
            else {"train": self.root if (self.root / "images").is_dir() else self.root / "train"}
        )

    def _classes(self) -> Sequence[str]:
        path = self.root / "classes.txt"
        if self.given:
            return self.given
        if self.values is not None or self.colours is not None:
            named = self.values.values() if self.values is not None else (self.colours or {})
            return list(dict.fromkeys(str(name) for name in named if name not in (None, UNLABELLED)))
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no {path}, which names one class in each line: write it, or give "
                "data.classes=[background,cat,...]"
            )
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]


def _masks_of(images: Sequence[Path], folder: Path, problems: Problems) -> list[Path]:
    """The mask of each image; one that does not exist is called ``masks/NAME.png``."""
    masks = next((folder / name for name in FOLDERS if (folder / name).is_dir()), folder / FOLDERS[0])
    files = image_files(masks, problems) if masks.is_dir() else []
    by_name = {str(path.relative_to(masks).with_suffix("")): path for path in files}
    found = []
    for image in images:
        name = image.relative_to(folder / "images")
        stem = str(name.with_suffix(""))
        names = [str(name), *(stem + ending for ending in ENDINGS)]
        found.append(next((by_name[some] for some in names if some in by_name), masks / f"{stem}.png"))
    used = set(found)
    for path in files:
        if path not in used:
            problems.drop("masks without an image", str(path))
    if len(used) < len(found):
        twice = [str(path) for path in used if found.count(path) > 1]
        problems.note("masks belong to several images", ", ".join(sorted(twice)[:5]))
    return found
