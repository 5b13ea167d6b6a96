"""Measure trained checkpoints on any annotated images of their kind.

    cv-lab evaluate CHECKPOINT [CHECKPOINT ...] data=folder data.root=my_images

The data set is named as for training. Its test images are measured with the metrics of the trial; --split takes others.
Images are scaled as the trial scaled its own. Classes are matched by their names. Metrics are printed with the number
of images and, where images add up to them, their 95 % interval; several checkpoints are compared with the first, image
by image. The folder --out gets metrics.csv and, for each checkpoint, test.csv with what is said of each image.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning import Trainer

from cv_lab.callbacks.evidence import TestEvidence
from cv_lab.config import CONF, register_config, split_override
from cv_lab.data.base import ImageData
from cv_lab.files import write_csv
from cv_lab.report.evidence import Evidence
from cv_lab.report.statistics import bootstrap_interval, compare_images
from cv_lab.tasks.base import Task
from cv_lab.trial.build import load_task
from cv_lab.trial.predict import add_loading

SPLITS = ("test", "val", "train")
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
        split: "test", "val" or "train".
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
    targets = [out / "metrics.csv", *(folder / name for folder in folders for name in ("test.npz", "test.csv"))]
    if (existing := [str(target) for target in targets if target.exists()]) and not options.force:
        raise ValueError(f"{', '.join(existing)} exist already: give --force to replace them, or another --out")
    tasks = [load_task(checkpoint, options.trust, options.weights) for checkpoint in checkpoints]
    rows: list[Row] = []
    first: Evidence | None = None
    for checkpoint, task, folder in zip(checkpoints, tasks, folders, strict=True):
        data = build_data(task, overrides, split)
        metrics = measure(task, data, folder)
        evidence = _evidence(task)
        rows += rows_of(str(checkpoint), task, len(data.test), metrics, evidence, first)
        first = first or evidence
    write_csv(out / "metrics.csv", rows)
    return rows


def build_data(task: Task, overrides: Sequence[str], split: str) -> ImageData:
    """The data set that `overrides` name, set up as a loaded `task` takes it, with `split` as its test set."""
    register_config()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=list(overrides))
    given = {split_override(override)[0] for override in overrides}
    assert task.image_size is not None
    if "image_size" in config.data and "data.image_size" not in given:
        config.data.image_size = _size_like(config, task.image_size)
    data = data_of(task, config)
    data.test = getattr(data, split)
    match_classes(task, data)
    return data


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
    """Give the test images of `data` the numbers that `task` has for their classes.

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
    data.test = data.test.subset(torch.arange(len(data.test)))
    data.test.labels, data.test.classes = numbers[data.test.labels], task.classes
    data.classes = task.classes


def measure(task: Task, data: ImageData, folder: Path) -> dict[str, float]:
    """Test `task` on ``data.test``, and write what it says of each image into `folder`; metrics by name."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(devices=1, callbacks=[TestEvidence(folder)], enable_progress_bar=False, **quiet)
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


def print_table(rows: Sequence[Row]) -> None:
    """Print the metrics of each checkpoint; shares in per cent."""
    for checkpoint in dict.fromkeys(row["checkpoint"] for row in rows):
        print(checkpoint)
        for row in (row for row in rows if row["checkpoint"] == checkpoint):
            factor, sign = (100, " %") if row["unit"] == "share" else (1, "")
            line = f"  {row['metric']:<28}{factor * row['value']:10.4g}{sign}  n = {row['n']}"
            if row["low"] is not None:
                line += f"  95 % interval {factor * row['low']:.4g} to {factor * row['high']:.4g}{sign}"
            if row["p"] is not None:
                line += f"  {factor * row['difference']:+.3g} to the first, p = {row['p']:.2g}"
            print(line)


if __name__ == "__main__":
    main()
