"""Look at your own data without training: what is recognised, what is dropped, and sample images on a page.

    cv-lab data my_images
    cv-lab data my_masks task=semantic_segmentation 'data.values={0: background, 255: road}'

PATH is a folder, or a file (CSV, npz). Keys of the data, the task and the model are given as for training. The folder
--out gets index.html, classes.csv, dropped.csv (every file that is dropped or noted, and why), and duplicates.csv
(images that look like one of another set).
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import get_class, instantiate
from omegaconf.errors import OmegaConfBaseException

from cv_lab.config import CONF, register_config, split_override
from cv_lab.data.alike import most_alike, thumbnails
from cv_lab.data.instances import InstanceImages
from cv_lab.data.own import OwnData
from cv_lab.data.photos import PhotoData
from cv_lab.data.recognise import TASKS, target_of
from cv_lab.files import write_csv
from cv_lab.tasks.base import Task
from cv_lab.text import listing
from cv_lab.trial.look_page import Findings, areas_of, files_of, numbers, read_by, sets_of, write_page

SHOWN = 128  # pixels: side of images of classes and labels, which are scaled for the page alone
RARE = 10  # a class with this fraction of the most frequent one's images, or less, is called rare
SMALL = 8  # pixels: side of a square that is as large as an object which hardly anything is left of
IGNORED = ("void", "unlabeled", "ignore", "ignored", "unknown")  # common names of pixels without a label
WEIGHING = {
    "label": ", or weigh classes, such as by loss=weighted_cross_entropy",
    "labels": ", or weigh labels by task.positive_weights=balanced",
    "mask": ", or weigh classes, such as by loss=weighted_cross_entropy",
}
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Look at the data that `arguments` name; None takes those of the process.

    Raises:
        SystemExit: if they cannot be used.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, metavar="PATH", help="a folder, or a file (CSV, npz)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="task=NAME, data=NAME, data.KEY=VALUE")
    names = {task.removeprefix("task="): target for target, task in TASKS.items() if target != "boxes"}
    names["object_detection"] = "boxes"
    parser.add_argument("--task", choices=names, help="by default the first that the data serve")
    parser.add_argument("--out", type=Path, default=Path("data_report"), help="folder of the page and tables")
    given = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        if (given.out / "index.html").exists() and not (given.out / "dropped.csv").exists():
            raise ValueError(f"{given.out} holds an index.html of something else: give another folder with --out")
        data = build_data(given.path.expanduser(), given.overrides, names.get(given.task))
        data.setup()
    except (ValueError, OSError, HydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")
    findings = look(data, str(given.path))
    for name, rows in (
        ("classes", findings.classes),
        ("dropped", findings.dropped),
        ("duplicates", findings.duplicates),
    ):
        write_csv(given.out / f"{name}.csv", rows)
    write_page(findings, data, given.out / "index.html")
    print(text_of(findings))
    print(f"page and tables: {given.out / 'index.html'}")


def build_data(root: Path, overrides: Sequence[str], target: str | None = None) -> PhotoData:
    """The data set at `root` that `overrides` of the config describe, not set up.

    Args:
        root: a folder or a file.
        overrides: of the config; without a task, that of `target` is chosen.
        target: see :class:`~cv_lab.data.base.ImageData`; the first that the data serve by default.

    Raises:
        FileNotFoundError: if there is nothing at `root`.
        ValueError: if no layout is recognised, or the data set is not one of files.
    """
    keys = {split_override(override)[0] for override in overrides}
    chosen = [] if "task" in keys else TASKS[target or target_of(root)].split()
    chosen += [] if "data" in keys else ["data=own"]
    register_config()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[*chosen, *overrides])
    config.data_dir = str(root)
    if "root" in config.data:
        config.data.root = str(root)
    config.data.augmentation = None
    kind: type[Task] = get_class(config.task._target_)
    data = instantiate(config.data, _partial_=True)(target=kind.target_with(instantiate(config.model)))
    if not isinstance(data, PhotoData):
        raise ValueError(f"data={type(data).__name__} has no files to look at")
    if isinstance(data, OwnData) and data.target in ("label", "labels") and "image_size" in data.layout.takes:
        data.own.setdefault("image_size", SHOWN)
    return data


def look(data: PhotoData, title: str) -> Findings:
    """What is to be said of a data set that is set up."""
    classes, duplicates = class_table(data), near_duplicates(data)
    about = f"{data.layout.name}, {data.layout.about}" if isinstance(data, OwnData) else type(data).__name__
    counted = {"mask": "pixels", "instances": "objects", "boxes": "objects"}.get(data.target, "images")
    return Findings(
        title=title,
        about=about,
        counted=counted,
        classes=classes,
        sizes=[*image_sizes(data), *object_sizes(data)],
        advice=remarks(data, classes, duplicates),
        dropped=data.problem_files,
        duplicates=duplicates,
    )


def text_of(findings: Findings) -> str:
    """The table of classes and what else is found, for a terminal."""
    rows = [list(row.values()) for row in numbers(findings)]
    if findings.counted != "pixels":
        columns = list(zip(*(list(row.values())[1:] for row in findings.classes), strict=True))
        rows.append(["all", *(f"{sum(column):,}" for column in columns)])
    cells = [[f"{findings.counted} of", *list(findings.classes[0])[1:]], *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    table = [
        "  ".join(
            [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        )
        for first, *others in cells
    ]
    return "\n".join([*table, *findings.sizes, *findings.advice])


def class_table(data: PhotoData) -> list[Row]:
    """Images, pixels or objects of each class in each set."""
    counts = {name: images.class_counts().counts.tolist() for name, images in sets_of(data).items()}
    return [{"class": name, **{s: counts[s][k] for s in counts}} for k, name in enumerate(data.classes)]


def near_duplicates(data: PhotoData) -> list[Row]:
    """For each image of a set that looks like one of another set, the most similar of these."""
    sets = {name: images for name, images in sets_of(data).items() if name != "val" or data.val is not data.test}
    small = {name: thumbnails(images) for name, images in sets.items()}
    files = {name: files_of(data, name) for name in sets}
    names = list(sets)
    return [
        {"one": files[one][i], "other": files[other][j], "sets": f"{one}/{other}"}
        for k, one in enumerate(names)
        for other in names[k + 1 :]
        for i, j in most_alike(small[one], small[other])
    ]


def image_sizes(data: PhotoData) -> list[str]:
    """The smallest, median and largest images, of all sets."""
    sizes = sorted((size for some in read_by(data).sizes for size in some), key=lambda size: size[0] * size[1])
    if not sizes:
        return []
    three = [f"{width} x {height}" for width, height in (sizes[0], sizes[len(sizes) // 2], sizes[-1])]
    return [f"sizes of images, width x height: smallest {three[0]}, median {three[1]}, largest {three[2]} pixels"]


def object_sizes(data: PhotoData) -> list[str]:
    """The smallest, median and largest objects of the training set, as shares of their image."""
    if not isinstance(data.train, InstanceImages):
        return []
    each = sorted(areas_of(data.train))
    words = []
    for name, (area, share, image, number) in (
        ("smallest", each[0]),
        ("median", each[len(each) // 2]),
        ("largest", each[-1]),
    ):
        kind = data.classes[data.train.objects[image].classes[number]]
        words.append(f"{name} {area:,.0f} pixels ({100 * share:.2g} % of its image, {kind})")
    return [f"areas of training objects: {', '.join(words)}"]


def remarks(data: PhotoData, classes: Sequence[Row], duplicates: Sequence[Row]) -> list[str]:
    """Ordinary mistakes, with what to do about them."""
    lines = []
    try:
        data.refuse_one_class()
    except ValueError as error:
        lines.append(f"Training refuses these data: {error}.")
    most = max(row["train"] for row in classes)
    if rare := [row["class"] for row in classes if row["train"] * RARE <= most]:
        lines.append(
            f"Rare in the training set (a tenth of the most frequent class or less): {listing(rare)}. Give more images "
            f"of them{WEIGHING.get(data.target, '')}."
        )
    for name in ("val", "test"):
        if absent := [row["class"] for row in classes if row[name] == 0]:
            lines.append(f"Not in the {name} set, so that nothing is known of them: {listing(absent)}.")
    if data.target == "mask" and (ignored := [name for name in data.classes if name.lower().strip("_") in IGNORED]):
        lines.append(
            f"{ignored[0]} is learnt and judged like any other class. If it marks pixels without a label, rename it "
            "to unlabelled in the file or the option that names it, and its pixels count nowhere."
        )
    lines += _small_objects(data)
    if duplicates:
        lines.append(
            f"{len(duplicates)} {'image looks' if len(duplicates) == 1 else 'images look'} like one of another set "
            "(duplicates.csv): if they are the same, figures are too good. Keep one of each, or put both into one set."
        )
    return lines


def _small_objects(data: PhotoData) -> list[str]:
    train = data.train
    if not isinstance(train, InstanceImages):
        return []
    scaled = np.concatenate([o.areas[~o.crowd] * o.scale[0] * o.scale[1] for o in train.objects])
    small = int((scaled < SMALL**2).sum())
    if small * 10 < len(scaled):
        return []
    height, width = train.images.shape[2:]
    return [
        f"{small:,} of {len(scaled):,} training objects are smaller than {SMALL} x {SMALL} pixels at "
        f"data.image_size=[{height},{width}]: a larger one shows more of them."
    ]
