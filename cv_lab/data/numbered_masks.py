"""Masks that number the objects of an image: 0 is background, and each other number is one object."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from cv_lab.data.base import Split
from cv_lab.data.coco_json import Record
from cv_lab.data.mask_files import opened_mask, pixel_numbers, whole
from cv_lab.data.mask_pairs import INSTANCE_ENDINGS, MASKS, NUMBERED, mask_sets, pairs
from cv_lab.data.object_files import ObjectFiles
from cv_lab.data.problems import Problems, Unusable
from cv_lab.labels import IGNORE

OBJECT = "object"
THOUSAND = 1000  # Cityscapes numbers objects as 1000 times their class and more


class NumberedMasks(ObjectFiles):
    """Images with masks in the folders that :mod:`~cv_lab.data.mask_pairs` knows, or like Penn-Fudan's ``PedMasks``.

    255 is unlabelled in masks of 8 bits, unless 254 occurs as well.

    Args:
        root: folder of the folders of images and masks, or of splits with such folders.
        instances: the class of all objects; or the class of each number, {1: cat, 2: dog}. Where numbers reach 1000,
            they are taken as Cityscapes has them: 24001 is an object of the class that is given for 24, and 24 a group
            of such objects. Numbers of no class are background.
        options: see :class:`~cv_lab.data.object_files.ObjectFiles`.

    Raises:
        ValueError: if `instances` is neither.
    """

    suffix = ""

    def __init__(self, root: str, instances: str | Mapping[Any, Any] = OBJECT, **options: Any) -> None:
        super().__init__(root, **options)
        if not isinstance(instances, str | Mapping) or not instances:
            raise ValueError(
                f"data.instances={instances} must name the class of all objects, person, or the class of each number, "
                "'{1: cat, 2: dog}'"
            )
        names = instances.items() if isinstance(instances, Mapping) else ()
        self.by_number = {whole(number, "instances"): str(name) for number, name in names}
        self.single = isinstance(instances, str)
        ordered = [str(instances)] if self.single else [self.by_number[number] for number in sorted(self.by_number)]
        self.names = list(dict.fromkeys(ordered))

    @cached_property
    def pairs(self) -> dict[Split, list[tuple[Path, Path]]]:
        """Images with their masks; masks without an image are added to `unpaired`."""
        self.unpaired = Problems(self.root)
        sets = mask_sets(self.root, (*NUMBERED, *MASKS))
        return {split: pairs(*folders, self.unpaired, INSTANCE_ENDINGS) for split, folders in sets.items()}

    @cached_property
    def images(self) -> dict[Split, list[Path]]:
        return {split: [image for image, _ in some] for split, some in self.pairs.items()}

    @cached_property
    def _masks(self) -> dict[Path, Path]:
        return {image: mask for some in self.pairs.values() for image, mask in some}

    def file_of(self, image: Path) -> Path | None:
        return self._masks[image] if self._masks[image].is_file() else None

    def drop_unused(self, problems: Problems) -> None:
        for example in self.unpaired.dropped["masks without an image"]:
            problems.drop("masks without an image", example)

    def categories(self, names: set[Any]) -> list[Record]:
        return [{"id": number, "name": name} for number, name in enumerate(self.names)]

    def objects_in(self, file: Path, image: Path, problems: Problems) -> tuple[Any, list[Record]]:
        with opened_mask(file) as mask:
            numbers = pixel_numbers(mask, file)
        values = np.unique(numbers).tolist()
        if numbers.dtype == np.uint8 and IGNORE - 1 not in values and IGNORE in values:
            if values in ([0, IGNORE], [IGNORE]):
                raise Unusable(
                    "masks of 0 and 255 alone, which do not number objects",
                    f"{file}: task=semantic_segmentation learns them with data.values",
                )
            values.remove(IGNORE)
        thousands = max(values) >= THOUSAND
        found = []
        for value in values:
            kind = self.by_number.get(value // THOUSAND if value >= THOUSAND else value)
            if value > 0 and (self.single or kind is not None):
                number = self.names.index(kind) if kind is not None else 0
                group = thousands and value < THOUSAND and not self.single
                found.append(_object(f"{file}: {value}", number, numbers == value, group))
        return numbers.shape, found


def _object(name: str, kind: int, pixels: NDArray[np.bool_], group: bool) -> Record:
    mask = rle.encode(np.asfortranarray(pixels, np.uint8))
    return {"name": name, "category_id": kind, "segmentation": mask, "iscrowd": int(group)}
