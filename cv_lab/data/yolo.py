"""Boxes and polygons in text files, as YOLO's tools write them."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cv_lab.data.base import Split
from cv_lab.data.coco import Coco
from cv_lab.data.coco_json import CocoJson, Record
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.layout import image_files, split_folders
from cv_lab.data.pixels import opened
from cv_lab.data.problems import Problems

SLACK = 0.01  # by how much coordinates may lie beyond 0 and 1, by rounding; they are clipped


class Yolo(Coco):
    """Images with labels: ``data.yaml`` names classes and splits, ``labels/NAME.txt`` has a line for each object.

    A line is the number of a class and a box (centre, width, height) or a polygon, in shares of the image's sides. The
    labels of ``.../images/NAME.jpg`` are ``.../labels/NAME.txt``, or stand beside the image. An image with an empty
    file of labels, or without one, has no objects.

    Args:
        root: folder of ``data.yaml``, of another single yaml, or of ``images``.
        names: of the classes 0, 1, 2, ..., where no yaml gives them.
        classes: see :class:`~cv_lab.data.coco.Coco`; likewise `train_images` and `test_images`.
        options: see :class:`~cv_lab.data.masks.MaskData`.
    """

    targets = ("instances", "boxes")

    def __init__(
        self,
        root: str,
        names: Sequence[str] | None = None,
        classes: Sequence[str] | str | int | None = None,
        train_images: int | None = None,
        test_images: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, root, None, None, classes, train_images, test_images, **options)
        self.root, self.given = Path(root).expanduser(), names

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

    def splits(self) -> tuple[Split, ...]:
        return tuple(self.folders)

    def load(self, split: Split) -> InMemoryImages:
        self.sources = dict.fromkeys(self.folders, (self.root, self.root))
        return super().load(split)

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
            images = self.root / "images"
            apart = split_folders(images) or split_folders(self.root)
            found = {split: [path] for split, path in (apart or {"train": images}).items()}
        if missing := [path for path in found.get("train", [self.root]) if not path.exists()]:
            raise FileNotFoundError(
                f"there is no {missing[0]}, where the training images should be: data.root={self.root} is the folder "
                "of data.yaml, or of images and labels"
            )
        return {split: paths for split, paths in found.items() if all(path.exists() for path in paths)}

    def _json(self, split: Split) -> tuple[CocoJson, Problems]:
        if split not in self._read:
            problems = Problems(self.folders[split][0])
            images: dict[Any, Record] = {}
            annotations: dict[Any, list[Record]] = {}
            for path in _images(self.folders[split], problems):
                name = str(path)
                labels = _labels_of(path)
                if not labels.is_file():
                    problems.note("images have no file of labels, and count as images without objects", name)
                images[name] = {"id": name, "file_name": name, "size": None}
                annotations[name] = self._annotations(path, labels, problems) if labels.is_file() else []
            categories = [{"id": number, "name": name} for number, name in self.names.items()]
            self._read[split] = CocoJson(images, categories, annotations), problems
        return self._read[split]

    def _annotations(self, image: Path, labels: Path, problems: Problems) -> list[Record]:
        try:
            with opened(image) as photo:
                size = photo.size
        except (FileNotFoundError, ValueError):
            return []  # the image is dropped and counted when it is decoded
        found: list[Record] = []
        for number, line in enumerate(_text(labels).splitlines(), start=1):
            name = f"{labels}:{number}"
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
                one = {"name": name, "category_id": int(kind), **shape}
                if any({**one, "name": ""} == {**other, "name": ""} for other in found):
                    problems.drop("objects that are listed twice", name)
                else:
                    found.append(one)
        return found


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
    if names is None and (root / "classes.txt").is_file():
        names = [line.strip() for line in _text(root / "classes.txt").splitlines() if line.strip()]
    if names is None or isinstance(names, str) or not len(names):
        raise ValueError(f"nothing in {root} names the classes: give names in data.yaml, or data.names=[cat,dog]")
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return {int(number): str(name) for number, name in pairs}


def _place(base: Path, path: Any, given: str) -> Path:
    """Where a path of the yaml leads: from its "path", from its folder, or, as Roboflow writes, less a first ``..``."""
    starts = [*([base / str(path)] if path else []), base]
    names = [given, given.removeprefix("../")]
    candidates = [start / name for start in starts for name in names]
    return next((one for one in candidates if one.exists()), candidates[0])


def _images(places: Sequence[Path], problems: Problems) -> list[Path]:
    """The images of folders, and those that text files list."""
    found: list[Path] = []
    for place in places:
        if place.is_file():
            lines = [line.strip() for line in _text(place).splitlines() if line.strip()]
            found += [place.parent / line for line in lines]
        else:
            found += image_files(place, Problems(place))  # labels may stand among the images
    return list(dict.fromkeys(found))


def _labels_of(image: Path) -> Path:
    parts = list(image.parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        other = Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
        if other.is_file() or not image.with_suffix(".txt").is_file():
            return other
    return image.with_suffix(".txt")
