"""Find images and their masks in the layouts that annotation tools and data sets have."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cv_lab.data.base import Split
from cv_lab.data.layout import SPLITS, image_files, split_folders, subfolders
from cv_lab.data.mask_files import UNLABELLED
from cv_lab.data.problems import Problems
from cv_lab.text import listing

# Names of folders in any case, with "-" or a space for "_".
IMAGES = (
    *("images", "image", "imgs", "img", "img_dir", "jpegimages", "pngimages", "images_png", "original", "leftimg8bit"),
)
MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "ann", "ann_dir", "gt", "gtfine", "masks_png"),
    *("ground_truth", "groundtruth", "segmentationclass", "segmentation", "segmentations"),
)
OBJECT_MASKS, CLASS_MASKS = "SegmentationObject", "SegmentationClass"  # of Pascal VOC
NUMBERED = ("pedmasks", OBJECT_MASKS.lower(), "instances", "instance_masks", "instance_ids")  # of objects' numbers
AFTER_SPLIT = {"images": ("", "_images", "_img", "images"), "masks": ("_masks", "_mask", "_labels", "_gt", "annot")}
ENDINGS = ("", "_mask", "-mask", "_masks", "_label", "_labels", "_seg", "_gt", "_L", "_gtFine_labelIds")
INSTANCE_ENDINGS = ("_gtFine_instanceIds", "_instanceIds", "_instances", "_instance", *ENDINGS)
OF_IMAGES = "_leftImg8bit"  # which Cityscapes writes behind the names of images, where masks have theirs
LISTS = "ImageSets/Segmentation"  # of names, in Pascal VOC and what CVAT exports like it; "ImageSets/Main" for objects
VOC_UNLABELLED = [224, 224, 192]  # the colour of 255 in the palette of Pascal VOC


class Names(NamedTuple):
    """What a file beside the masks says of their pixels; two of the three are None.

    Attributes:
        classes: names of the numbers 0, 1, 2, ...
        values: class of each number.
        colours: colour of each class.
    """

    classes: Sequence[str] | None = None
    values: Mapping[Any, Any] | None = None
    colours: Mapping[Any, Any] | None = None


def mask_sets(root: Path, masks_in: Sequence[str] = MASKS) -> dict[Split, tuple[Path, Path]]:
    """The folder of images and the folder of masks of each set; the same one twice if masks lie beside images.

    Empty if `root` has no such folders. A set without masks is left out. `masks_in` are names of folders of masks.
    """
    if not root.is_dir():
        return {}
    splits = split_folders(root)
    found = {split: both for split, folder in splits.items() if (both := images_and_masks(folder, masks_in))}
    if not found and (both := images_and_masks(root, masks_in)):
        images, masks = (split_folders(folder) for folder in both)
        found = {split: (images[split], masks[split]) for split in images if split in masks} or {"train": both}
    found = found or _named_after_splits(root)
    return found or {
        split: (folder, folder) for split, folder in (splits or {"train": root}).items() if _masks_beside(folder)
    }


def pairs(images: Path, masks: Path, problems: Problems, endings: Sequence[str] = ENDINGS) -> list[tuple[Path, Path]]:
    """Each image with its mask; one that does not exist is called ``NAME.png``.

    Masks without an image, and images that share a mask, are added to `problems`. `endings` stand behind an image's
    name in that of its mask.
    """
    files = image_files(masks, problems)
    by_name = {str(path.relative_to(masks).with_suffix("")): path for path in files}
    beside = _masks_beside(images) if images == masks else set()
    found = []
    for image in image_files(images, problems) if images != masks else [file for file in files if file not in beside]:
        name = image.relative_to(images)
        stem = str(name.with_suffix("")).removesuffix(OF_IMAGES)
        names = [str(name), *(stem + ending for ending in endings)]
        own = next((by_name[some] for some in names if some in by_name and by_name[some] != image), None)
        found.append((image, own or masks / f"{stem}.png"))
    used = Counter(mask for _, mask in found)
    for path in files if not beside else ():
        if path not in used:
            problems.drop("masks without an image", str(path))
    if twice := [str(path) for path, count in used.items() if count > 1]:
        problems.note("masks belong to several images", listing(sorted(twice)))
    return found


def listed_names(root: Path, folder: str | None = LISTS) -> dict[Split, list[str]]:
    """The names of images in each set, one a line, of the lists in `folder`; empty without such lists."""
    where = root / folder if folder else None
    lists = {path.stem.lower(): path for path in where.glob("*.txt")} if where and where.is_dir() else {}
    found = {split: lists[name] for split, names in SPLITS.items() for name in names if name in lists}
    if "train" not in found and (whole := lists.get("trainval") or lists.get("default")):
        found = {"train": whole, **{split: path for split, path in found.items() if split == "test"}}
    if "train" not in found:
        return {}
    texts = {split: path.read_text("utf-8-sig").splitlines() for split, path in found.items()}
    return {s: list(dict.fromkeys(line.strip() for line in lines if line.strip())) for s, lines in texts.items()}


def names_beside(root: Path) -> Names:
    """What ``classes.txt``, ``labelmap.txt``, ``_classes.csv``, ``class_dict.csv`` or ``label_colors.txt`` says.

    Raises:
        ValueError: if such a file cannot be read, or the files of several sets differ.
    """
    for folders in ([root], split_folders(root).values()):
        for name, read in _READERS.items():
            found: dict[Path, Names] = {}
            for path in (folder / name for folder in folders if (folder / name).is_file()):
                try:
                    found[path] = read([line for line in path.read_text("utf-8-sig").splitlines() if line.strip()])
                except (ValueError, IndexError) as error:
                    raise ValueError(f"{path} cannot be read: {error}; or give data.classes") from error
                first = next(iter(found))
                if found[path] != found[first]:
                    raise ValueError(
                        f"{first} and {path} differ, so that a pixel does not mean the same in both sets: number or "
                        "colour the masks alike, or read one set at a time"
                    )
            if found:
                return next(iter(found.values()))
    return Names()


def _labelmap(lines: list[str]) -> Names:
    """CVAT's ``name:red,green,blue:parts:actions``."""
    rows = [line.split(":") for line in lines if not line.startswith("#")]
    colours = {row[0].strip(): [int(part) for part in row[1].split(",")] for row in rows}
    if VOC_UNLABELLED not in colours.values():
        colours[UNLABELLED] = VOC_UNLABELLED
    return Names(colours=colours)


