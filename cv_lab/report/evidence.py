"""What a trial's test says of each image, from which intervals, comparisons and baselines are computed.

``test.npz`` of a trial holds, for classification, ``truth`` and ``prediction``, int (N,), for segmentation
``intersection``, ``union`` and ``support``, int64 (N, K), in pixels, for labels ``labels``, of 0 and 1, and
``probabilities``, float (N, K), and for detections the numbers ``objects`` and ``found``, int (N,), and ``quality``,
float (N,), the panoptic quality; ``files``, str (N,), are the names of the images. Classifiers add ``p_prediction`` and
``p_truth``, float (N,), the probabilities of these classes. Labels and detections have no intervals yet.
A classifier without that file still has its confusion matrix, which gives intervals but no comparison image by image.
"""

import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_lab.report.matrices import Matrix
from cv_lab.report.statistics import Scores
from cv_lab.study.trials import Trial

FILE = "test.npz"
TOLERANCE = 1e-3  # between a figure computed from images and the one in result.json, which float32 rounds


@dataclass(frozen=True)
class Evidence:
    """The images of a trial's test.

    Attributes:
        n: number of images.
        classes: names, K of them.
        arrays: of ``test.npz``.
        images: says which images they are and in which order; trials with equal ones can be compared image by image.
            None where only counts are known.
    """

    n: int
    classes: list[str]
    arrays: Mapping[str, NDArray[Any]]
    images: bytes | None

    def scores(self, metric: str) -> Scores | None:
        """The images' parts of a metric called as in ``test/METRIC``; None for one that images do not add up to."""
        make = METRICS.get(metric)
        needed = SEGMENTATION if metric in OF_PIXELS else CLASSIFICATION
        if make is None or not set(needed) <= self.arrays.keys():
            return None
        return make(self)

    def baseline(self, metric: str) -> tuple[str, float] | None:
        """The most frequent class, and the metric of always answering it; None for a metric without this baseline.

        Of labels, the average precision of equal probabilities for all images is the share that has the label.
        """
        if metric == "mAP" and "labels" in self.arrays:
            shares = self.arrays["labels"].mean(0)
            return ("the same", float(shares[shares > 0].mean())) if shares.any() else None
        return constant_answer(np.array(self.counts()), self.classes, metric)

    def counts(self) -> list[int]:
        """Images, or labelled pixels, of each true class; K of them, or none where images have several labels."""
        if "truth" in self.arrays:
            found = np.bincount(self.arrays["truth"].astype(np.int64), minlength=len(self.classes))
        else:
            found = self.arrays["support"].sum(0) if "support" in self.arrays else np.zeros(0, np.int64)
        counts: list[int] = found.tolist()
        return counts


def constant_answer(counts: NDArray[np.integer], classes: list[str], metric: str) -> tuple[str, float] | None:
    """See :meth:`Evidence.baseline`.

    Args:
        counts: images or pixels of each true class, int (K,).
        classes: K names.
        metric: such as "accuracy".
    """
    present = int((counts > 0).sum())
    if not present:
        return None
    top = int(counts.argmax())
    share = float(counts[top] / counts.sum())
    values = {
        "accuracy": share,
        "pixel_accuracy": share,
        "f1": 2 * share / (1 + share) / present,
        "mean_iou": share / present,
        "mean_class_accuracy": 1 / present,
    }
    return (classes[top], values[metric]) if metric in values else None


def read_evidence(trial: Trial, matrix: Matrix | None, notes: list[str]) -> Evidence | None:
    """The evidence of a finished trial; a damaged file is noted, and what is wrong with it.

    Args:
        trial: to read.
        matrix: its confusion matrix, if it has one.
        notes: get a sentence for what cannot be used.
    """
    path = trial.folder / FILE
    classes = [str(name) for name in (trial.result or {}).get("classes") or []]
    if path.exists():
        try:
            return _checked(path, classes)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            notes.append(f"{trial.name} is shown without intervals from its images: {FILE} is damaged ({error}).")
            return None
    images = trial.figure("images", "test")
    if matrix is None or images is None or matrix.counts.sum() != images:  # the latter counts pixels
        return None
    truth, prediction = np.nonzero(matrix.counts)
    repeats = matrix.counts[truth, prediction]
    arrays = {"truth": np.repeat(truth, repeats), "prediction": np.repeat(prediction, repeats)}
    return Evidence(int(images), matrix.classes, arrays, None)


