"""What a reader needs beside the results: data, machine, commands, what a seed varies, what metrics mean."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from cv_lab.report.sections import Section, text
from cv_lab.report.tables import Cell, Table
from cv_lab.study.trials import Trial
from cv_lab.text import listing

GLOSSARY = {
    "accuracy": "share of the images whose class is predicted correctly",
    "f1": "harmonic mean of precision and recall, averaged over the classes with equal weight (macro)",
    "knn_accuracy": "accuracy of the nearest neighbours of the frozen features, without any training",
    "mean_iou": "intersection over union of prediction and truth, summed over all images, averaged over the classes",
    "mean_iou_foreground": "mean IoU without the background",
    "frequency_weighted_iou": "IoU of the classes, weighted by their pixels",
    "pixel_accuracy": "share of the labelled pixels that are predicted correctly",
    "mean_class_accuracy": "recall of the pixels of each class, averaged over the classes",
    "iou": "intersection over union of one class",
    "mask_map": "average precision of the masks, averaged over classes and IoU thresholds 0.50 to 0.95 (COCO)",
    "mask_map_50": "average precision of the masks at an IoU of at least 0.50",
    "mask_map_75": "average precision of the masks at an IoU of at least 0.75",
    "box_map": "average precision of the boxes, averaged over classes and IoU thresholds 0.50 to 0.95 (COCO)",
    "mask_ap": "average precision of the masks of one class",
    "box_ap": "average precision of the boxes of one class",
    "loss": "what the training minimises; in training it is a mean over the epoch, while the weights still change",
    "cross_entropy": "mean of minus the logarithm of the probability of the truth, without smoothing and weights",
}
SHOWN = 8  # values listed where trials differ


def data_table(section: Section) -> Table:
    """The data sets of a section's trials: sizes, classes, images, what chose the epoch, what was dropped."""

    def values(make: Callable[[Trial], object]) -> str:
        found = dict.fromkeys(str(value) for t in section.trials if (value := make(t)) not in (None, ""))
        return listing(list(found), SHOWN) if found else ""

    def images(split: str) -> str:
        return values(lambda t: None if (n := t.figure("images", split)) is None else f"{n:,.0f}")

    rows = {
        "data set": values(lambda t: t.parameters.get("data")),
        "training images": images("train"),
        "validation images": images("val"),
        "test images": images("test"),
        "classes": values(_classes),
        "image size": values(_size),
        "augmentation in training": values(lambda t: t.parameters.get("augmentation")),
        "the epoch is chosen on": values(_validation),
        "dropped or noted": values(_problems) or "nothing",
    }
    return _pairs(rows)


def environment_table(trials: Sequence[Trial]) -> Table:
    """Versions, device and code of the trials; values in which trials differ stand beside each other."""

    def values(make: Callable[[dict[str, Any]], object]) -> str:
        found = dict.fromkeys(str(value) for t in trials if (value := make(t.record)) not in (None, ""))
        return listing(list(found), SHOWN) if found else ""

    def version(name: str) -> str:
        return values(lambda record: (record.get("versions") or {}).get(name))

    packages = dict.fromkeys(name for t in trials for name in t.record.get("versions") or {})
    return _pairs(
        {
            "device": values(lambda record: record.get("device")),
            "host": values(lambda record: record.get("host")),
            "precision": values(lambda record: record.get("precision_used")),
            "Python": values(lambda record: record.get("python")),
            **{name: version(name) for name in packages},
            "code": values(_code),
        }
    )


def study_command(folder: Path) -> str:
    """The command that ran the study last, from its ``multirun.yaml``; "" without one."""
    try:
        overrides = yaml.load((folder / "multirun.yaml").read_text(), _LOADER)["hydra"]["overrides"]
        words = [*overrides["task"], *(o for o in overrides["hydra"] if not o.startswith("hydra.mode="))]
        return shlex.join(["python", "train.py", "-m", *map(str, words)])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return ""


def commands(section: Section) -> list[tuple[str, str]]:
    """Label and command of each trial, which repeats it alone."""
    return [
        (section.label(trial), shlex.join(["python", "train.py", *map(str, overrides)]))
        for trial in section.trials
        if isinstance(overrides := trial.record.get("overrides"), list) and overrides
    ]


def seed_sentence(section: Section) -> str:
    """What the seed of the trials decides."""
    seeds = listing(list(dict.fromkeys(text(t.parameters.get("seed")) for t in section.trials)), SHOWN)
    parts = ["the initial weights", "the order of the batches", "the augmentation"]
    if not section.validated_on_test:
        parts.insert(0, "which images are held out for validation (unless the data set has its own set)")
    return f"The seed ({seeds}) decides {listing(parts)}. The test images are the same for all seeds."


def methods(section: Section) -> str:
    """What was done, as a paragraph for a paper: data, what all trials share, what was varied, seeds, machine."""
    data = {row[0].text: row[1].text for row in data_table(section).rows}
    names = ("training images", "validation images", "test images", "image size", "classes")
    sizes = "; ".join(f"{name} {data[name]}" for name in names if name in data)
    varied = f" Varied were {listing(section.names, 20)}." if section.names else ""
    chosen = data.get("the epoch is chosen on")
    machine = listing(
        [row[1].text for row in environment_table(section.trials).rows if row[0].text == "device"] or ["?"]
    )
    return (
        f"Data set {data.get('data set', '?')}{f' ({sizes})' if sizes else ''}.{varied}"
        + (f" The epoch of each trial was chosen by {section.monitor} on the {chosen}." if chosen else "")
        + f" {seed_sentence(section)} All trials ran on {machine}."
    )


def glossary(section: Section) -> list[tuple[str, str]]:
    """Each metric of the trials with its meaning."""
    names = dict.fromkeys(name.split("/")[1] for trial in section.finished for name in trial.metrics)
    return [(name, GLOSSARY[name]) for name in names if name in GLOSSARY]


# The parser that is written in C takes a tenth of the time.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _pairs(rows: dict[str, str]) -> Table:
    return Table(["what", "value"], [[Cell(name), Cell(value)] for name, value in rows.items() if value])


def _classes(trial: Trial) -> str:
    names = (trial.result or {}).get("classes") or []
    return f"{len(names)}: {listing(list(map(str, names)), 12)}" if names else ""


def _size(trial: Trial) -> str:
    size = (trial.record.get("config") or {}).get("data.image_size") or trial.parameters.get("data.image_size")
    return f"{size} pixels" if size else ""


def _validation(trial: Trial) -> str:
    chosen = ((trial.result or {}).get("monitor") or {}).get("validation")
    named = {"split": "validation images, which are no test images", "test": "the test images"}
    return named.get(chosen, str(chosen)) if chosen else ""


def _problems(trial: Trial) -> str:
    found = [p for p in trial.record.get("problems") or [] if isinstance(p, dict)]
    return "; ".join(f"{p.get('what')}: {p.get('count')} {p.get('kind')}{_examples(p)}" for p in found)


def _examples(problem: dict[str, Any]) -> str:
    examples = list(map(str, problem.get("examples") or []))[:2]
    return f" (such as {', '.join(examples)})" if examples else ""


def _code(record: dict[str, Any]) -> str:
    commit = record.get("git_commit")
    return f"commit {commit}{' with uncommitted changes' if record.get('git_dirty') else ''}" if commit else ""
