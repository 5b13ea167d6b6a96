"""Boxes in XML files, as Pascal VOC has them (Everingham et al., 2010) and LabelImg, CVAT and Roboflow write them."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cv_lab.data.coco_json import Record, number_of
from cv_lab.data.object_files import ObjectFiles
from cv_lab.data.problems import Problems, Unusable

SIDES = ("xmin", "ymin", "xmax", "ymax")


class VocXml(ObjectFiles):
    """Images with ``NAME.xml`` each, in ``Annotations`` or another folder, or beside the images.

    Pixels are counted from 1, and a box holds its last ones. Objects that are marked difficult are neither learnt nor
    judged, as crowds are; truncated ones are objects like others. ``ImageSets/Main`` may list the images of each split.

    Args:
        root: folder of ``Annotations`` and ``JPEGImages``, or of other folders of images and files.
        options: see :class:`~cv_lab.data.object_files.ObjectFiles`.
    """

    targets = ("boxes",)
    suffix, lists = ".xml", "ImageSets/Main"

    def objects_in(self, file: Path, image: Path, problems: Problems) -> tuple[Any, list[Record]]:
        try:
            content = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
            raise Unusable("damaged files of objects", f"{file}: {error}") from error
        size = tuple(number_of(content.findtext(f"size/{side}")) for side in ("height", "width"))
        found: list[Record] = []
        for number, one in enumerate(content.iter("object"), start=1):
            name, kind = f"{file}, object {number}", (one.findtext("name") or "").strip()
            box = [number_of(one.findtext(f"bndbox/{side}")) for side in SIDES]
            if not kind or None in box:
                problems.drop("objects without a class or a box", name)
                continue
            left, top, right, bottom = box
            if min(left, top) < 1:
                problems.note("boxes begin before pixel 1, the first of Pascal VOC, and may be a pixel off", name)
            bbox = [left - 1, top - 1, right - left + 1, bottom - top + 1]
            difficult = number_of(one.findtext("difficult"))
            found.append({"name": name, "category_id": kind, "bbox": bbox, "iscrowd": difficult})
        return size if all(size) else None, found
