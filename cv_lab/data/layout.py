"""Find image files and the folders of splits and classes in a data set of one's own."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
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

TABLES = {
    ".csv",
    ".tsv",
    ".json",
    ".txt",
    ".yaml",
    ".yml",
    ".xml",
    ".names",
    ".labels",
}  # whose contents may change within their size
UNCOMPRESSED = {".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".npy", ".npz"}


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


def contents(*paths: Path) -> str:
    """A hash of files and of all files in folders: their names, their sizes, and what tables and annotations hold.

    Names are relative to `paths`, and times are left out, so that it is the same for a copy elsewhere; but the size of
    an uncompressed image says nothing of its pixels, so that its time counts.
    """
    digest = hashlib.sha256()
    for number, path in enumerate(paths):
        for name in sorted(files_below(path)):
            file = path / name
            digest.update(f"{number} {name} ".encode(errors="surrogateescape"))
            try:
                stat = file.stat()
                if file.suffix.lower() in TABLES:
                    with open(file, "rb") as opened:
                        digest.update(hashlib.file_digest(opened, "sha256").digest())
                else:
                    time = stat.st_mtime_ns if file.suffix.lower() in UNCOMPRESSED else ""
                    digest.update(f"{stat.st_size} {time}".encode())
            except OSError:
                digest.update(b"missing")
    return digest.hexdigest()[:16]


def files_below(path: Path) -> Iterator[str]:
    """The names of files in a folder and its folders without hidden ones, relative to it; "" for a file itself."""
    if not path.is_dir():
        yield ""
        return
    for place, names in _walk(path):
        yield from (os.path.relpath(os.path.join(place, name), path) for name in names)


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder from `folder` down, links included, with the names of its files; without hidden ones."""
    seen: set[str] = set()  # of folders, since links may lead in circles
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not is_hidden(name)]
        if real not in seen:
            yield place, [name for name in names if not is_hidden(name)]
        seen.add(real)


def image_files(folder: Path, problems: Problems | None = None, deep: bool = True) -> list[Path]:
    """The image files in `folder` and, if `deep`, in its folders, links included, in natural order.

    Files of other kinds are added to `problems`, unless that is None; hidden ones are not looked at.
    """
    found: list[Path] = []
    for place, names in _walk(folder) if deep else [(str(folder), _file_names(folder))]:
        inside = Path(place)
        for name in names:
            path = inside / name
            if path.suffix.lower() in suffixes():
                found.append(path)
            elif problems is not None and not name.startswith("_"):  # as Roboflow's tables among images are called
                problems.drop("files that are not images of a known format", str(path))
    return sorted(found, key=lambda path: natural(str(path)))  # all begin with the folder


def _file_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file() and not is_hidden(path.name)]
