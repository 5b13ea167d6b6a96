"""Read COCO json tolerantly: drop, with a count, what cannot be used of it.

Reading looks at ids, names and presence only. The masks of an annotation are looked at once the size of its image is
known, by :func:`mask_of`, and only for images that are used.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from cv_lab.data.problems import Problems, Unusable

Record = dict[str, Any]
RunLengths = dict[str, Any]  # "size", height and width, and "counts", bytes, as pycocotools has them
Polygon = list[float]  # x and y of each point in turn
Drop = Callable[[str, str], None]  # takes the kind of a problem and an example


@dataclass(frozen=True)
class CocoJson:
    """What can be used of a json.

    Attributes:
        images: with "id", "file_name" and "size", height and width or None, by id.
        categories: with "id" and "name"; several may have one name.
        annotations: by the id of their image, of known categories; with "name" for messages, "category_id",
            "segmentation", "bbox", "area" and "iscrowd".
    """

    images: dict[Any, Record]
    categories: list[Record]
    annotations: dict[Any, list[Record]]


def read_coco(path: Path, problems: Problems, content: Record | None = None) -> CocoJson:
    """Return what can be used of a json; the rest is added to `problems`.

    Args:
        path: of the json.
        problems: of it.
        content: of the file, where it has been parsed; it is changed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not json of that format, or has no images or categories.
    """
    content = _load(path) if content is None else content
    images = _images(path, content, problems)
    categories = [
        {**category, "name": str(category["name"]).strip()}
        for category in _records(path, content, "categories", ("id", "name"), problems)
    ]
    known = {category["id"] for category in categories}
    annotations: dict[Any, list[Record]] = defaultdict(list)
    for annotation in _records(path, content, "annotations", ("image_id", "category_id"), problems):
        name = f"annotation {annotation.get('id', '?')}"
        if annotation["image_id"] not in images:
            problems.drop("annotations of unknown images", f"{name}: image {annotation['image_id']}")
        elif annotation["category_id"] not in known:
            problems.drop("annotations of unknown categories", f"{name}: category {annotation['category_id']}")
        else:
            annotation["name"] = name
            annotations[annotation["image_id"]].append(annotation)
    if not images or not categories:
        raise ValueError(f"{path} is empty: it lists {len(images)} images and {len(categories)} categories")
    used = {annotation["category_id"] for some in annotations.values() for annotation in some}
    for category in _placeholders(categories, used):
        problems.note("categories are placeholders of no object, and are no classes", category["name"])
        categories.remove(category)
    return CocoJson(images, categories, annotations)


def _images(path: Path, content: Record, problems: Problems) -> dict[Any, Record]:
    """The images by their ids; those of one id are left out if their files differ, for whose objects would be whose?"""
    images: dict[Any, Record] = {}
    shared: set[Any] = set()
    for image in _records(path, content, "images", ("id", "file_name"), problems):
        id, size = image["id"], (number_of(image.get("height")), number_of(image.get("width")))
        if id not in images:
            images[id] = {**image, "size": size if all(size) else None}
        elif images[id]["file_name"] == image["file_name"]:
            problems.drop("images that are listed twice", f"{image['file_name']}: {id}")
        else:
            problems.drop("images whose id another image has", f"{image['file_name']}: {id}")
            shared.add(id)
    for id in shared:
        problems.drop("images whose id another image has", f"{images[id]['file_name']}: {id}")
        del images[id]
    return images


def _placeholders(categories: Sequence[Record], used: set[Any]) -> list[Record]:
    """Categories that Roboflow adds: without objects, of the supercategory "none", and the supercategory of others."""
    above = {category.get("supercategory") for category in categories}
    return [
        category
        for category in categories
        if category["id"] not in used and category.get("supercategory") == "none" and category["name"] in above
    ]


def mask_of(annotation: Record, height: int, width: int, drop: Drop) -> tuple[list[Polygon] | None, RunLengths]:
    """Return the polygons, None if it has run lengths, and the run lengths of an annotation.

    Args:
        annotation: of :func:`read_coco`.
        height: of its image.
        width: of its image.
        drop: is told of polygons that are left out of the rest.

    Raises:
        Unusable: if nothing is left.
    """
    shape, name = annotation.get("segmentation"), annotation["name"]
    if not shape:
        raise Unusable("objects without a mask", name)
    try:
        if isinstance(shape, dict):
            polygons, mask = None, _run_lengths(shape, height, width, name)
        else:
            polygons = list(_polygons(shape, height, width, name, drop))
            if not polygons:
                raise Unusable("", name)  # its polygons were counted one by one
            mask = run_lengths(polygons, height, width)
        if not rle.area(mask):
            raise Unusable("objects that cover no pixel of their image", name)
        return polygons, mask
    except Unusable:
        raise
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:
        raise Unusable("masks that cannot be read", f"{name}: {error}") from error


def run_lengths(polygons: Sequence[Polygon], height: int, width: int) -> RunLengths:
    """Compressed run lengths of all `polygons` together."""
    return rle.merge(rle.frPyObjects(polygons, height, width))


def box_of(annotation: Record, mask: RunLengths) -> tuple[list[float], bool]:
    """Return the box of an annotation as x, y, width and height, and whether it is the mask's and not its own.

    Published boxes are taken from polygons before rounding, so those within 4 pixels or a tenth of the mask's are kept.
    """
    drawn = rle.toBbox(mask).tolist()
    box = annotation.get("bbox")
    if box is None:
        return drawn, False
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError):
        return drawn, True
    sides = [(x, drawn[0], drawn[2]), (x + width, drawn[0] + drawn[2], drawn[2])]
    sides += [(y, drawn[1], drawn[3]), (y + height, drawn[1] + drawn[3], drawn[3])]
    if width > 0 and height > 0 and all(abs(own - seen) <= max(4, length / 10) for own, seen, length in sides):
        return [x, y, width, height], False
    return drawn, True


def box_alone(annotation: Record, height: int, width: int) -> tuple[list[float], bool]:
    """The part of an annotation's own box within its image, as x, y, width and height, and whether much is cut off.

    Much is what rounding does not explain: a tenth of a side and more than 4 pixels. Boxes whose corners were taken for
    their sizes are cut so.

    Raises:
        Unusable: if there is none.
    """
    name = annotation["name"]
    try:
        x, y, w, h = map(float, annotation.get("bbox") or ())
    except (TypeError, ValueError):
        raise Unusable("objects without a mask or a box", name) from None
    if not np.isfinite([x, y, w, h]).all() or w <= 0 or h <= 0:
        raise Unusable("boxes of no area", f"{name}: {annotation['bbox']}")
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if left >= right or top >= bottom:
        raise Unusable("boxes outside of their image", f"{name}: {annotation['bbox']}")
    cut = any(own - seen > max(4, own / 10) for own, seen in ((w, right - left), (h, bottom - top)))
    return [left, top, right - left, bottom - top], cut


def area_of(annotation: Record, mask: RunLengths) -> float:
    """The area that an annotation gives, or that of its mask; one below 0 would be judged in no range of sizes."""
    area = number_of(annotation.get("area"))
    return float(rle.area(mask)) if area is None or area < 0 else area


def is_crowd(annotation: Record) -> bool:
    return bool(number_of(annotation.get("iscrowd")) or 0)


class ImageFinder:
    """Finds the files that a json names, as annotation tools write them.

    Args:
        folder: of the images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Path | None] | None = None  # of files, and without their endings; None if several have it

    def __call__(self, file_name: Any) -> Path:
        """The file of that name in the folder; else of its last part, whatever its case, or without its ending.

        A name with ``\\`` for ``/``, or with ``%20`` for a space, is understood.
        """
        given = str(file_name)
        for name in dict.fromkeys((given, given.replace("\\", "/"), unquote(given.replace("\\", "/")))):
            if os.path.isfile(self.folder / name):
                return self.folder / name
        last = unquote(given.replace("\\", "/")).rpartition("/")[2].lower()
        return self._index().get(last) or self.folder / given

    def _index(self) -> dict[str, Path | None]:
        if self.names is None:
            self.names = {}
            for path in sorted(self.folder.rglob("*")) if self.folder.is_dir() else ():
                for name in (path.name.lower(), path.stem.lower()):
                    self.names[name] = None if name in self.names and self.names[name] != path else path
        return self.names


