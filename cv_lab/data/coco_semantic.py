"""COCO (Lin et al., 2014) for semantic segmentation: masks painted from its instances."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO

from cv_lab.data.base import Split
from cv_lab.data.coco_categories import choose_categories
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.masks import MaskData, Pair, Pixels
from cv_lab.labels import IGNORE

BACKGROUND = "background"
FOLDERS = {"train": "train2017", "test": "val2017"}


class CocoSemantic(MaskData):
    """Images ``root/{train2017,val2017}`` with ``root/annotations/instances_{train2017,val2017}.json``.

    Larger instances are painted first, so that what lies before them stays visible. Crowds are unlabelled. What
    belongs to no category, or to one that is left out, is background.

    Args:
        root: folder with the images' folders and ``annotations``.
        classes: the categories to paint: names, one name, or a number n for the n with most training instances; None
            for all.
        train_images: train on so many of the training images at most, drawn by the seed; None for all.
        test_images: likewise for ``val2017``, which is the test set.
        options: see :class:`~cv_lab.data.masks.MaskData`.
    """

    def __init__(
        self,
        root: str = "data/coco",
        classes: Sequence[str] | str | int | None = None,
        train_images: int | None = 4000,
        test_images: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.wanted = Path(root), classes
        self.limits = {"train": train_images, "test": test_images}
        self.opened: dict[str, COCO] = {}

    def load(self, split: Split) -> InMemoryImages:
        """Decode and paint one split.

        Raises:
            FileNotFoundError: if annotations or images are missing.
            ValueError: if `classes` names an unknown category.
        """
        categories = self._categories()
        numbers = {category["id"]: number + 1 for number, category in enumerate(categories)}
        folder = FOLDERS[split]
        coco = self._open(folder)
        images = sorted(coco.getImgIds())
        limit = self.limits[split]
        if limit is not None and limit < len(images):
            images = sorted(np.random.default_rng(self.seed).permutation(images)[:limit].tolist())

        def pair(image: int) -> Pair:
            annotations = sorted(coco.imgToAnns[image], key=lambda annotation: -annotation["area"])

            def paint(size: tuple[int, int]) -> Pixels:
                return _paint(annotations, numbers, size)

            return Pair(self.root / folder / coco.imgs[image]["file_name"], paint)

        return self.decode([pair(image) for image in images], (BACKGROUND, *(c["name"] for c in categories)))

    def _categories(self) -> list[dict[str, Any]]:
        """Those to paint, in the order of their ids."""
        coco = self._open(FOLDERS["train"])
        return choose_categories(coco.cats.values(), coco.anns.values(), self.wanted)

    def _open(self, split: str) -> COCO:
        if split not in self.opened:
            path = self.root / "annotations" / f"instances_{split}.json"
            if not path.is_file():
                raise FileNotFoundError(
                    f"there is no {path}: data.root={self.root} must hold train2017, val2017 and annotations as "
                    "published on cocodataset.org"
                )
            with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it took
                self.opened[split] = COCO(str(path))
        return self.opened[split]


def _paint(annotations: list[dict[str, Any]], numbers: dict[int, int], size: tuple[int, int]) -> Pixels:
    """Instances, the largest first, as a mask of (width, height) = `size`."""
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    for annotation in annotations:
        shape = annotation["segmentation"]
        if isinstance(shape, list):
            shape = rle.merge(rle.frPyObjects(shape, height, width))
        elif isinstance(shape["counts"], list):
            shape = rle.frPyObjects(shape, height, width)
        label = numbers.get(annotation["category_id"], 0)
        mask[rle.decode(shape).astype(bool)] = IGNORE if label and annotation["iscrowd"] else label
    return mask
