"""Measure trained checkpoints on any annotated images of their kind.

    cv-lab evaluate CHECKPOINT [CHECKPOINT ...] data=folder data.root=my_images

The data set is named as for training. Its test images are measured with the metrics of the trial; --split takes others,
or all. Images are scaled as the trial scaled its own. Classes are matched by their names. Metrics are printed with the
number of images and, where images add up to them, their 95 % interval; several checkpoints are compared in a table with
the first, image by image. The folder --out gets metrics.csv, a page, index.html, and for each checkpoint test.csv with
what is said of each image, and pictures in predictions/.
"""

import argparse
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning import Callback, Trainer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cv_lab.callbacks.evidence import TestEvidence
from cv_lab.config import CONF, register_config, split_override
from cv_lab.data.augment import Batch
from cv_lab.data.base import ImageData
from cv_lab.data.in_memory import InMemoryImages, eval_loader
from cv_lab.files import write_csv, write_text
from cv_lab.report.evidence import Evidence
from cv_lab.report.statistics import bootstrap_interval, compare_images
from cv_lab.report.templates import render
from cv_lab.tasks.base import Task
from cv_lab.trial.build import load_task
from cv_lab.trial.predict import add_loading

SPLITS = ("test", "val", "train", "all")
PICTURES = {  # of each target, the option of conf/pictures
    "label": "classification",
    "labels": "multilabel",
    "mask": "segmentation",
    "instances": "instances",
    "boxes": "instances",
}
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `argv` are its arguments, by default those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="+", metavar="CHECKPOINT | KEY=VALUE", help="checkpoints; data=NAME, data.*")
    parser.add_argument("--split", choices=SPLITS, default="test", help="the part of the data set to measure on")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder to write to")
    parser.add_argument("--force", action="store_true", help="replace files of earlier evaluations")
    add_loading(parser)
    options = parser.parse_intermixed_args(argv)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*(does not have many workers|LeafSpec).*")  # as trials do
    # Names of trials hold "=", too.
    checkpoints = [Path(word) for word in options.arguments if word.endswith(".ckpt") or os.path.isfile(word)]
    overrides = [word for word in options.arguments if Path(word) not in checkpoints]
    try:
        rows = evaluate(checkpoints, overrides, options.split, options.out, options)
    except (FileNotFoundError, ValueError, HydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")
    print_table(rows)
    print(options.out)


def evaluate(
    checkpoints: Sequence[Path], overrides: Sequence[str], split: str, out: Path, options: argparse.Namespace
) -> list[Row]:
    """Measure `checkpoints` and write the results to the folder `out`.

    Args:
        checkpoints: of trials.
        overrides: of the config, which name the data set.
        split: one of `SPLITS`.
        out: is created if it does not exist.
        options: with `trust` and `weights`, see :func:`~cv_lab.trial.build.load_task`, and `force`, which replaces
            files that exist.

    Returns:
        A row for each checkpoint and metric.

    Raises:
        FileNotFoundError: if a checkpoint does not exist, or the data do not.
        ValueError: if no checkpoint or no data are named, the classes do not fit, or files exist already.
    """
    if not checkpoints or not any(split_override(override)[0] == "data" for override in overrides):
        raise ValueError(
            "give a checkpoint, and the data set as for training: cv-lab evaluate best.ckpt data=folder ..."
        )
    folders = [out / str(i) for i in range(1, len(checkpoints) + 1)] if len(checkpoints) > 1 else [out]
    names = ("test.npz", "test.csv", "predictions")
    targets = [out / "metrics.csv", out / "index.html", *(folder / name for folder in folders for name in names)]
    if (existing := [str(target) for target in targets if target.exists()]) and not options.force:
        raise ValueError(f"{', '.join(existing)} exist already: give --force to replace them, or another --out")
    tasks = [load_task(checkpoint, options.trust, options.weights) for checkpoint in checkpoints]
    rows: list[Row] = []
    first: Evidence | None = None
    for number, (checkpoint, task, folder) in enumerate(zip(checkpoints, tasks, folders, strict=True), start=1):
        config = compose_config(task, overrides)
        data = build_data(task, config, overrides)
        images = restrict(data, split)
        metrics = measure(task, data, folder, config)
        evidence = _evidence(task)
        measured = rows_of(str(checkpoint), task, images, metrics, evidence, first)
        rows += [{"number": number, **row} for row in measured]
        first = first or evidence
    write_csv(out / "metrics.csv", rows)
    write_text(out / "index.html", page(rows, [folder.relative_to(out) for folder in folders], out, split))
    return rows


def compose_config(task: Task, overrides: Sequence[str]) -> DictConfig:
    """The config of `overrides`, with the pictures of a loaded `task`."""
    register_config()
    pictures = [f"pictures={PICTURES[task.target]}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        given = {split_override(override)[0] for override in overrides}
        return compose("train", overrides=[*overrides, *([] if "pictures" in given else pictures)])


def build_data(task: Task, config: DictConfig, overrides: Sequence[str]) -> ImageData:
    """The data set of a `config`, which `overrides` have named, set up as a loaded `task` takes it."""
    given = {split_override(override)[0] for override in overrides}
    assert task.image_size is not None
    if "image_size" in config.data and "data.image_size" not in given:
        config.data.image_size = _size_like(config, task.image_size)
    data = data_of(task, config)
    match_classes(task, data)
    return data


def restrict(data: ImageData, split: str) -> int:
    """Make `split` the test set of `data`, and show pictures of its images; return the number of these."""
    assert data.train is not None
    splits: Sequence[Any] = ("train", "val", "test") if split == "all" else (split,)
    parts = list({id(getattr(data, name)): (name, getattr(data, name)) for name in splits}.values())
    files = [file for name, _ in parts for file in data.files_of(name)]
    data.files_of = lambda split: files  # type: ignore[method-assign]
    sets = [images for _, images in parts]
    if split != "all":
        data.test = data.val = sets[0]
        return len(data.test)
    data.test_sets = lambda: sets  # type: ignore[method-assign]
    data.test_dataloader = lambda: Joined(sets, data.batch_size)  # type: ignore[method-assign, assignment, return-value]
    return sum(map(len, sets))


class Joined:
    """The batches of several sets of images, one set after the other."""

    def __init__(self, parts: Sequence[InMemoryImages], batch_size: int) -> None:
        self.loaders = [eval_loader(part, batch_size) for part in parts]
        self.starts = np.cumsum([0, *map(len, parts)]).tolist()

    def __len__(self) -> int:
        return sum(map(len, self.loaders))

    def __iter__(self) -> Iterator[Batch]:
        for loader, start in zip(self.loaders, self.starts, strict=False):
            for batch in loader:
                yield {**batch, "index": batch["index"] + start}


def data_of(task: Task, config: DictConfig) -> ImageData:
    """The data set of a composed `config`, set up as a loaded `task` takes it."""
    config.data.augmentation = None
    make = instantiate(config.data, _partial_=True)
    data: ImageData = make(preprocessing=task.preprocessing, target=task.target)
    data.prepare_data()
    data.setup()
    return data


def _size_like(config: DictConfig, size: tuple[int, int]) -> int | list[int]:
    return list(size) if OmegaConf.is_list(config.data.image_size) else max(size)


def match_classes(task: Task, data: ImageData) -> None:
    """Give the images of `data` the numbers that `task` has for their classes.

    Raises:
        ValueError: if the data have classes that the task does not know, or other numbers for those of masks or
            objects.
    """
    if unknown := [name for name in data.classes if name not in task.classes]:
        raise ValueError(
            f"the data have the classes {', '.join(unknown)}, which the checkpoint does not know: it tells "
            f"{', '.join(task.classes)} apart. Rename the classes of the data, or leave out images of others"
        )
    if data.classes == task.classes:
        return
    if task.target != "label":
        raise ValueError(
            f"the data number their classes {', '.join(data.classes)}, but the checkpoint {', '.join(task.classes)}: "
            "give the data the same classes in the same order"
        )
    numbers = torch.tensor([task.classes.index(name) for name in data.classes])
    named = {name: images for name, images in vars(data).items() if isinstance(images, InMemoryImages)}
    renumbered = {}
    for images in named.values():
        renumbered[images] = images.subset(torch.arange(len(images)))
        renumbered[images].labels, renumbered[images].classes = numbers[images.labels], task.classes
    for name, images in named.items():  # one set may have two names
        setattr(data, name, renumbered[images])
    data.classes = task.classes


def measure(task: Task, data: ImageData, folder: Path, config: DictConfig) -> dict[str, float]:
    """Test `task`, write what it says of each image and the pictures of `config` into `folder`; metrics by name."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    callbacks: list[Callback] = [TestEvidence(folder)]
    if config.pictures is not None:
        config.pictures.folder = str(folder / "predictions")
        callbacks.append(instantiate(config.pictures))
    trainer = Trainer(devices=1, callbacks=callbacks, enable_progress_bar=False, **quiet)
    trainer.test(task, data, verbose=False)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def rows_of(
    checkpoint: str,
    task: Task,
    n: int,
    metrics: Mapping[str, float],
    evidence: Evidence | None,
    first: Evidence | None,
) -> list[Row]:
    """A row for each metric: value, number of images `n`, interval, and the comparison with the `first` checkpoint."""
    rows = []
    for name, value in metrics.items():
        unit = task.unit_of(name)
        metric = name.partition("/")[2]
        row: Row = {"checkpoint": checkpoint, "metric": metric, "value": value, "unit": unit.unit if unit else "plain"}
        scores = evidence and evidence.scores(metric)
        low, high = (scores and bootstrap_interval([scores])) or (None, None)
        row |= {"n": n, "low": low, "high": high, "difference": None, "p": None}
        others = first and first.scores(metric)
        if scores and others and evidence and first and evidence.images == first.images:
            comparison = compare_images(scores, others, exact=metric == "accuracy")
            row |= {"difference": comparison.difference, "p": comparison.p}
        rows.append(row)
    return rows


def _evidence(task: Task) -> Evidence | None:
    arrays = task.evidence()
    if not arrays:
        return None
    truth = arrays.get("truth", arrays.get("support", arrays["index"])).astype(np.int64).tobytes()
    return Evidence(len(arrays["index"]), list(task.classes), arrays, arrays["index"].tobytes() + truth)


def cell(row: Row) -> list[str]:
    """Value, 95 % interval, and difference to the first checkpoint with its p, where known; shares in per cent."""
    factor, sign = (100, " %") if row["unit"] == "share" else (1, "")
    low, high, p = row["low"], row["high"], row["p"]
    parts = [
        "-" if math.isnan(row["value"]) else f"{factor * row['value']:.4g}{sign}",
        "" if low is None else f"{factor * low:.4g} to {factor * high:.4g}{sign}",
        "" if p is None else f"{factor * row['difference']:+.3g}{sign}, p = {p:.2g}",
    ]
    return [part for part in parts if part]


def print_table(rows: Sequence[Row]) -> None:
    """Print the metrics, a column for each checkpoint."""
    for number, checkpoint in names_of(rows).items():
        print(f"{number}: {checkpoint}")
    table = Table("metric", *map(str, names_of(rows)), box=None, pad_edge=False)
    for metric, cells in by_metric(rows).items():
        table.add_row(Text(metric), *("\n".join(lines) for lines in cells))
    Console().print(table)
    print(f"n = {rows[0]['n']} images; below a figure its 95 % interval, and what it differs from that of 1")


def names_of(rows: Sequence[Row]) -> dict[int, str]:
    """The checkpoints by number."""
    return {row["number"]: row["checkpoint"] for row in rows}


def by_metric(rows: Sequence[Row]) -> dict[str, list[list[str]]]:
    """For each metric the cell of each checkpoint; an empty one for a checkpoint of a task without this metric."""
    cells = {(row["metric"], row["number"]): cell(row) for row in rows}
    numbers = names_of(rows)
    return {metric: [cells.get((metric, number), []) for number in numbers] for metric, _ in cells}


def page(rows: Sequence[Row], folders: Sequence[Path], out: Path, split: str) -> str:
    """HTML with the metrics, a column for each checkpoint, and the pictures in `folders` within `out`."""
    pictures = {
        number: [path.relative_to(out).as_posix() for path in sorted((out / folder / "predictions").glob("*.png"))]
        for number, folder in enumerate(folders, start=1)
    }
    content = {"names": names_of(rows), "metrics": by_metric(rows), "pictures": pictures}
    return render("evaluate.html.jinja", {**content, "images": rows[0]["n"], "split": split}, "cv_lab.trial")


if __name__ == "__main__":
    main()