def _polygons(shape: Any, height: int, width: int, name: str, drop: Drop) -> Iterator[Polygon]:
    """Polygons of at least three points, also from a flat list of numbers or from pairs of them."""
    if isinstance(shape[0], int | float | str):
        shape = [shape]
    elif all(isinstance(point, list) and len(point) == 2 for point in shape):
        shape = [[number for point in shape for number in point]]
    for polygon in shape:
        if polygon and isinstance(polygon[0], list):
            polygon = [number for point in polygon for number in point]
        if len(polygon) < 6 or len(polygon) % 2:
            drop("polygons with fewer than 3 points", name)
            continue
        points: NDArray[np.float64] = np.array(polygon, np.float64).reshape(-1, 2)
        # One that is not finite, or huge, would take all memory.
        if not (np.abs(points - (width / 2, height / 2)) <= (1.5 * width, 1.5 * height)).all():
            drop("polygons with coordinates far outside of their image", name)
            continue
        yield points.flatten().tolist()


def _run_lengths(shape: Record, height: int, width: int, name: str) -> RunLengths:
    if list(shape["size"]) != [height, width]:
        raise Unusable("run-length masks of another size than their image", f"{name}: {shape['size']}")
    counts = shape["counts"]
    if isinstance(counts, list):
        counts = [int(count) for count in counts]
        if min(counts) < 0 or sum(counts) != height * width:
            raise ValueError(f"its run lengths make up {sum(counts)} pixels instead of {height * width}")
        return rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    mask = {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
    rle.decode(mask)  # raises a ValueError where the runs do not fit
    return mask


def _load(path: Path) -> Record:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}: annotations are a json of COCO's format, see data.train_json; for a data "
            "set without a test set, data.test_json=null holds one out"
        )
    try:
        content = json.loads(path.read_bytes())  # in any of Unicode's encodings, with its mark or without
    except (ValueError, RecursionError) as error:  # of JSON and of encodings, and of deep nesting
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not of COCO's format: it holds no keys, but {type(content).__name__}")
    if missing := [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]:
        raise ValueError(f"{path} is not of COCO's format: it has no {', no '.join(missing)}")
    return content


def _records(path: Path, content: Record, kind: str, needed: Sequence[str], problems: Problems) -> Iterator[Record]:
    """Records that have what is `needed`, with ids that are numbers where they can be."""
    lacking = 0
    for number, record in enumerate(content[kind]):
        missing = [key for key in needed if record.get(key) is None] if isinstance(record, dict) else ["keys"]
        if missing:
            lacking += 1
            problems.drop(f"records of {kind} without {', '.join(missing)}", f"{kind}[{number}]")
            continue
        for key in needed:
            if key.endswith("id"):
                record[key] = _id(record[key])
        yield record
    if lacking and lacking == len(content[kind]):
        raise ValueError(f"{path} is not of COCO's format: {kind}[0] has no {', no '.join(missing)}")


def _id(value: Any) -> Any:
    """An id as a number, if it is one: tools write 1, 1.0 and "1" for the same."""
    if type(value) is int:
        return value
    number = number_of(value)
    return int(number) if number is not None and number == int(number) else str(value)


def number_of(value: Any) -> Any:
    """A finite number, whole if it can be, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if not np.isfinite(number):
        return None
    return int(number) if number == int(number) else number