def _checked(path: Path, classes: list[str]) -> Evidence:
    with np.load(path, allow_pickle=False) as file:  # which would run code in the file
        arrays = {name: file[name] for name in file.files}
    needed = next((some for some in KINDS if some[0] in arrays), SEGMENTATION)
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    shapes = {arrays[name].shape for name in needed}
    if len(shapes) != 1 or not next(iter(shapes)) or not next(iter(shapes))[0]:
        raise ValueError(f"its arrays have the shapes {sorted(shapes)}")
    (shape,) = shapes
    counts = [arrays[name] for name in needed if name not in ("probabilities", "quality")]
    if any(some.min() < 0 or not np.issubdtype(some.dtype, np.integer) for some in counts):
        raise ValueError("it holds no counts")
    for name in PROBABILITIES & arrays.keys():
        if arrays[name].shape != shape or not ((arrays[name] >= 0) & (arrays[name] <= 1 + TOLERANCE)).all():
            raise ValueError(f"its {name} holds no probabilities of {shape[0]} images")
    for name in {"index", "files"} & arrays.keys():
        if arrays[name].shape != shape[:1]:
            raise ValueError(f"its {name} has the shape {arrays[name].shape} for {shape[0]} images")
    highest = (
        max(int(arrays[name].max()) for name in CLASSIFICATION) + 1 if "truth" in arrays else max(shape[1:], default=0)
    )
    if len(classes) < highest:
        classes = [*classes, *(str(i) for i in range(len(classes), highest))]
    order = arrays[TRUTH[needed]].astype(np.int64).tobytes()
    names = arrays["files"].astype(str).tobytes() if "files" in arrays else b""
    return Evidence(shape[0], classes, arrays, names + order)


def agrees(scores: Scores, figure: float) -> bool:
    """Whether images give the figure that ``result.json`` holds, within the rounding of float32."""
    return math.isclose(scores.value(), figure, rel_tol=TOLERANCE, abs_tol=TOLERANCE / 10)


def _accuracy(evidence: Evidence) -> Scores:
    right = evidence.arrays["truth"] == evidence.arrays["prediction"]
    return Scores(right[:, None].astype(np.float32), lambda sums: sums[..., 0] / evidence.n)


def _f1(evidence: Evidence) -> Scores:
    """Macro F1 over the classes that occur in truth or prediction."""
    k = np.arange(len(evidence.classes))
    truth, prediction = (evidence.arrays[name][:, None] == k for name in CLASSIFICATION)
    parts = np.concatenate([truth & prediction, truth], 1).astype(np.float32)
    parts = np.concatenate([parts, prediction.astype(np.float32)], 1)

    def figure(sums: NDArray[np.floating]) -> NDArray[np.floating]:
        hits, truths, predictions = np.split(sums, 3, axis=-1)
        return _mean_where(2 * hits, truths + predictions)

    return Scores(parts, figure)


def _mean_iou(evidence: Evidence) -> Scores:
    """Mean over the classes that occur in truth or prediction of the summed intersections over the summed unions."""
    parts = np.concatenate([evidence.arrays["intersection"], evidence.arrays["union"]], 1).astype(np.float32)
    return Scores(parts, lambda sums: _mean_where(*np.split(sums, 2, axis=-1)))


def _mean_class_accuracy(evidence: Evidence) -> Scores:
    parts = np.concatenate([evidence.arrays["intersection"], evidence.arrays["support"]], 1).astype(np.float32)
    return Scores(parts, lambda sums: _mean_where(*np.split(sums, 2, axis=-1)))


def _pixel_accuracy(evidence: Evidence) -> Scores:
    totals = [evidence.arrays[name].sum(1, keepdims=True) for name in ("intersection", "support")]
    parts = np.concatenate(totals, 1).astype(np.float32)
    return Scores(parts, lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1))


def _mean_where(above: NDArray[np.floating], below: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean over the last axis of above / below, where below is not zero; NaN where that is nowhere."""
    there = below > 0
    count = there.sum(-1)
    total = np.divide(above, below, out=np.zeros_like(above), where=there).sum(-1)
    mean: NDArray[np.floating] = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return mean


CLASSIFICATION = ("truth", "prediction")
SEGMENTATION = ("intersection", "union", "support")
LABELS = ("labels", "probabilities")
DETECTIONS = ("objects", "found", "quality")
KINDS = (CLASSIFICATION, SEGMENTATION, LABELS, DETECTIONS)
TRUTH = {CLASSIFICATION: "truth", SEGMENTATION: "support", LABELS: "labels", DETECTIONS: "objects"}  # of each kind
PROBABILITIES = {"p_prediction", "p_truth"}
OF_PIXELS = ("mean_iou", "pixel_accuracy", "mean_class_accuracy")
METRICS: dict[str, Callable[[Evidence], Scores]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "mean_iou": _mean_iou,
    "mean_class_accuracy": _mean_class_accuracy,
    "pixel_accuracy": _pixel_accuracy,
}
