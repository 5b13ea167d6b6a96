"""Masks that number the objects of an image: 0 is background, and each other number is one object."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from cv_lab.data.base import Split
from cv_lab.data.coco_json import Record
from cv_lab.data.mask_files import MaskFiles, opened_mask, pixel_numbers, whole
from cv_lab.data.mask_folder import meaning
from cv_lab.data.mask_pairs import (
    CLASS_MASKS,
    INSTANCE_ENDINGS,
    MASKS,
    NUMBERED,
    OBJECT_MASKS,
    listed_names,
    mask_sets,
    names_of,
    pairs,
)
from cv_lab.data.object_files import ObjectFiles
from cv_lab.data.problems import Problems, Unusable
from cv_lab.data.voc import published_names
from cv_lab.labels import IGNORE

OBJECT = "object"
BACKGROUND = "background"
THOUSAND = 1000  # Cityscapes numbers objects as 1000 times their class and more


class NumberedMasks(ObjectFiles):
    """Images with masks in the folders that :mod:`~cv_lab.data.mask_pairs` knows, or like Penn-Fudan's ``PedMasks``.

    255 is unlabelled in masks of 8 bits, unless 254 occurs as well. The objects of Pascal VOC's ``SegmentationObject``
    have the classes of ``SegmentationClass``, and the lists in ``ImageSets/Segmentation`` divide the images.

    Args:
        root: folder of the folders of images and masks, or of splits with such folders.
        instances: the class of all objects; None calls it "object", or takes Pascal VOC's classes. Or the class of each
            number, {1: cat, 2: dog}. Where numbers reach 1000, they are taken as Cityscapes has them: 24001 is an
            object of the class that is given for 24, and 24 a group of such objects. Numbers of no class are
            background.
        options: see :class:`~cv_lab.data.object_files.ObjectFiles`.

    Raises:
        ValueError: if `instances` is neither.
    """

    suffix = ""

    def __init__(self, root: str, instances: str | Mapping[Any, Any] | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        instances = OBJECT if instances is None and not self._has_class_masks() else instances
        if instances is not None and (not isinstance(instances, str | Mapping) or not instances):
            raise ValueError(
                f"data.instances={instances} must name the class of all objects, person, or the class of each number, "
                "'{1: cat, 2: dog}'"
            )
        names = instances.items() if isinstance(instances, Mapping) else ()
        self.by_number = {whole(number, "instances"): str(name) for number, name in names}
        if isinstance(instances, str):
            self.names = [instances]
        elif instances is None:
            self.names = [name for name in self.class_masks[0] if name != BACKGROUND]
        else:
            self.names = list(dict.fromkeys(self.by_number[number] for number in sorted(self.by_number)))
        self.instances = instances

    def _has_class_masks(self) -> bool:
        return all((self.root / name).is_dir() for name in (OBJECT_MASKS, CLASS_MASKS))

    @cached_property
    def class_masks(self) -> tuple[Sequence[str], dict[str, int], MaskFiles]:
        """The names of Pascal VOC's classes, and the masks of classes with their places by the names of images."""
        files = sorted((self.root / CLASS_MASKS).glob("*.png"))
        classes, *meant = meaning(self.root, published_names(self.root))
        return classes, {path.stem: number for number, path in enumerate(files)}, MaskFiles(files, classes, *meant)

    @cached_property
    def pairs(self) -> dict[Split, list[tuple[Path, Path]]]:
        """Images with their masks; masks without an image are added to `unpaired`."""
        self.unpaired = Problems(self.root)
        sets = mask_sets(self.root, (*NUMBERED, *MASKS))
        lists = listed_names(self.root) if "train" in sets else {}
        found = {split: pairs(*folders, self.unpaired, INSTANCE_ENDINGS) for split, folders in sets.items()}
        if lists:
            folder, masks = sets["train"][0], dict(found["train"])
            by_name = names_of([*masks], folder)
            images = {split: [by_name.get(name, folder / name) for name in names] for split, names in lists.items()}
            found = {split: [(one, masks.get(one, one)) for one in some] for split, some in images.items()}
        return found

    @cached_property
    def images(self) -> dict[Split, list[Path]]:
        return {split: [image for image, _ in some] for split, some in self.pairs.items()}

    @cached_property
    def _masks(self) -> dict[Path, Path]:
        return {image: mask for some in self.pairs.values() for image, mask in some}

    def file_of(self, image: Path) -> Path | None:
        return self._masks[image] if self._masks[image].is_file() else None

    def drop_unused(self, problems: Problems) -> None:
        for example in self.unpaired.dropped.get("masks without an image", ()):
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
        kinds = self._kinds(file, numbers, [value for value in values if value > 0], problems)
        groups = not isinstance(self.instances, str) and max(values) >= THOUSAND
        objects = [
            _object(f"{file}: {value}", self.names.index(kind), numbers == value, groups and value < THOUSAND)
            for value, kind in kinds.items()
        ]
        return numbers.shape, objects

    def _kinds(self, file: Path, numbers: NDArray[Any], values: list[int], problems: Problems) -> dict[int, str]:
        """The class of each object; those of none are left out."""
        if isinstance(self.instances, str):
            return dict.fromkeys(values, self.instances)
        if self.instances is not None:
            given = {value: self.by_number.get(value // THOUSAND if value >= THOUSAND else value) for value in values}
            return {value: kind for value, kind in given.items() if kind is not None}
        classes, places, masks = self.class_masks
        if file.stem not in places:
            raise Unusable("masks of objects without one of classes", f"{file}: {CLASS_MASKS}/{file.stem}.png")
        size = [numbers.shape[1], numbers.shape[0]]
        labels, _ = masks.read(places[file.stem], {"own": size, "stored": size, "orientation": 1})
        kinds = {}
        for value in values:
            counts = np.bincount(labels[numbers == value], minlength=256)[: len(classes)]
            kind = classes[int(counts.argmax())]
            if not counts.any() or kind == BACKGROUND:
                problems.drop("objects without a class in the mask of classes", f"{file}: {value}")
            else:
                kinds[value] = kind
        return kinds


def _object(name: str, kind: int, pixels: NDArray[np.bool_], group: bool) -> Record:
    mask = rle.encode(np.asfortranarray(pixels, np.uint8))
    return {"name": name, "category_id": kind, "segmentation": mask, "iscrowd": int(group)}
