"""COCO (Lin et al., 2014), and data sets of one's own in its format, for instance and semantic segmentation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from cv_lab.data.base import Split
from cv_lab.data.coco_categories import choose_categories, class_numbers
from cv_lab.data.coco_json import (
    CocoJson,
    ImageFinder,
    Polygon,
    Record,
    RunLengths,
    area_of,
    box_alone,
    box_of,
    is_crowd,
    mask_of,
    read_coco,
    run_lengths,
)
from cv_lab.data.in_memory import InMemoryImages, MappedRows
from cv_lab.data.instances import InstanceImages, Instances, boxes_alone, by_id, rectangles
from cv_lab.data.layout import SPLITS, contents
from cv_lab.data.masks import MaskData
from cv_lab.data.pixels import Pixels, upright
from cv_lab.data.problems import Problems, Unusable
from cv_lab.data.store import Facts, framed, identities
from cv_lab.labels import IGNORE
from cv_lab.text import listing

READER = 1  # version of the masks that this module paints: increase it with every change of them
BACKGROUND = "background"
AMONG_IMAGES = "_annotations.coco.json"


class Coco(MaskData):
    """Folders of images, each with a json of COCO's format.

    Images are scaled in proportion into one size, in which networks learn; the objects that they detect are judged at
    the image's own size. Images without objects are kept. What cannot be used is dropped and counted.

    For object detection, the box of a mask, or an annotation's own box where it has no mask, is learnt.

    For semantic segmentation, masks are painted from the objects: larger ones first, so that what lies before them
    stays visible. Crowds are unlabelled. What belongs to no category, to one that is left out or to one called
    background is background.

    Args:
        train_folder: of the training images.
        train_json: their annotations.
        test_folder: of the test images.
        test_json: their annotations. Categories are the same if their names are, whatever their ids. None holds out a
            test set from the training images.
        val_folder: of the validation images.
        val_json: their annotations. None takes a folder beside the training images called ``val``, ``valid`` or
            ``validation``, if there is one with annotations, and else holds out a validation set.
        classes: the categories to take: names, one name, or a number n for the n with most training objects; None for
            all.
        train_images: take so many of the training images at most, drawn by the seed; None for all.
        test_images: likewise of the test images.
        parsed: jsons that have been parsed already, by their paths; each is taken out when it is used.
        options: see :class:`~cv_lab.data.masks.MaskData`.
    """

    targets: tuple[str, ...] = ("instances", "mask", "boxes")
    fits = ("pad",)

    def __init__(
        self,
        train_folder: str,
        train_json: str,
        test_folder: str | None,
        test_json: str | None,
        classes: Sequence[str] | str | int | None = None,
        train_images: int | None = None,
        test_images: int | None = None,
        val_folder: str | None = None,
        val_json: str | None = None,
        parsed: dict[Path, Record] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        given: dict[Split, tuple[str | None, str | None]] = {
            "train": (train_folder, train_json),
            "val": (val_folder, val_json),
            "test": (test_folder, test_json),
        }
        self.sources = {s: _source(Path(f), Path(j)) for s, (f, j) in given.items() if f is not None and j is not None}
        if val_json is None and (beside := _validation_beside(self.sources["train"][0])):
            self.sources["val"] = beside
        for name, limit in (("train_images", train_images), ("test_images", test_images)):
            if limit is not None and (type(limit) is not int or limit < 1):
                raise ValueError(f"data.{name}={limit} must be a whole number of at least 1, or null for all")
        self.limits: dict[Split, int | None] = {"train": train_images, "test": test_images}
        self.wanted = classes
        self.parsed = parsed or {}
        self._read: dict[Split, tuple[CocoJson, Problems]] = {}

    def splits(self) -> tuple[Split, ...]:
        return tuple(self.sources)

    def fingerprint(self) -> str:
        return contents(*(path for source in self.sources.values() for path in source))

    def setup(self, stage: str | None = None) -> None:
        """See :meth:`~cv_lab.data.base.ImageData.setup`.

        Raises:
            ValueError: if no image of a split holds an object: there is nothing to learn from, or to judge by.
        """
        super().setup(stage)
        self._read = {}  # it is large, and not needed any more
        assert self.train is not None
        for name, images in (("train", self.train), ("validate", self.val), ("test", self.test)):
            if isinstance(images, InstanceImages) and images.class_counts().counts.sum() == 0:
                raise ValueError(
                    _nothing(f"none of the {len(images)} images to {name} on", self.classes, self.problems)
                )

    def load(self, split: Split) -> InMemoryImages:
        """Decode one split.

        Raises:
            FileNotFoundError: if the json is missing.
            ValueError: if it is of another format, or nothing in it can be used.
        """
        training, found = self._json("train")
        if not training.categories:
            start = f"{found.source}: none of its {len(training.images)} images"
            raise ValueError(_nothing(start, ["any class"], found.as_plain()))
        coco, problems = self._json(split)
        files = self._files(coco, split, problems)
        classes = choose_categories(training, self.wanted)
        known = [category["name"] for category in training.categories]
        numbers = class_numbers(coco, classes, known, problems)
        ids = list(files)
        limit = self.limits.get(split)
        if limit is not None and limit < len(ids):
            chosen = np.random.default_rng(self.seed).permutation(len(ids))[:limit]
            ids = [ids[i] for i in sorted(chosen)]
        some = [
            (coco.images[id], [a for a in coco.annotations.get(id, ()) if a["category_id"] in numbers]) for id in ids
        ]
        paths = [files[id] for id in ids]
        if self.target == "mask":
            things = tuple(name for name in classes if name.lower().strip("_") != BACKGROUND)
            numbers = {id: things.index(classes[k]) if classes[k] in things else -1 for id, k in numbers.items()}
            painted = _PaintedMasks(some, numbers, self.annotation_files(split), things, problems)
            return self.decode(paths, painted, (BACKGROUND, *things), problems)
        return self._instances(paths, some, numbers, classes, problems)

    def folder(self, split: Split) -> Path:
        """The folder from which the images of a split are named."""
        return self.sources[split][0]

    def annotation_files(self, split: Split) -> list[Path]:
        """The files that :meth:`read` reads."""
        return [self.sources[split][1]]

    def read(self, split: Split) -> tuple[CocoJson, Problems]:
        """Return the images and objects of a split, and what cannot be used of them."""
        path = self.sources[split][1]
        problems = Problems(path)
        return read_coco(path, problems, self.parsed.pop(path, None)), problems

    def _json(self, split: Split) -> tuple[CocoJson, Problems]:
        if split not in self._read:
            self._read[split] = self.read(split)
        return self._read[split]

    def _files(self, coco: CocoJson, split: Split, problems: Problems) -> dict[Any, Path]:
        """The file of each image by its id, in order; objects of a file that is listed again go to the first.

        A file that one image names in full is not another's whose name it only resembles.
        """
        find, names = (
            ImageFinder(self.folder(split)),
            {id: str(image["file_name"]) for id, image in coco.images.items()},
        )
        paths = {id: find(names[id]) for id in sorted(coco.images, key=by_id)}
        first: dict[Path, Any] = {}
        named_in_full = {id for id, path in paths.items() if path == self.folder(split) / names[id]}
        for id in sorted(paths, key=lambda id: id not in named_in_full):
            path = paths[id]
            if (one := first.setdefault(path, id)) == id:
                continue
            if id in named_in_full or names[one] == names[id]:
                problems.drop("images whose file is listed already, as which their objects count", f"{path}: {id}")
                coco.annotations.setdefault(one, []).extend(coco.annotations.pop(id, ()))
            else:
                problems.drop("images of whose name there is only the file of another", f"{names[id]}: {path}")
        return {id: path for id, path in paths.items() if first[path] == id}

    def _instances(
        self,
        files: Sequence[Path],
        some: Sequence[tuple[Record, Sequence[Record]]],
        numbers: dict[Any, int],
        classes: tuple[str, ...],
        problems: Problems,
    ) -> InstanceImages:
        stored = framed(files, self.image_size, self.mean, self.cache_dir)
        kept, objects = [], []
        for number in stored.usable(problems):
            image, annotations = some[number]
            try:
                facts = stored.facts[number]
                boxes = self.target == "boxes"
                objects.append(_objects(image, annotations, numbers, facts, self.image_size, problems, boxes))
                kept.append(number)
            except Unusable as error:
                problems.drop(error.kind, error.example)
        self.note_copies(stored, kept, [0] * len(files), problems)
        self.settle(problems)
        if not kept:
            raise problems.nothing_left(len(files))
        self.remember(stored, kept)
        pixels = MappedRows(stored.pixels.permute(0, 3, 1, 2), torch.tensor(kept))
        return InstanceImages(pixels, objects, classes)


def _source(folder: Path, json: Path) -> tuple[Path, Path]:
    """The images and their annotations, which Roboflow writes among the images."""
    among = folder / AMONG_IMAGES
    return folder.expanduser(), among if among.is_file() and not json.is_file() else json.expanduser()


def _validation_beside(train_folder: Path) -> tuple[Path, Path] | None:
    """A validation set beside the training images that has annotations, and those."""
    for folder in (train_folder.parent / name for name in SPLITS["val"]):
        for json in (folder.with_suffix(".json"), folder / AMONG_IMAGES):
            if folder.is_dir() and json.is_file():
                return folder, json
    return None


class _PaintedMasks:
    """Masks painted from objects, see :class:`~cv_lab.data.masks.Masks`.

    Args:
        images: records, with their annotations of categories that are painted.
        numbers: class of each category by its id; -1 for one that is background.
        sources: files of the annotations.
        classes: that are painted.
        problems: of the annotations, for a message.
    """

    def __init__(
        self,
        images: Sequence[tuple[Record, Sequence[Record]]],
        numbers: dict[Any, int],
        sources: Sequence[Path],
        classes: Sequence[str],
        problems: Problems,
    ) -> None:
        self.images, self.numbers, self.problems = images, numbers, problems
        self.key: dict[str, Any] = {"painted": identities(sources), "classes": list(classes), "painter": READER}

    def read(self, number: int, image: Facts) -> tuple[Pixels, Facts]:
        record, annotations = self.images[number]
        height, width, turned = _frame(record, image)
        mask = np.zeros((height, width), np.uint8)
        dropped: list[tuple[str, str]] = []
        shapes = []
        for annotation in annotations:
            try:
                _, drawn = mask_of(annotation, height, width, lambda *problem: dropped.append(problem))
                shapes.append((area_of(annotation, drawn), annotation, drawn))
            except Unusable as error:
                dropped.append((error.kind, error.example))
        for _, annotation, drawn in sorted(shapes, key=lambda shape: -shape[0]):
            label = IGNORE if is_crowd(annotation) else self.numbers[annotation["category_id"]] + 1
            mask[rle.decode(drawn).astype(bool)] = label
        facts = {"dropped": dropped, "objects": bool(np.isin(mask, (0, IGNORE), invert=True).any())}
        return np.asarray(upright(Image.fromarray(mask), turned)), facts

    def check(self, facts: Sequence[Facts], classes: Sequence[str]) -> None:
        """See :class:`~cv_lab.data.masks.Masks`.

        Raises:
            ValueError: if no mask holds an object.
        """
        if not any(told["objects"] for told in facts):
            start = f"{self.problems.source}: none of its {len(facts)} images"
            raise ValueError(_nothing(start, classes[1:], self.problems.as_plain()))


def _nothing(start: str, classes: Sequence[str], problems: Sequence[dict[str, Any]]) -> str:
    dropped = [f"{problem['count']} {problem['kind']}" for problem in problems if problem["what"] == "dropped"]
    return (
        f"{start} holds an object of {listing(classes, 10)}{f' (dropped: {listing(dropped)})' if dropped else ''}. "
        "Crowds (iscrowd: 1, or difficult) do not count, and boxes without a mask only for task=instance_segmentation "
        "model.masks=false, which detects boxes: take more images (data.train_images, data.test_images), other "
        "categories (data.classes), or export masks"
    )


def _frame(record: Record, image: Facts) -> tuple[int, int, int]:
    """Height and width of what an image's annotations are drawn on, and the orientation to be turned upright from.

    Raises:
        Unusable: if the annotations give another size than the file has.
    """
    width, height = image["own"]
    if record["size"] in (None, (height, width)):
        return height, width, 1
    if record["size"] == tuple(image["stored"][::-1]):  # drawn on the pixels as they are stored, before EXIF turns them
        return *record["size"], image["orientation"]
    raise Unusable(
        "images of another size than their annotations say",
        f"{image['name']}: {width} x {height}, not {record['size'][1]} x {record['size'][0]}",
    )


def _objects(
    record: Record,
    annotations: Sequence[Record],
    numbers: dict[Any, int],
    image: Facts,
    size: tuple[int, int],
    problems: Problems,
    boxes_only: bool,
) -> Instances:
    """The objects of an image, which fills the part "shown" of `size` in memory; if `boxes_only`, with boxes for masks.

    A box without a mask is an object then.
    """
    height, width, turned = _frame(record, image)
    own, shown = (image["own"][1], image["own"][0]), image["shown"]
    scale = (shown[1] / own[1], shown[0] / own[0])
    kept, boxes, areas, truth, masks = [], [], [], [], []
    seen: set[tuple[Any, ...]] = set()  # objects, by class and pixels
    for annotation in annotations:
        try:
            if boxes_only and not annotation.get("segmentation"):
                box, cut = box_alone(annotation, height, width)
                if cut:
                    problems.note("boxes reach beyond their image and are cut at its edges", annotation["name"])
                annotation = {**annotation, "bbox": box, "area": annotation.get("area") or box[2] * box[3]}
                polygons, (drawn,) = None, rectangles(np.array([box]), (height, width))
            else:
                polygons, drawn = mask_of(annotation, height, width, problems.drop)
            same = (numbers[annotation["category_id"]], is_crowd(annotation), drawn["counts"])
            if same in seen:
                raise Unusable("objects that are listed twice", annotation["name"])
            seen.add(same)
        except Unusable as error:
            problems.drop(error.kind, error.example)
            continue
        if turned > 1:
            pixels = np.asarray(upright(Image.fromarray(rle.decode(drawn)), turned))
            polygons, drawn = None, rle.encode(np.asfortranarray(pixels))
        box, replaced = (rle.toBbox(drawn).tolist(), False) if turned > 1 else box_of(annotation, drawn)
        if replaced:
            problems.note("boxes do not fit their masks and are taken from these", f"{annotation['name']}")
        kept.append(annotation)
        boxes.append(box)
        areas.append(area_of(annotation, drawn))
        truth.append(drawn)
        masks.append(_scaled(polygons, drawn, scale, shown, size))
    objects = Instances(
        record["id"],
        own,
        scale,
        np.array([numbers[a["category_id"]] for a in kept], np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(areas, np.float64),
        np.array([is_crowd(a) for a in kept], bool),
        truth,
        masks,
    )
    return boxes_alone(objects, size) if boxes_only else objects


def _scaled(
    polygons: Sequence[Polygon] | None,
    mask: RunLengths,
    scale: tuple[float, float],
    shown: Sequence[int],
    size: tuple[int, int],
) -> RunLengths:
    """Run lengths of `size`: polygons are scaled before they become pixels, run lengths as pixels."""
    if polygons is not None:
        return run_lengths([(np.reshape(p, (-1, 2)) * scale).flatten().tolist() for p in polygons], *size)
    whole: NDArray[np.uint8] = np.zeros(size, np.uint8, order="F")
    pixels = Image.fromarray(rle.decode(mask))
    whole[: shown[0], : shown[1]] = np.asarray(pixels.resize((shown[1], shown[0]), Image.Resampling.NEAREST))
    return rle.encode(whole)
