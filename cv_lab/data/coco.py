"""COCO (Lin et al., 2014), and data sets of one's own in its format, for instance segmentation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from cv_lab.data.base import ImageData, Split
from cv_lab.data.coco_categories import choose_categories
from cv_lab.data.coco_json import CocoJson, Problems, Record, read_coco, run_lengths
from cv_lab.data.instances import InstanceImages, Instances, by_id
from cv_lab.data.masks import Pixels, frames, height_and_width, read_all, read_fitting


class Coco(ImageData):
    """Folders of images, each with a json of COCO's format.

    Images are scaled in proportion into one size, in which networks learn; what they find is judged at the image's own
    size. Images without objects are kept. What cannot be used is dropped and counted.

    Args:
        train_folder: of the training images.
        train_json: their annotations.
        test_folder: of the test images.
        test_json: their annotations, of the same categories.
        classes: the categories to take: names, one name, or a number n for the n with most training objects; None for
            all.
        train_images: take so many of the training images at most, drawn by the seed; None for all.
        test_images: likewise of the test images.
        image_size: height and width in pixels.
        strict: refuse what would be dropped.
        options: see :class:`~cv_lab.data.base.ImageData`.
    """

    mean = (0.485, 0.456, 0.406)  # of ImageNet's photographs; pretrained networks bring their own
    std = (0.229, 0.224, 0.225)
    targets = ("instances",)

    def __init__(
        self,
        train_folder: str,
        train_json: str,
        test_folder: str,
        test_json: str,
        classes: Sequence[str] | str | int | None = None,
        train_images: int | None = None,
        test_images: int | None = None,
        image_size: Sequence[int] = (320, 320),
        strict: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.image_size = height_and_width(image_size)
        self.folders = {"train": Path(train_folder), "test": Path(test_folder)}
        self.files = {"train": Path(train_json), "test": Path(test_json)}
        self.limits = {"train": train_images, "test": test_images}
        self.wanted, self.strict = classes, strict
        self.categories: list[Record] | None = None  # in the order of the classes

    def setup(self, stage: str | None = None) -> None:
        """See :meth:`~cv_lab.data.base.ImageData.setup`.

        Raises:
            ValueError: if no image of a split holds an object: there is nothing to learn from, or to judge by.
        """
        super().setup(stage)
        for name, images in (("train", self.train), ("validate", self.val), ("test", self.test)):
            assert isinstance(images, InstanceImages)
            if images.class_counts().counts.sum() == 0:
                raise ValueError(
                    f"none of the {len(images)} images to {name} on holds an object of {', '.join(self.classes)}: take "
                    "more images (data.train_images, data.test_images), or other categories (data.classes)"
                )

    def load(self, split: Split) -> InstanceImages:
        """Decode one split.

        Raises:
            FileNotFoundError: if the json is missing.
            ValueError: if it is of another format, or nothing in it can be used.
        """
        problems = Problems(self.files[split])
        coco = read_coco(self.files[split], problems)
        if self.categories is None:
            every = [annotation for some in coco.annotations.values() for annotation in some]
            self.categories = choose_categories(coco.categories, every, self.wanted)
        numbers = self._numbers(coco, split)
        names = sorted(coco.images, key=by_id)
        limit = self.limits[split]
        if limit is not None and limit < len(names):
            chosen = np.random.default_rng(self.seed).permutation(len(names))[:limit]
            names = [names[i] for i in sorted(chosen)]
        images, objects = self._decode([coco.images[name] for name in names], coco, numbers, split, problems)
        problems.settle(self.strict)
        if not objects:
            raise ValueError(f"{self.files[split]}: none of its {len(names)} images can be used")
        classes = tuple(category["name"] for category in self.categories)
        return InstanceImages(torch.from_numpy(images).permute(0, 3, 1, 2), objects, classes)

    def _numbers(self, coco: CocoJson, split: Split) -> dict[Any, int]:
        """The class of each category by its id; categories are the same if their names are."""
        assert self.categories is not None
        by_name = {category["name"]: number for number, category in enumerate(self.categories)}
        found = {
            category["id"]: by_name[category["name"]] for category in coco.categories if category["name"] in by_name
        }
        if missing := by_name.keys() - {category["name"] for category in coco.categories}:
            raise ValueError(
                f"{self.files[split]} has no categories {', '.join(sorted(missing))}, which {self.files['train']} has"
            )
        return found

    def _decode(
        self, records: Sequence[Record], coco: CocoJson, numbers: dict[Any, int], split: Split, problems: Problems
    ) -> tuple[Pixels, list[Instances]]:
        """The images that can be used, uint8 (N, H, W, 3), and their objects."""
        pixels = frames(len(records), self.image_size, self.mean)

        def read(number: int) -> Instances | tuple[str, str]:
            record = records[number]
            path = self.folders[split] / record["file_name"]
            try:
                image, (width, height) = read_fitting(path, self.image_size)
            except FileNotFoundError:
                return "missing image files", str(path)
            except ValueError as error:
                return "damaged image files", str(error)
            if (height, width) != (record["height"], record["width"]):
                return "images of another size than the json says", f"{path}: {width} x {height}"
            pixels[number, : image.shape[0], : image.shape[1]] = image
            some = [a for a in coco.annotations.get(record["id"], ()) if a["category_id"] in numbers]
            return _instances(record, some, numbers, image.shape[:2], self.image_size)

        told = read_all(read, len(records))
        for answer in told:
            if isinstance(answer, tuple):
                problems.add(*answer)
        kept = [number for number, answer in enumerate(told) if isinstance(answer, Instances)]
        whole = pixels if len(kept) == len(told) else pixels[kept]
        return whole, [answer for answer in told if isinstance(answer, Instances)]


def _instances(
    record: Record, annotations: Sequence[Record], numbers: dict[Any, int], shown: Sequence[int], size: tuple[int, int]
) -> Instances:
    """The objects of an image, of which `shown`, height and width, of `size` in memory are filled."""
    height, width = record["height"], record["width"]
    scale = (shown[1] / width, shown[0] / height)
    truth = [run_lengths(annotation["segmentation"], height, width) for annotation in annotations]
    masks = [_scaled(a["segmentation"], mask, scale, shown, size) for a, mask in zip(annotations, truth, strict=True)]
    # One by one, since pycocotools fails at more than 255 masks.
    areas = [float(a.get("area", rle.area(mask))) for a, mask in zip(annotations, truth, strict=True)]
    return Instances(
        record["id"],
        (height, width),
        scale,
        np.array([numbers[a["category_id"]] for a in annotations], np.int64),
        np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4),
        np.array(areas, np.float64),
        np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool),
        truth,
        masks,
    )


def _scaled(
    segmentation: Any, mask: Record, scale: tuple[float, float], shown: Sequence[int], size: tuple[int, int]
) -> Record:
    """Run lengths of `size`: polygons are scaled before they become pixels, run lengths as pixels."""
    if isinstance(segmentation, list):
        polygons = [(np.reshape(polygon, (-1, 2)) * scale).flatten().tolist() for polygon in segmentation]
        return run_lengths(polygons, *size)
    whole: NDArray[np.uint8] = np.zeros(size, np.uint8, order="F")
    pixels = Image.fromarray(rle.decode(mask))
    whole[: shown[0], : shown[1]] = np.asarray(pixels.resize((shown[1], shown[0]), Image.Resampling.NEAREST))
    return rle.encode(whole)