def _numbers(lines: list[str]) -> Names:
    """Roboflow's ``Pixel Value, Class``."""
    return Names(values={int(row[0]): row[1].strip() for row in csv.reader(lines[1:])})


def _class_dict(lines: list[str]) -> Names:
    """``name,r,g,b``."""
    return Names(colours={row[0].strip(): [int(part) for part in row[1:4]] for row in csv.reader(lines[1:])})


def _label_colours(lines: list[str]) -> Names:
    """CamVid's ``red green blue name``."""
    rows = [line.split(None, 3) for line in lines]
    return Names(colours={row[3].strip(): [int(part) for part in row[:3]] for row in rows})


_READERS = {
    "classes.txt": lambda lines: Names(classes=[line.strip() for line in lines]),
    "labels.txt": lambda lines: Names(classes=[line.strip() for line in lines]),
    "labelmap.txt": _labelmap,
    "_classes.csv": _numbers,
    "class_dict.csv": _class_dict,
    "label_colors.txt": _label_colours,
}


def images_folder(root: Path) -> Path | None:
    """The folder in `root` that is called like one of images."""
    named = _named(root)
    return next((named[name] for name in IMAGES if name in named), None)


def names_of(files: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Files by their names in `folder`, as lists have them, with and without suffixes."""
    names = [path.relative_to(folder) for path in files]
    return dict(zip(map(str, [*(name.with_suffix("") for name in names), *names]), [*files, *files], strict=True))


def _named(folder: Path) -> dict[str, Path]:
    return {path.name.lower().replace("-", "_").replace(" ", "_"): path for path in subfolders(folder)}


def images_and_masks(folder: Path, masks_in: Sequence[str]) -> tuple[Path, Path] | None:
    """The two folders in `folder`, if the second holds images."""
    named, images = _named(folder), images_folder(folder)
    masks = next((named[name] for name in masks_in if name in named and _holds_images(named[name])), None)
    return (images, masks) if images is not None and masks is not None else None


def _named_after_splits(root: Path) -> dict[Split, tuple[Path, Path]]:
    """Folders such as ``train`` and ``train_masks``, or ``trainannot``."""
    named = _named(root)
    found: dict[Split, tuple[Path, Path]] = {}
    for split, names in SPLITS.items():
        some: dict[str, Any] = {
            kind: next((named[n + end] for n in names for end in endings if n + end in named), None)
            for kind, endings in AFTER_SPLIT.items()
        }
        if some["images"] and some["masks"]:
            found[split] = (some["images"], some["masks"])
    return found


def _masks_beside(folder: Path) -> set[Path]:
    """The files in `folder` that are called like another image and an ending of masks."""
    files = image_files(folder, deep=False)
    stems = {path.stem for path in files}
    return {
        path
        for path in files
        if any(path.stem.endswith(end) and path.stem.removesuffix(end) in stems for end in ENDINGS[1:])
    }


def _holds_images(folder: Path) -> bool:
    return bool(image_files(folder))
