"""Recognise what lies in a folder of one's own data, and choose the data module that reads it."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cv_lab.data.base import Split
from cv_lab.data.coco import Coco
from cv_lab.data.coco_json import ImageFinder
from cv_lab.data.folder import ImageFolder, class_sets
from cv_lab.data.labelme import Labelme, is_labelme
from cv_lab.data.labels_csv import Labelled, LabelsCsv, read_labels
from cv_lab.data.layout import SPLITS, image_files, is_hidden, split_folders, subfolders
from cv_lab.data.mask_folder import MaskFolder
from cv_lab.data.mask_pairs import (
    IMAGES,
    MASKS,
    NUMBERED,
    images_and_masks,
    images_folder,
    listed_names,
    mask_sets,
    names_beside,
    pairs,
)
from cv_lab.data.npz import NpzImages, arrays_of
from cv_lab.data.numbered_masks import NumberedMasks
from cv_lab.data.object_files import ObjectFiles
from cv_lab.data.photos import PhotoData
from cv_lab.data.problems import Problems
from cv_lab.data.voc import published_names
from cv_lab.data.voc_xml import VocXml
from cv_lab.data.yolo import PEEK, Yolo
from cv_lab.text import listing

OBJECTS_SIZE = (320, 320)  # of images with objects, where none is given
DEEPEST = 3  # folders that hold nothing but another folder
TASKS = {
    "label": "task=classification",
    "labels": "task=multilabel",
    "mask": "task=semantic_segmentation",
    "instances": "task=instance_segmentation",
    "boxes": "task=instance_segmentation model.masks=false",
}
KNOWN = {
    "label": "CLASS/*.jpg, train/CLASS/*.jpg (val, test), a CSV with the columns file and label, MedMNIST's npz",
    "labels": "a CSV with the columns file and labels, or a column of 0 and 1 for each label; MedMNIST's npz",
    "mask": "images/ and masks/, train/images and train/masks, images/train and masks/train, NAME_mask.png beside "
    "NAME.jpg, Pascal VOC, and COCO json, YOLO's polygons and labelme's json",
    "instances": "COCO json with a folder of images, for each split or for all; YOLO's data.yaml or labels/*.txt with "
    "classes.txt; NAME.json of labelme; images and masks that number objects, with data.instances=NAME",
    "boxes": "COCO json, YOLO's labels, Pascal VOC's NAME.xml, NAME.json of labelme",
}


@dataclass(frozen=True)
class Layout:
    """A layout that was recognised.

    Attributes:
        name: of the layout.
        about: what it holds, in a few words.
        data: the data module that reads it.
        options: its arguments.
        takes: those of ``data=own``'s own options that it takes as well.
    """

    name: str
    about: str
    data: Callable[..., PhotoData]
    options: dict[str, Any]
    takes: Sequence[str] = field(default=("image_size",))


# Each looks into a folder (or at a file) for images with what the task learns from, and returns None if there is no
# such layout, or raises a ValueError if there is one that cannot be used.
Recogniser = Callable[[Path, str], Layout | None]


def recognise(root: Path, target: str, *recognisers: Recogniser) -> Layout:
    """The layout of what lies in `root`, for a task that learns from `target`.

    Args:
        root: a folder or a file.
        target: see :class:`~cv_lab.data.base.ImageData`.
        recognisers: of the layouts that are looked for, if not all.

    Raises:
        FileNotFoundError: if there is nothing at `root`.
        ValueError: if no layout is recognised; with what was seen, what is known, and tasks that could take it.
    """
    if not root.exists():
        raise FileNotFoundError(f"there is no {root}: give data.root, the folder of your images")
    if found := _first(root, target, recognisers or RECOGNISERS):
        return found
    others = [other for other in TASKS if other != target and _fits(root, other)]
    advice = f"{_unreadable(root, target)}Known are {KNOWN[target]}; see docs/your_data.md"
    if others:
        advice = f"It would serve {' or '.join(TASKS[other] for other in others)}"
    if "mask" in others and target in ("instances", "boxes"):
        advice += "; or, if each number in a mask is an object of its own, give data.instances=NAME, their class"
    raise ValueError(f"{root} holds {_seen(root)}, in no layout known for {TASKS[target]}. {advice}")


def target_of(root: Path) -> str:
    """The first of "label", "labels", "instances", "boxes" and "mask" that the data at `root` serve.

    Raises:
        FileNotFoundError: if there is nothing at `root`.
        ValueError: if no layout is recognised, or there is one that cannot be used.
    """
    if not root.exists():
        raise FileNotFoundError(f"there is no {root}")
    order = ("label", "labels", "instances", "boxes", "mask")
    if found := next((target for target in order if _fits(root, target)), None):
        return found
    for target in order:
        _first(root, target, RECOGNISERS)  # which says what is wrong with a layout that is recognised
    known = "; ".join(f"for {TASKS[target]} {KNOWN[target]}" for target in order)
    raise ValueError(
        f"{root} holds {_seen(root)}, in no layout known. {_unreadable(root)}Known are {known}; see docs/your_data.md"
    )


def _first(root: Path, target: str, recognisers: Sequence[Recogniser]) -> Layout | None:
    for folder in _nested(root):
        for recogniser in recognisers:
            if (found := recogniser(folder, target)) is not None:
                return found
    return None


def _fits(root: Path, target: str) -> bool:
    try:
        return _first(root, target, RECOGNISERS) is not None
    except (ValueError, OSError):
        return False


def _nested(root: Path) -> Iterator[Path]:
    """`root`, and folders in it as long as they hold nothing but one folder, as archives do when unpacked."""
    yield root
    for _ in range(DEEPEST):
        entries = [] if root.is_file() else [path for path in root.iterdir() if not is_hidden(path.name)]
        if len(entries) != 1 or not entries[0].is_dir():
            return
        root = entries[0]
        yield root


def _seen(root: Path) -> str:
    """What lies in a folder, in words."""
    if root.is_file():
        return f"{root.name}, a file"
    folders = [path.name for path in subfolders(root)]
    kinds = Counter(path.suffix.lower() or "no suffix" for path in root.iterdir() if path.is_file())
    words = [f"the folders {listing(folders)}"] if folders else []
    words += [f"{count} files {suffix}" for suffix, count in kinds.most_common(5)]
    return " and ".join(words) or "nothing"


def _unreadable(root: Path, target: str = "label") -> str:
    """What is wrong with the tables and arrays in `root`, in sentences; nothing for a target that others serve."""
    problems = []
    for path in sorted(root.iterdir()) if root.is_dir() and target in ("label", "labels") else ():
        try:
            if path.suffix.lower() in (".csv", ".tsv") and not is_hidden(path.name):
                _read(path)
            elif path.suffix.lower() == ".npz" and not is_hidden(path.name):
                arrays_of(path)
        except (ValueError, OSError) as error:
            option = f" (of data=labels_csv data.csv={path})" if "give data." in str(error) else ""
            problems.append(f"{error}{option}. ")
    return "".join(problems)


def table(root: Path, target: str) -> Layout | None:
    """A CSV or TSV file with a row for each image."""
    if target not in ("label", "labels"):
        return None
    files = [root] if root.is_file() else sorted(path for path in root.iterdir() if not is_hidden(path.name))
    problems, found = [], []
    for path in files:
        if path.suffix.lower() not in (".csv", ".tsv") or path.name.startswith("_"):
            continue
        try:
            found.append((path, *_read(path)))
        except (ValueError, OSError) as error:
            problems.append(str(error))
    if len(found) > 1:
        raise ValueError(
            f"{root} holds several tables of labels: {listing([path.name for path, *_ in found])}. Name one, such as "
            f"data.root={found[0][0]}"
        )
    if not found:
        if problems and (root.is_file() or not subfolders(root)):
            raise ValueError(problems[0])
        return None
    ((path, folder, labelled),) = found
    sets = dict(Counter(labelled.splits or ["train"] * len(labelled.files)))
    about = f"{_counted(len(labelled.classes), 'label', 'labels')}, {_in_sets(sets)}"
    return Layout(f"the table {path.name}", about, LabelsCsv, {"csv": str(path), "root": str(folder)})


def _read(path: Path) -> tuple[Path, Labelled]:
    """The folder that a table's files are named from, and the table.

    Of several folders it is the one with most of them, since test images often have the names of training images.
    """
    found: list[tuple[int, Path, Labelled]] = []
    below = sorted(subfolders(path.parent), key=lambda folder: not folder.name.lower().startswith("train"))
    for folder in (path.parent, *below):
        try:
            labelled = read_labels(path, folder)
        except FileNotFoundError as error:
            missing = error
            continue
        found.append((sum(file.is_file() for file in labelled.files), folder, labelled))
        if found[-1][0] == len(labelled.files):
            break
    if not found:
        raise missing
    return max(found, key=lambda one: one[0])[1:]


def medmnist(root: Path, target: str) -> Layout | None:
    """One npz file with the arrays ``train_images``, ``train_labels`` and so on."""
    files = [root] if root.is_file() else [path for path in root.glob("*.npz") if not is_hidden(path.name)]
    if target not in ("label", "labels") or len(files) != 1 or files[0].suffix.lower() != ".npz":
        return None
    try:
        sets = arrays_of(files[0])
    except ValueError:
        if root.is_file():
            raise
        return None
    about = _in_sets({split: len(images) for split, (images, _) in sets.items()})
    return Layout(f"the arrays of {files[0].name}", about, NpzImages, {"file": str(files[0])}, takes=())


def class_folders(root: Path, target: str) -> Layout | None:
    """A folder of images for each class, perhaps in folders of splits."""
    if target != "label" or root.is_file():
        return None
    names = {path.name.lower() for path in subfolders(root)}
    if names & set(IMAGES) and names & {*MASKS, *NUMBERED}:  # of images with annotations
        return None
    if any(
        re.fullmatch(rf"({'|'.join(sum(SPLITS.values(), ()))})[_-]?\d+", name) for name in names
    ):  # COCO's train2017
        return None
    sets = class_sets(root)
    if "train" not in sets or mask_sets(root):
        return None
    classes = [path for path in subfolders(sets["train"]) if image_files(path)]
    if len(classes) < 2:
        return None
    counts = {split: sum(len(image_files(path)) for path in subfolders(sets[split])) for split in sets}
    used = {split: count for split, count in counts.items() if count}
    apart = [f"{sets[split].name}/ has no folders of classes and is not used" for split in sets if not counts[split]]
    about = "; ".join([f"{len(classes)} classes, {_in_sets(used)}", *apart])
    return Layout("ImageFolder", about, ImageFolder, {"root": str(root)})


def mask_folders(root: Path, target: str) -> Layout | None:
    """Images with a mask each."""
    if target != "mask" or root.is_file() or "train" not in (sets := mask_sets(root)):
        return None
    lists = listed_names(root)
    counts = {split: len(names) for split, names in lists.items()} or {
        split: len(pairs(*folders, Problems(root))) for split, folders in sets.items()
    }
    names = names_beside(root)
    named = len(names.classes or names.values or set(names.colours or ()) - {"unlabelled"})
    options: dict[str, Any] = {"root": str(root)}
    if not named and lists and (published := published_names(root)):
        options, named = {**options, "classes": published}, len(published)
    unused = _unused(root, [images for images, _ in sets.values()], "masks")
    about = f"{f'{named} classes, ' if named else ''}{_in_sets(counts)}{unused}"
    name = "masks of Pascal VOC's layout" if lists else "images with masks"
    return Layout(name, about, MaskFolder, options, takes=("image_size", "classes", "values", "colours"))


def coco(root: Path, target: str) -> Layout | None:
    """COCO json with masks, one for each split or for all images."""
    if target not in Coco.targets or root.is_file():
        return None
    found: dict[Split, tuple[Path, Path, int]] = {}
    parsed: dict[Path, dict[str, Any]] = {}
    for path in sorted(file for depth in ("*", "*/*", "*/*/*") for file in root.glob(f"{depth}.json")):
        name = path.relative_to(root)
        if any(map(is_hidden, name.parts)) or (content := _coco_json(path)) is None:
            continue
        split = _split_of(name)
        if split in found:
            raise ValueError(
                f"{found[split][1]} and {path} are both annotations of the {split} set: give data=coco_folder with "
                "data.train_json, data.train_folder, data.test_json and data.test_folder"
            )
        names = [
            str(image["file_name"]) for image in content["images"] if isinstance(image, dict) and "file_name" in image
        ]
        found[split] = (_folder_of(names[:20], path, root, split), path, len(names))
        parsed[path] = content
    if "train" not in found and len(found) == 1:
        found = {"train": next(iter(found.values()))}
    if "train" not in found:
        return None
    annotations = [one for content in parsed.values() for one in content["annotations"] if isinstance(one, dict)]
    if target != "boxes" and annotations and not any(one.get("segmentation") for one in annotations):
        return None
    options: dict[str, Any] = {"test_folder": None, "test_json": None, "parsed": parsed}
    for split, (folder, path, _) in found.items():
        options |= {f"{split}_folder": str(folder), f"{split}_json": str(path)}
    if target != "mask":
        options["image_size"] = OBJECTS_SIZE
    about = _in_sets({split: count for split, (_, _, count) in found.items()})
    about += _unused(root, [folder for folder, *_ in found.values()], "annotations")
    return Layout("COCO json", about, Coco, options, takes=("image_size", "classes"))


def _unused(root: Path, used: Sequence[Path], what: str) -> str:
    """The folders of sets with images of which `what` is missing, in words."""
    folders = {*split_folders(root).values(), *split_folders(images_folder(root) or root).values()}
    idle = [
        f
        for f in sorted(folders)
        if image_files(f) and not any(f.is_relative_to(u) or u.is_relative_to(f) for u in used)
    ]
    return "".join(f"; {folder.relative_to(root)}/ has no {what} and is not used" for folder in idle)


def _coco_json(path: Path) -> dict[str, Any] | None:
    """The content of a json, if it is one of objects: captions and keypoints alone are none."""
    if path.stem.startswith(("captions", "person_keypoints", "panoptic", "stuff")):
        return None
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        return None
    keys = ("images", "annotations", "categories")
    return content if isinstance(content, dict) and all(isinstance(content.get(key), list) for key in keys) else None


def yolo(root: Path, target: str) -> Layout | None:
    """YOLO's ``data.yaml``, or text files of labels with ``classes.txt``."""
    if target not in Yolo.targets or (root.is_file() and root.suffix.lower() not in (".yaml", ".yml")):
        return None
    data = Yolo(str(root), target=target)
    described = "names" in data.content and {*SPLITS} & {*data.content}
    if max(data.line_lengths(), default=5 if described else 0) < (5 if target == "boxes" else 7):
        return None
    return _object_files("YOLO's labels", data, f"{_counted(len(data.names), 'class', 'classes')}, ")


