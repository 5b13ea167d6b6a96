"""Boxes and polygons in text files, as YOLO's tools write them."""

import contextlib
import logging
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cv_lab.data.base import Split
from cv_lab.data.coco_json import Record
from cv_lab.data.layout import SPLITS, image_files, split_folders
from cv_lab.data.mask_pairs import IMAGES, images_folder
from cv_lab.data.object_files import ObjectFiles
from cv_lab.data.pixels import opened
from cv_lab.data.problems import Problems
from cv_lab.text import listing

log = logging.getLogger(__name__)
LABELS = "labels"  # the folder of labels
CLASSES = ("classes.txt", "labels/classes.txt", "obj.names", "_darknet.labels")  # with a name in each line
PEEK = 100  # images whose labels say of what kind all are
SLACK = 0.01  # by how much coordinates may lie beyond 0 and 1, by rounding; they are clipped


class Yolo(ObjectFiles):
    """Images with labels: ``data.yaml`` names classes and splits, ``labels/NAME.txt`` has a line for each object.

    A line is the number of a class and a box (centre, width, height) or a polygon, in shares of the image's sides. The
    labels of ``.../images/NAME.jpg`` are ``.../labels/NAME.txt``, or stand beside the image. An image with an empty
    file of labels, or without one, has no objects.

    Args:
        root: folder of ``data.yaml``, of another single yaml, or of ``images``.
        names: of the classes 0, 1, 2, ..., where no yaml gives them.
        options: see :class:`~cv_lab.data.object_files.ObjectFiles`.
    """

    suffix = ".txt"
    empty_without_file = True

    def __init__(self, root: str, names: Sequence[str] | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        self.given = names

    @cached_property
    def content(self) -> dict[str, Any]:
        return _yaml(self.root)

    @cached_property
    def names(self) -> dict[int, str]:
        names = self.content.get("names") if self.given is None else self.given
        numbered = not isinstance(names, Mapping) or all(str(key).isdecimal() for key in names)
        if not numbered or not isinstance(names, Sequence | Mapping | None):
            raise ValueError(f"the names of classes in {self.root} are {names}: give a list, or a name for each number")
        return _names(self.content, self.given, self.root)

    @cached_property
    def images(self) -> dict[Split, list[Path]]:
        return {split: _images(places) for split, places in self.folders.items()}

    @cached_property
    def folders(self) -> dict[Split, list[Path]]:
        base = Path(self.content["_folder"])
        found: dict[Split, list[Path]] = {}
        for split in ("train", "val", "test"):
            given = self.content.get(split) or ()
            folders = [
                _place(base, self.content.get("path"), str(one))
                for one in ([given] if isinstance(given, str) else given)
            ]
            if folders and folders not in found.values():  # often the training set is named for all
                found[split] = folders
        if "train" not in found:
            images = images_folder(base) or base
            lists: dict[Split, Path] = {s: base / f"{name}.txt" for s, names in SPLITS.items() for name in names[::-1]}
            apart = split_folders(images) or split_folders(base)
            apart = apart or {split: path for split, path in lists.items() if path.is_file()}
            found = {split: [apart[split]] for split in apart} if "train" in apart else {"train": [images]}
        if missing := [path for path in found.get("train", [self.root]) if not path.exists()]:
            raise FileNotFoundError(
                f"there is no {missing[0]}, where the training images should be: data.root={self.root} is the folder "
                "of data.yaml, or of images and labels"
            )
        for split in [split for split, paths in found.items() if not all(path.exists() for path in paths)]:
            places = listing([str(path) for path in found.pop(split)])
            log.warning("%s: the %s set that data.yaml names is not there and is held out: %s", base, split, places)
        return found

    def categories(self, names: set[Any]) -> list[Record]:
        return [{"id": number, "name": name} for number, name in self.names.items()]

    def file_of(self, image: Path) -> Path | None:
        """The file with ``labels`` in place of the last folder of images in its path, or beside the image."""
        names = [image.with_suffix(".txt")]
        for k in (k for k, part in enumerate(image.parts[:-1]) if part.lower() in IMAGES):
            names.insert(0, Path(*image.parts[:k], LABELS, *image.parts[k + 1 :]).with_suffix(".txt"))
        return next((name for name in names if name.is_file()), None)

    def all_files(self) -> list[Path]:
        return [path for path in super().all_files() if LABELS in path.parts and path.name != CLASSES[0]]

    def line_lengths(self) -> set[int]:
        """How many numbers the lines of the first images' labels have: 5 for a box, more for a polygon."""
        files = [file for image in self.images["train"][:PEEK] if (file := self.file_of(image))]
        found = set()
        for line in (line for file in files for line in _text(file).splitlines()):
            with contextlib.suppress(ValueError):
                found.add(len(_numbers(line)))
        return found

    def objects_in(self, file: Path, image: Path, problems: Problems) -> tuple[Any, list[Record]]:
        try:
            with opened(image) as photo:
                size = photo.size
        except (FileNotFoundError, ValueError):
            return None, []  # the image is dropped and counted when it is decoded
        found: list[Record] = []
        for number, line in enumerate(_text(file).splitlines(), start=1):
            name = f"{file}:{number}"
            if not line.strip():
                continue
            try:
                kind, *values = _numbers(line)
            except ValueError:
                problems.drop("lines that are not numbers", name)
                continue
            if kind not in self.names:
                problems.drop("objects of unknown classes", f"{name}: {kind:g}, the classes are {len(self.names)}")
                continue
            if "kpt_shape" in self.content or len(values) == 5:  # keypoints or a confidence follow the box
                values = values[:4]
            if len(values) != 4 and (len(values) < 6 or len(values) % 2):
                problems.drop("lines that are neither a box nor a polygon", f"{name}: {len(values) + 1} numbers")
            elif not all(-SLACK <= value <= 1 + SLACK for value in values):
                problems.drop("objects whose coordinates are not shares of the image, 0 to 1", name)
            else:
                shape = _shape([min(max(value, 0.0), 1.0) for value in values], *size)
                found.append({"name": name, "category_id": int(kind), **shape})
        return None, found


def _shape(values: Sequence[float], width: int, height: int) -> Record:
    """A box or a polygon in shares as an annotation in pixels."""
    if len(values) > 4:
        return {"segmentation": [[v * (height if i % 2 else width) for i, v in enumerate(values)]]}
    x, y, w, h = values
    return {"bbox": [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]}


def _numbers(line: str) -> list[float]:
    """The finite numbers of a line, apart by spaces or by commas; between digits a comma may stand for a point."""
    parts = [part.strip(",;") for part in line.split()]
    if len(parts) >= 5 and "." not in line:
        parts = [part.replace(",", ".") for part in parts]
    numbers = [float(part) for part in " ".join(parts).replace(",", " ").replace(";", " ").split()]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("not finite")
    return numbers


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    return content.decode("utf-8-sig", errors="replace")


def _yaml(root: Path) -> dict[str, Any]:
    """The content of the yaml in `root`, and as "_folder" where its paths begin."""
    usual = [root / name for name in ("data.yaml", "data.yml", "dataset.yaml")]
    if root.is_file():
        usual, root = [root], root.parent
    some = [path for path in usual if path.is_file()] or sorted(root.glob("*.y*ml"))
    if len(some) != 1 and not any(path in usual for path in some):
        return {"_folder": str(root)}
    try:
        content = yaml.safe_load(_text(some[0]))
    except yaml.YAMLError as error:
        raise ValueError(f"{some[0]} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{some[0]} holds no keys: train, val and names are expected")
    return {**content, "_folder": str(root)}


def _names(content: dict[str, Any], given: Sequence[str] | None, root: Path) -> dict[int, str]:
    names = given if given is not None else content.get("names")
    for path in (root / name for name in CLASSES):
        if names is None and path.is_file():
            names = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if names is None or isinstance(names, str) or not len(names):
        raise ValueError(
            f"nothing in {root} names the classes: write classes.txt with a name in each line, or give names in "
            "data.yaml, or data=yolo data.names=[cat,dog]"
        )
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return {int(number): str(name) for number, name in pairs}


def _place(base: Path, path: Any, given: str) -> Path:
    """Where a path of the yaml leads: from its "path", from its folder, or, as Roboflow writes, less a first ``..``."""
    starts = [*([base / str(path)] if path else []), base]
    names = [given, given.removeprefix("../")]
    candidates = [start / name for start in starts for name in names]
    return next((one for one in candidates if one.exists()), candidates[0])


def _images(places: Sequence[Path]) -> list[Path]:
    """The images of folders, and those that text files list."""
    found: list[Path] = []
    for place in places:
        if place.is_file():
            lines = [line.strip() for line in _text(place).splitlines() if line.strip()]
            found += [_listed(place.parent, line.replace("\\", "/")) for line in lines]
        else:
            found += image_files(place)
    return list(dict.fromkeys(found))


def _listed(folder: Path, name: str) -> Path:
    """The file of a line, whose path may begin in another folder."""
    parts = Path(name).parts
    candidates = [folder / name, *(folder / Path(*parts[k:]) for k in range(1, len(parts)))]
    return next((path for path in candidates if path.is_file()), candidates[0])
