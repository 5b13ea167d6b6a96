"""Polygons, rectangles and circles in JSON files, as labelme writes them beside images."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from cv_lab.data.coco_json import Polygon, Record, number_of
from cv_lab.data.object_files import ObjectFiles
from cv_lab.data.problems import Problems, Unusable

CORNERS = 64  # of the polygon that stands for a circle


class Labelme(ObjectFiles):
    """Images with ``NAME.json`` each. Shapes of one label and one ``group_id`` are one object.

    Args:
        root: see :class:`~cv_lab.data.object_files.ObjectFiles`.
        options: likewise.
    """

    suffix = ".json"

    def objects_in(self, file: Path, image: Path, problems: Problems) -> tuple[Any, list[Record]]:
        found: dict[tuple[str, Any], Record] = {}
        try:
            content = json.loads(file.read_bytes())
            size = tuple(number_of(content.get(f"image{side}")) for side in ("Height", "Width"))
            for number, shape in enumerate(content["shapes"]):
                name, label, group = f"{file}, shape {number}", str(shape["label"]).strip(), shape.get("group_id")
                polygon = _polygon(shape)
                if not isinstance(shape["label"], str | int) or not label:
                    problems.drop("shapes without a label", name)
                elif polygon is None:
                    problems.drop("shapes that are no polygon, rectangle or circle", f"{name}: {shape['shape_type']}")
                else:
                    one = {"name": name, "category_id": label, "segmentation": []}
                    key = (label, f"shape {number}" if group is None else group)
                    found.setdefault(key, one)["segmentation"].append(polygon)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError) as error:
            raise Unusable("damaged files of objects", f"{file}: {type(error).__name__} {error}") from error
        return size if all(size) else None, list(found.values())


def is_labelme(file: Path) -> bool:
    """Whether a JSON file holds shapes as labelme writes them."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError):
        return False
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def _polygon(shape: Record) -> Polygon | None:
    """The outline of a shape; None if it has none."""
    points, kind = np.array(shape["points"], np.float64).reshape(-1, 2), shape.get("shape_type") or "polygon"
    if kind == "rectangle":
        (left, top), (right, bottom) = points
        points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    elif kind == "circle":
        centre, edge = points
        turns = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
        points = centre + np.linalg.norm(edge - centre) * np.stack([np.cos(turns), np.sin(turns)], 1)
    return points.flatten().tolist() if kind in ("polygon", "rectangle", "circle") else None
