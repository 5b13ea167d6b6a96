"""Bring your own images: a folder of folders, one for each class."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cv_lab.data.base import Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.layout import SPLITS, contents, image_files, split_folders, subfolders
from cv_lab.data.photos import PhotoData, decoded_size
from cv_lab.data.problems import Problems


class ImageFolder(PhotoData):
    """Images under ``root/train/CLASS/``, ``root/val/CLASS/`` and ``root/test/CLASS/``, decoded once.

    ``root/CLASS/`` serves as well. Validation and test sets that are missing are held out from the training set. The
    classes are the folders of the training set, in natural order.

    Args:
        root: folder of the splits (``training``, ``valid``, ``validation`` and ``testing`` will do, in any case), or of
            the classes.
        image_size: side in pixels; the largest central square of an image is scaled to it. None takes the size of
            the network, or 64 for one that takes any.
        options: see :class:`~cv_lab.data.photos.PhotoData`.
    """

    def __init__(self, root: str, image_size: int | Sequence[int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.root = Path(root).expanduser()
        self.image_size = decoded_size(image_size, self.preprocessing, default=64)

    def splits(self) -> tuple[Split, ...]:
        return tuple(split for split, folder in self._folders().items() if split == "train" or subfolders(folder))

    def load(self, split: Split) -> InMemoryImages:
        """Decode one split.

        Raises:
            FileNotFoundError: if the split's folder is missing, or holds no images.
            ValueError: if a class of the training set has no image that can be used, the training set has fewer than
                two classes, or another split has a class that the training set lacks.
        """
        folder, trained = self._folders()[split], self._folders()["train"]
        classes = [path.name for path in subfolders(trained)]
        if len(classes) == 1:
            raise ValueError(
                f"{trained} holds the folder of one class, {classes[0]}: give data.root the folder above "
                "the folders of at least two classes, or of train and test"
            )
        if unknown := {path.name for path in subfolders(folder)} - set(classes):
            raise ValueError(f"{folder} has classes that {trained} lacks: {', '.join(sorted(unknown))}")
        problems = Problems(folder)
        files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in (image_files(folder / name, problems) if (folder / name).is_dir() else ())
        ]
        for path in unused_beside(self.root) if split == "train" else ():
            problems.note("folders with images beside the sets are not used", str(path))
        for path in self._beside(folder):
            problems.drop("files that are in no folder of a class", str(path))
        if not files:
            problems.settle(strict=False)
            raise FileNotFoundError(f"{folder} holds no images in folders of classes")
        if split == "train":
            _refuse_empty([label for _, label in files], classes, folder, "give them some, or remove their folders")
        found = self.decode_labelled(
            [path for path, _ in files], [label for _, label in files], classes, self.image_size, problems
        )
        if split == "train":
            _refuse_empty(found.labels.tolist(), classes, folder, "none of their files can be used")
        return found

    def fingerprint(self) -> str:
        return contents(self.root)

    def _folders(self) -> dict[Split, Path]:
        found = class_sets(self.root)
        if not found:
            raise FileNotFoundError(
                f"there is no folder {self.root / 'train'}: data=folder reads data.root/train/CLASS and, where "
                "they exist, data.root/val/CLASS and data.root/test/CLASS; or data.root/CLASS alone"
            )
        return found

    def _beside(self, folder: Path) -> list[Path]:
        return image_files(folder, deep=False)


def class_sets(root: Path) -> dict[Split, Path]:
    """The folder of each split below which the folders of classes lie; `root` itself where it holds classes.

    Empty if there is no training set.

    Raises:
        ValueError: if folders are called like sets in a way that is not known, and would be taken for classes.
    """
    found = split_folders(root)
    if not found and len(alike := _like_sets(root)) > 1:
        raise ValueError(
            f"{root} holds {' and '.join(alike.values())}, which look like sets and not like classes: "
            f"rename them to {' and '.join(alike)}"
        )
    if "train" in found:
        others = [path for path in subfolders(root) if path not in found.values()]
        # Images right in ``train``, beside folders of other names: it is a class of vehicles.
        if others and not subfolders(found["train"]) and image_files(found["train"]):
            return {"train": root}
        return found
    return {"train": root} if not found and root.is_dir() and subfolders(root) else {}


def unused_beside(root: Path) -> list[Path]:
    """The folders beside those of the sets that hold images."""
    sets = class_sets(root).values()
    return [path for path in subfolders(root) if root not in sets and path not in sets and image_files(path)]


def _like_sets(root: Path) -> dict[Split, str]:
    """The folders with the name of a split among other words, ``seg_train``; empty without one of the training set."""
    words = {
        path.name: set(re.split("[^a-z]+", path.name.lower())) for path in (subfolders(root) if root.is_dir() else ())
    }
    found = {split: name for split, names in SPLITS.items() for name, some in words.items() if some.intersection(names)}
    return found if "train" in found else {}


def _refuse_empty(labels: list[int], classes: list[str], folder: Path, remedy: str) -> None:
    if empty := [name for number, name in enumerate(classes) if number not in set(labels)]:
        raise ValueError(f"{folder} has classes without images: {', '.join(empty)}; {remedy}")