def voc_xml(root: Path, target: str) -> Layout | None:
    """Pascal VOC's XML files."""
    if target not in VocXml.targets or root.is_file():
        return None
    data = VocXml(str(root), target=target)
    return _object_files("XML files of Pascal VOC's form", data) if data.annotation_files("train") else None


def labelme(root: Path, target: str) -> Layout | None:
    """JSON files of labelme, one for each image."""
    if target not in Labelme.targets or root.is_file():
        return None
    data = Labelme(str(root), target=target)
    known = any(map(is_labelme, data.annotation_files("train")[:PEEK]))
    return _object_files("JSON files of labelme", data) if known else None


def numbered_masks(root: Path, target: str) -> Layout | None:
    """Images with masks that number objects, in folders of any names."""
    if target not in NumberedMasks.targets or not mask_sets(root, (*NUMBERED, *MASKS)):
        return None
    return _object_files("masks that number objects", NumberedMasks(str(root), target=target), takes=("instances",))


def numbered_by_name(root: Path, target: str) -> Layout | None:
    """The same where the names of folders say so."""
    folders = [] if root.is_file() else [root, *split_folders(root).values()]
    if not any(images_and_masks(folder, NUMBERED) for folder in folders):
        return None
    return numbered_masks(root, target)


def _object_files(name: str, data: ObjectFiles, about: str = "", takes: Sequence[str] = ()) -> Layout:
    counts = {split: len(images) for split, images in data.images.items()}
    options = {"root": str(data.root)} | ({} if data.target == "mask" else {"image_size": OBJECTS_SIZE})
    used = {path.parent for images in data.images.values() for path in images}
    about += _in_sets(counts) + _unused(data.root, sorted(used), "files of objects")
    return Layout(name, about, type(data), options, takes=("image_size", "classes", *takes))


