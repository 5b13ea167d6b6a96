"""Read a COCO-format json, and drop with a count, or refuse, what cannot be used of it."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as rle

log = logging.getLogger(__name__)
SHOWN = 5  # examples of each problem in a message

Record = dict[str, Any]


class Problems:
    """What cannot be used of a file, by kind, with examples."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.found: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, example: str) -> None:
        self.found[kind].append(example)

    def settle(self, strict: bool) -> None:
        """Tell what was dropped, if anything.

        Raises:
            ValueError: instead, where `strict`.
        """
        if not self.found:
            return
        told = "; ".join(
            f"{len(examples)} {kind} ({', '.join(examples[:SHOWN])}{', ...' if len(examples) > SHOWN else ''})"
            for kind, examples in self.found.items()
        )
        if strict:
            raise ValueError(f"{self.source}: {told}. With data.strict=false they are dropped")
        log.warning("%s: dropped %s", self.source, told)


@dataclass(frozen=True)
class CocoJson:
    """What can be used of a json.

    Attributes:
        images: with "id", "file_name", "height" and "width", by id.
        categories: with "id" and "name".
        annotations: by the id of their image, of known categories and of some area. Their "segmentation" is a list of
            polygons of at least three points, or run lengths of the image's size.
    """

    images: dict[Any, Record]
    categories: list[Record]
    annotations: dict[Any, list[Record]]


def read_coco(path: Path, problems: Problems) -> CocoJson:
    """The content of `path`; what cannot be used is left out and added to `problems`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no json of that format, or has no images or categories.
    """
    content = _load(path)
    images = {image["id"]: image for image in _records(path, content, "images", ("id", "file_name", "height", "width"))}
    categories = list(_records(path, content, "categories", ("id", "name")))
    numbers = {category["id"] for category in categories}
    annotations: dict[Any, list[Record]] = defaultdict(list)
    for annotation in _records(path, content, "annotations", ("image_id", "category_id", "segmentation")):
        name = f"annotation {annotation.get('id', '?')}"
        if annotation["image_id"] not in images:
            problems.add("annotations of unknown images", f"{name}: image {annotation['image_id']}")
        elif annotation["category_id"] not in numbers:
            problems.add("annotations of unknown categories", f"{name}: category {annotation['category_id']}")
        else:
            image = images[annotation["image_id"]]
            usable = _usable(annotation, (image["height"], image["width"]), name, problems)
            if usable is not None:
                annotations[image["id"]].append(usable)
    if not images or not categories:
        raise ValueError(f"{path} is empty: it lists {len(images)} images and {len(categories)} categories")
    return CocoJson(images, categories, annotations)


def run_lengths(segmentation: Any, height: int, width: int) -> Record:
    """Compressed run lengths of size (height, width) of what an annotation calls its segmentation."""
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return rle.frPyObjects(segmentation, height, width)
    counts = segmentation["counts"]
    return {"size": segmentation["size"], "counts": counts.encode() if isinstance(counts, str) else counts}


def _usable(annotation: Record, size: tuple[int, int], name: str, problems: Problems) -> Record | None:
    """The annotation without what is wrong in it; None if nothing is left."""
    shape = annotation["segmentation"]
    if isinstance(shape, dict):
        if list(shape.get("size", ())) != list(size):
            problems.add("run-length masks of another size than their image", f"{name}: {shape.get('size')}")
            return None
    else:
        short = [polygon for polygon in shape if len(polygon) < 6 or len(polygon) % 2]
        shape = [polygon for polygon in shape if polygon not in short]
        if short or not shape:
            problems.add("polygons with fewer than 3 points", name)
        if not shape:
            return None
    box = annotation.get("bbox")
    if box is None:
        mask = run_lengths(shape, *size)
        box = rle.toBbox(mask).tolist()
    if len(box) != 4 or min(box[2:]) <= 0:
        problems.add("boxes of no area", f"{name}: {box}")
        return None
    return {**annotation, "segmentation": shape, "bbox": box}


def _load(path: Path) -> Record:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: annotations are a json of COCO's format, see data.train_json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON and of UTF-8
        raise ValueError(f"{path} is no whole json: {error}") from error
    missing = [key for key in ("images", "annotations", "categories") if key not in content]
    if not isinstance(content, dict) or missing:
        raise ValueError(f"{path} is not of COCO's format: it has no {', no '.join(missing) or 'keys'}")
    return content


def _records(path: Path, content: Record, kind: str, needed: Sequence[str]) -> Iterator[Record]:
    for number, record in enumerate(content[kind]):
        if missing := [key for key in needed if key not in record]:
            raise ValueError(f"{path} is not of COCO's format: {kind}[{number}] has no {', no '.join(missing)}")
        yield record
