"""Find image files and the folders of splits and classes in a data set of one's own."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from cv_lab.data.base import Split
from cv_lab.data.pixels import suffixes
from cv_lab.data.problems import Problems

SPLITS: Mapping[Split, tuple[str, ...]] = {  # in any case
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
SYSTEM = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini"}


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to a system or an editor: ``.DS_Store``, ``._x.jpg``, ``.ipynb_checkpoints``."""
    return name.startswith(".") or name.lower() in SYSTEM


def natural(name: str) -> list[tuple[bool, int | str]]:
    """The key that sorts names as people do: ``2`` before ``10``."""
    return [(not part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"([0-9]+)", name) if part]


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, without hidden ones, in natural order."""
    found = (path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    return sorted(found, key=lambda path: natural(path.name))


def split_folders(root: Path) -> dict[Split, Path]:
    """The folders of `root` that are called like splits.

    Raises:
        ValueError: if two of them are the same split.
    """
    found: dict[Split, Path] = {}
    for path in subfolders(root) if root.is_dir() else ():
        for split, names in SPLITS.items():
            if path.name.lower() in names:
                if split in found:
                    raise ValueError(f"{found[split]} and {path} are both called like the {split} set: rename one")
                found[split] = path
    return {split: found[split] for split in SPLITS if split in found}


def image_files(folder: Path, problems: Problems, deep: bool = True) -> list[Path]:
    """The image files in `folder` and, if `deep`, in its folders, links included, in natural order.

    Files of other kinds are added to `problems`; hidden ones are not looked at.
    """
    found: list[Path] = []
    seen: set[str] = set()  # of folders, since links may lead in circles
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen or not deep else [name for name in folders if not is_hidden(name)]
        if real in seen:
            continue
        seen.add(real)
        for name in names:
            path = Path(place) / name
            if is_hidden(name):
                continue
            if path.suffix.lower() in suffixes():
                found.append(path)
            else:
                problems.drop("files that are not images of a known format", str(path))
    return sorted(found, key=lambda path: natural(str(path.relative_to(folder))))
