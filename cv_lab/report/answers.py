"""What classifiers answered of each test image: calibration, figures of each class, mistakes, and disagreements."""

import os
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cv_lab.colours import palette
from cv_lab.report.chart import DASHES, GREY, Axis, Key, Series, plot
from cv_lab.report.evidence import CLASSIFICATION, Evidence
from cv_lab.report.figures import Figure, hex_of
from cv_lab.report.sections import Section, Setting
from cv_lab.report.tables import Cell, Table
from cv_lab.report.wording import Unit, count

BINS = 15  # of confidence, as in the paper on calibration
SETTINGS = 4  # best ones in the chart of calibration
LISTED = 10  # images in a table
SHARE = Unit("share")


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Expected calibration error over :data:`BINS` equal bins, in 0..1 (Guo et al., 2017, arXiv:1706.04599).

    Args:
        confidence: probability of the predicted class, (N,), in 0..1.
        right: whether that class is true, (N,).
    """
    return sum(share * abs(accuracy - mean) for mean, accuracy, share in _bins(confidence, right))


def calibration(section: Section) -> list[Figure]:
    """Reliability diagrams of the best settings, each of its lowest seed."""
    known = [(s, e) for s in section.judged[:SETTINGS] if (e := _of(section, s)) and "p_prediction" in e.arrays]
    if not known:
        return []
    series = [Series([(0, 0), (1, 1)], GREY, "as right as confident", dash=DASHES[2])]
    legend = [Key(GREY, "as right as confident", DASHES[2])]
    for i, ((setting, evidence), rgb) in enumerate(zip(known, palette(len(known)).tolist(), strict=True)):
        confidence, right = evidence.arrays["p_prediction"], _right(evidence)
        words = f"{setting.label}: ECE {SHARE.value(calibration_error(confidence, right))}"
        points = [(mean, accuracy) for mean, accuracy, _ in _bins(confidence, right)]
        series.append(Series(points, hex_of(rgb), words, dash=DASHES[i], dots=3))
        legend.append(Key(hex_of(rgb), words, DASHES[i]))
    chart = plot(series, "accuracy by confidence", Axis("confidence", percent=True), Axis("", percent=True))
    caption = (
        f"Test images in {BINS} bins of equal width by the probability of their predicted class; a point below the "
        "diagonal is more confident than right. ECE, the expected calibration error, is the mean distance from the "
        "diagonal over all images. Of each setting the lowest seed."
    )
    return [Figure("calibration", "Calibration", caption, [chart], legend)]


def class_table(section: Section) -> Table | None:
    """Precision, recall, F1 and images of each class, of the best setting; None where answers are not known."""
    evidence = _of(section, section.judged[0]) if section.judged else None
    if evidence is None:
        return None
    k = np.arange(len(evidence.classes))
    truth, predicted = (evidence.arrays[name][:, None] == k for name in ("truth", "prediction"))
    hits, truths, predictions = (truth & predicted).sum(0), truth.sum(0), predicted.sum(0)
    rows = [
        [
            Cell(name),
            *(_share(above, below) for above, below in ((h, p), (h, t), (2 * h, t + p))),
            Cell(f"{t:,}", t),
            Cell(f"{p:,}", p),
        ]
        for name, h, t, p in zip(evidence.classes, hits.tolist(), truths.tolist(), predictions.tolist(), strict=True)
    ]
    of = section.label(section.judged[0].example)
    caption = f"Test images of {of}. An empty cell means that the class is predicted, or occurs, nowhere."
    return Table(["class", "precision", "recall", "F1", "images", "predicted"], rows, caption=caption)


def mistakes_table(section: Section) -> Table | None:
    """The test images that the best setting is most wrong about; None without any, or where they are not known."""
    evidence = section.evidence.get(section.judged[0].example.name) if section.judged else None
    if evidence is None:
        return None
    badness, columns = _badness(evidence)
    order = np.argsort(-badness, kind="stable")  # NaN last
    chosen = order[np.isfinite(badness[order])][:LISTED].tolist()
    if not chosen:
        return None
    named = _image(evidence)
    rows = [[named(i), *(cells(i) for cells in columns.values())] for i in chosen]
    caption = f"Of {section.label(section.judged[0].example)}; all test images are in test.csv of the trial's folder."
    return Table(["image", *columns], rows, caption=caption)


def _badness(evidence: Evidence) -> tuple[NDArray[np.floating], dict[str, Callable[[int], Cell]]]:
    """How wrong the network is about each image, NaN for not at all; and columns that say how, by their names."""
    arrays = evidence.arrays

    def number(name: str, unit: Unit = SHARE) -> Callable[[int], Cell]:
        return lambda i: Cell(unit.value(v := float(arrays[name][i])), v)

    def names(chosen: NDArray[np.bool_]) -> Callable[[int], Cell]:
        return lambda i: Cell(", ".join(evidence.classes[k] for k in np.flatnonzero(chosen[i])) or "none")

    if "p_prediction" in arrays:
        probabilities = {"confidence": "p_prediction", "probability of the truth": "p_truth"}
        columns: dict[str, Callable[[int], Cell]] = {n: partial(_class, evidence, n) for n in CLASSIFICATION}
        columns |= {name: number(key) for name, key in probabilities.items() if key in arrays}
        return np.where(_right(evidence), np.nan, arrays["p_prediction"]), columns
    if "labels" in arrays and "loss" in arrays:
        given = {"truth": names(arrays["labels"] > 0), "prediction": names(arrays["probabilities"] > 0.5)}
        return arrays["loss"], {**given, "loss": number("loss", Unit())}
    if "quality" in arrays:
        counts = {name: number(name, Unit()) for name in ("objects", "found")}
        return -arrays["quality"], {**counts, "panoptic quality": number("quality")}
    if "union" not in arrays:
        return np.full(evidence.n, np.nan), {}
    with np.errstate(invalid="ignore"):
        iou = arrays["intersection"] / arrays["union"]  # NaN for a class in neither truth nor prediction
    known = np.isfinite(iou)
    means = np.where(known.any(1), np.where(known, iou, 0).sum(1) / np.maximum(known.sum(1), 1), np.nan)
    worst = np.where(known, iou, np.inf).argmin(1)
    return -means, {
        "mean IoU": lambda i: Cell(SHARE.value(float(means[i])), float(means[i])),
        "worst class": lambda i: Cell(f"{evidence.classes[worst[i]]} ({SHARE.value(float(iou[i, worst[i]]))})"),
    }


def differences_table(section: Section) -> Table | None:
    """Images that only one of the two best settings gets right; None if they were tested on different images."""
    if len(section.judged) < 2:
        return None
    best, other = section.judged[:2]
    a, b = _of(section, best), _of(section, other)
    if a is None or b is None or a.images is None or a.images != b.images:
        return None
    right = [_right(a), _right(b)]
    only_best, only_other = np.nonzero(right[0] & ~right[1])[0], np.nonzero(right[1] & ~right[0])[0]
    named = _image(a)
    rows = [
        [named(i), _class(a, "truth", i), _class(a, "prediction", i), _class(b, "prediction", i)]
        for some in (only_other, only_best)
        for i in some[:LISTED].tolist()
    ]
    names = [section.label(setting.example) for setting in (best, other)]
    both, neither = int((right[0] & right[1]).sum()), int((~right[0] & ~right[1]).sum())
    caption = (
        f"Of {count(a.n, 'test image')} both get {both:,} right, {names[0]} alone "
        f"{len(only_best):,}, {names[1]} alone {len(only_other):,}, and neither {neither:,}. "
        f"The first {LISTED} of each kind are listed."
    )
    return Table(["image", "truth", *names], rows, caption=caption)


def _of(section: Section, setting: Setting) -> Evidence | None:
    """What a classifier of the setting answered, of the lowest seed; None for other tasks."""
    evidence = section.evidence.get(setting.example.name)
    return evidence if evidence is not None and "truth" in evidence.arrays else None


def _right(evidence: Evidence) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = evidence.arrays["truth"] == evidence.arrays["prediction"]
    return right


def _bins(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> list[tuple[float, float, float]]:
    """Mean confidence, accuracy and share of the images of each bin that has any; a bin holds its upper end."""
    number = np.clip(np.ceil(confidence.astype(np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    inside = [number == i for i in range(BINS)]
    return [
        (float(confidence[some].mean(dtype=np.float64)), float(right[some].mean()), float(some.mean()))
        for some in inside
        if some.any()
    ]


def _share(above: int, below: int) -> Cell:
    value = above / below if below else None
    return Cell(SHARE.value(value), value, shade=value)


def _image(evidence: Evidence) -> Callable[[int], Cell]:
    """The cell that names an image: its file within the folder of all, else its number."""
    if "files" in evidence.arrays:
        files = evidence.arrays["files"].astype(str).tolist()
        folder = os.path.commonpath({os.path.dirname(file) for file in files})
        return lambda i: Cell(os.path.relpath(files[i], folder) if folder else files[i])
    index = evidence.arrays.get("index", np.arange(evidence.n))
    return lambda i: Cell(f"number {index[i]}", int(index[i]))


def _class(evidence: Evidence, name: str, i: int) -> Cell:
    return Cell(evidence.classes[int(evidence.arrays[name][i])])
