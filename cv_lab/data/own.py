"""Bring your own data: recognise what lies in a folder, say so, and leave it to the data module of that layout."""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cv_lab.data.base import TEST_FRACTION, Split
from cv_lab.data.coco import Coco
from cv_lab.data.coco_json import ImageFinder
from cv_lab.data.folder import ImageFolder, class_sets
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.labels_csv import LabelsCsv, read_labels
from cv_lab.data.layout import SPLITS, image_files, is_hidden, subfolders
from cv_lab.data.mask_files import Names
from cv_lab.data.mask_folder import MaskFolder
from cv_lab.data.mask_pairs import IMAGES, MASKS, listed_names, mask_sets, names_beside, pairs
from cv_lab.data.npz import NpzImages, arrays_of
from cv_lab.data.photos import PhotoData
from cv_lab.data.problems import Problems, listed
from cv_lab.data.voc import CLASSES

log = logging.getLogger(__name__)
DEEPEST = 3  # folders that hold nothing but another folder
TASKS = {
    "label": "task=classification",
    "labels": "task=multilabel",
    "mask": "task=semantic_segmentation",
    "instances": "task=instance_segmentation",
}
KNOWN = {
    "label": "CLASS/*.jpg, train/CLASS/*.jpg (val, test), a CSV with the columns file and label, MedMNIST's npz",
    "labels": "a CSV with the columns file and labels, or a column of 0 and 1 for each label; MedMNIST's npz",
    "mask": "images/ and masks/, train/images and train/masks, images/train and masks/train, NAME_mask.png beside "
    "NAME.jpg, Pascal VOC, COCO json",
    "instances": "COCO json with a folder of images, for each split or for all",
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


class OwnData(PhotoData):
    """Images of one's own in any layout of `RECOGNISERS`, for any task.

    Args:
        root: a folder, or a file (CSV, npz).
        image_size: of the data module of the layout; None leaves it to that.
        classes: of masks and objects, see :class:`~cv_lab.data.mask_folder.MaskFolder` and
            :class:`~cv_lab.data.coco.Coco`.
        values: of masks.
        colours: of masks.
        options: see :class:`~cv_lab.data.photos.PhotoData`.
    """

    targets = ("label", "labels", "mask", "instances")

    def __init__(
        self,
        root: str,
        image_size: int | Sequence[int] | None = None,
        classes: Sequence[str] | str | int | None = None,
        values: Names | None = None,
        colours: Names | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.options = Path(root).expanduser(), options
        own = {"image_size": image_size, "classes": classes, "values": values, "colours": colours}
        self.own = {name: value for name, value in own.items() if value is not None}

    @cached_property
    def layout(self) -> Layout:
        """What lies in the folder.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: if no layout is recognised, or it takes an option not that was given.
        """
        layout = recognise(self.root, self.target)
        if unused := [f"data.{name}" for name in self.own if name not in layout.takes]:
            raise ValueError(f"{', '.join(unused)} has no effect on {layout.name} in {self.root}: leave it out")
        return layout

    @cached_property
    def inner(self) -> PhotoData:
        """The data module of the layout."""
        return self.layout.data(**{**self.layout.options, **self.own, **self.options, "target": self.target})

    def fingerprint(self) -> str:
        return self.inner.fingerprint()

    def splits(self) -> tuple[Split, ...]:
        return self.inner.splits()

    def load(self, split: Split) -> InMemoryImages:
        return self.inner.load(split)

    def setup(self, stage: str | None = None) -> None:
        """Say what was recognised, and set up its data module."""
        if self.train is not None:
            return
        log.info("%s: %s, %s%s", self.root, self.layout.name, self.layout.about, self._held_out())
        self.inner.setup(stage)
        self.train, self.val, self.test = self.inner.train, self.inner.val, self.inner.test
        self.classes, self.problems = self.inner.classes, self.inner.problems
        self.problem_files = self.inner.problem_files

    def _held_out(self) -> str:
        splits = self.splits()
        held_out = []
        if "val" not in splits and self.validation == "split":
            held_out.append(f"{100 * self.val_fraction:g} % held out for validation")
        if "test" not in splits:
            held_out.append(f"{100 * TEST_FRACTION:g} %{'' if held_out else ' held out'} for the test")
        return f": {' and '.join(held_out)}" if held_out else ""


def recognise(root: Path, target: str) -> Layout:
    """The layout of what lies in `root`, for a task that learns from `target`.

    Raises:
        FileNotFoundError: if there is nothing at `root`.
        ValueError: if no layout is recognised; with what was seen, what is known, and tasks that could take it.
    """
    if not root.exists():
        raise FileNotFoundError(f"there is no {root}: give data.root, the folder of your images")
    if found := _first(root, target):
        return found
    others = [TASKS[other] for other in TASKS if other != target and _fits(root, other)]
    advice = f"It would serve {' or '.join(others)}" if others else f"Known are {KNOWN[target]}; see docs/your_data.md"
    raise ValueError(f"{root} holds {_seen(root)}, in no layout known for {TASKS[target]}. {advice}")


def _first(root: Path, target: str) -> Layout | None:
    for folder in _nested(root):
        for recogniser in RECOGNISERS:
            if (found := recogniser(folder, target)) is not None:
                return found
    return None


def _fits(root: Path, target: str) -> bool:
    try:
        return _first(root, target) is not None
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
    words = [f"the folders {listed(folders)}"] if folders else []
    words += [f"{count} files {suffix}" for suffix, count in kinds.most_common(5)]
    return " and ".join(words) or "nothing"


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
            f"{root} holds several tables of labels: {listed([path.name for path, *_ in found])}. Name one, such as "
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


def _read(path: Path) -> tuple[Path, Any]:
    """The folder that a table's files are named from, and the table."""
    try:
        return path.parent, read_labels(path, path.parent)
    except FileNotFoundError:
        for folder in subfolders(path.parent):
            try:
                return folder, read_labels(path, folder)
            except FileNotFoundError:
                continue
        raise


def medmnist(root: Path, target: str) -> Layout | None:
    """One npz file with the arrays ``train_images``, ``train_labels`` and so on."""
    files = [root] if root.is_file() else list(root.glob("*.npz"))
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
    if names & set(IMAGES) and names & set(MASKS):  # of images with annotations
        return None
    if any(
        re.fullmatch(rf"({'|'.join(sum(SPLITS.values(), ()))})[_-]?\d+", name) for name in names
    ):  # COCO's train2017
        return None
    sets = class_sets(root)
    if "train" not in sets or mask_sets(root):
        return None
    classes = [path for path in subfolders(sets["train"]) if image_files(path, Problems(root))]
    if len(classes) < 2:
        return None
    counts = {split: sum(len(image_files(path, Problems(root))) for path in subfolders(sets[split])) for split in sets}
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
    if not named and lists and re.fullmatch(r"VOC20(0[7-9]|1[0-2])", root.name):
        options, named = {**options, "classes": CLASSES}, len(CLASSES)
    about = f"{f'{named} classes, ' if named else ''}{_in_sets(counts)}"
    name = "masks of Pascal VOC's layout" if lists else "images with masks"
    return Layout(name, about, MaskFolder, options, takes=("image_size", "classes", "values", "colours"))


def coco(root: Path, target: str) -> Layout | None:
    """COCO json with masks, one for each split or for all images."""
    if target not in ("instances", "mask") or root.is_file():
        return None
    found: dict[Split, tuple[Path, Path, int]] = {}
    for path in sorted(file for depth in ("*", "*/*", "*/*/*") for file in root.glob(f"{depth}.json")):
        if is_hidden(path.name) or (content := _coco_json(path)) is None:
            continue
        split = _split_of(path.relative_to(root))
        if split in found:
            raise ValueError(
                f"{found[split][1]} and {path} are both annotations of the {split} set: give data=coco_folder with "
                "data.train_json, data.train_folder, data.test_json and data.test_folder"
            )
        names = [
            str(image["file_name"]) for image in content["images"] if isinstance(image, dict) and "file_name" in image
        ]
        found[split] = (_folder_of(names[:20], path, root, split), path, len(names))
    if "train" not in found and len(found) == 1:
        found = {"train": next(iter(found.values()))}
    if "train" not in found:
        return None
    options: dict[str, Any] = {"test_folder": None, "test_json": None}
    for split, (folder, path, _) in found.items():
        options |= {f"{split}_folder": str(folder), f"{split}_json": str(path)}
    if target == "instances":
        options["image_size"] = (320, 320)
    about = _in_sets({split: count for split, (_, _, count) in found.items()})
    return Layout("COCO json", about, Coco, options, takes=("image_size", "classes"))


def _coco_json(path: Path) -> dict[str, Any] | None:
    """The content of a json, if it is one of objects: captions and keypoints alone are none."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        return None
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        return None
    return None if path.stem.startswith(("captions", "person_keypoints", "panoptic", "stuff")) else content


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


RECOGNISERS: tuple[Recogniser, ...] = (table, medmnist, mask_folders, coco, class_folders)