def _split_of(path: Path) -> Split:
    """The split that a path names, in its file or in a folder; train where it names none."""
    words = re.findall(r"[a-z]+", str(path).lower())
    return next((s for word in reversed(words) for s, names in SPLITS.items() if word in names), "train")


def _folder_of(names: Sequence[str], path: Path, root: Path, split: Split) -> Path:
    """The folder in which the images that a json names lie."""
    folders = [path.parent, *(path.with_suffix(""),), root, *_below(root, 2)]
    own = [
        folder for folder in folders if _split_of(folder.relative_to(root)) == split or folder in (root, path.parent)
    ]
    best = max(own, key=lambda folder: sum((folder / name).is_file() for name in names), default=root)
    if not any((best / name).is_file() for name in names):  # written otherwise: by their last part, say
        best = max(own, key=lambda folder: sum(ImageFinder(folder)(name).is_file() for name in names), default=root)
    return best


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for path in subfolders(folder):
        yield path
        if depth > 1:
            yield from _below(path, depth - 1)


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _in_sets(counts: dict[Any, int]) -> str:
    """Counts of images by split, in words."""
    total = _counted(sum(counts.values()), "image", "images")
    if len(counts) == 1:
        return f"{total} in one set"
    return f"{total} ({', '.join(f'{split} {counts[split]:,}' for split in SPLITS if split in counts)})"


RECOGNISERS: tuple[Recogniser, ...] = (
    *(table, medmnist, mask_folders, coco, yolo, voc_xml, labelme, numbered_by_name, class_folders),
)
