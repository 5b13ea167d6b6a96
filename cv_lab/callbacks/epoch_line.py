"""The line that tells of an epoch, in the terminal and in logs."""

import math
from collections.abc import Iterator, Mapping, Sequence

from pytorch_lightning import Trainer

from cv_lab.callbacks.progress import epoch_name
from cv_lab.tasks.base import Task
from cv_lab.training.units import Unit

# Where a line is too long for the terminal, parts of a high rank are left out first.
MONITORED, VAL_LOSS, TRAIN_LOSS, TIME_LEFT, SECONDS, METRIC, OTHER = range(7)
RANKS = {"val/loss": VAL_LOSS, "train/loss": TRAIN_LOSS}


def epoch_line(
    trainer: Trainer,
    task: Task,
    rows: Sequence[Mapping[str, float]],
    seconds: Sequence[float],
    star: str = "★",
    width: float = math.inf,
) -> str:
    """Describe the last epoch of `rows`, for example::

        epoch  3/10  12.3 s  train/loss 1.234  val/accuracy 61.2 % ★  (about 1:25 left)

    Metrics with two slashes ("val/iou/cat") and those of ``task.details`` are left out, since they are too many.

    Args:
        trainer: knows how many epochs there will be.
        task: names the metric that is monitored.
        rows: metrics of all epochs so far, the last one being described.
        seconds: of all epochs so far.
        star: marks the best value so far of the monitored metric.
        width: columns; if the line is longer, its less important parts are left out.
    """
    row, left = rows[-1], trainer.max_epochs - len(rows)  # type: ignore[operator]
    parts = [(MONITORED, epoch_name(trainer, int(row["epoch"]))), (SECONDS, _duration(seconds[-1]))]
    for name, value in _metrics(row, task.details):
        text = f"{name} {metric_text(name, value, task.unit_of(name))}"
        if name == task.monitor:
            parts.append((MONITORED, f"{text} {star if _is_best(rows, task) else ''}".ljust(len(text) + 2)))
        else:
            parts.append((RANKS.get(name, METRIC if "/" in name else OTHER), text))
    if left > 0 and not trainer.should_stop:
        parts.append((TIME_LEFT, f"(about {_clock(left * sum(seconds) / len(seconds))} left)"))
    return _join(parts, width)


def metric_text(name: str, value: float, unit: Unit | None = None) -> str:
    """A metric's value with its unit; a share in per cent."""
    if name == "lr":
        return f"{value:.3g}"
    if unit is not None and unit.unit == "share":
        return f"{100 * value:4.1f} %"
    text = f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 10000 else f"{value:.2e}"
    return text if unit is None or unit.unit == "plain" else f"{text} {unit.unit}"


def _metrics(row: Mapping[str, float], details: Sequence[str]) -> Iterator[tuple[str, float]]:
    """The metrics of an epoch that its line shows: of training, of validation, then the rest; the loss first."""
    splits = {"train": 0, "val": 1}

    def place(name: str) -> tuple[int, bool]:
        split, _, metric = name.partition("/")
        return splits.get(split, 2), metric != "loss"

    shown = [
        name
        for name in row
        if name not in ("epoch", "step") and name.count("/") < 2 and name.partition("/")[2] not in details
    ]
    return ((name, row[name]) for name in sorted(shown, key=place))


def _is_best(rows: Sequence[Mapping[str, float]], task: Task) -> bool:
    """Whether the monitored metric of the last row is better than in all rows before."""
    sign = 1 if task.mode == "max" else -1
    *earlier, last = (sign * row[task.monitor] for row in rows)
    return not math.isnan(last) and all(math.isnan(value) or last > value for value in earlier)


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else _clock(seconds)


def _clock(seconds: float) -> str:
    """For example 1:05 or 2:01:05."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def _join(parts: Sequence[tuple[int, str]], width: float) -> str:
    """The texts in their order; if not all fit into `width`, those of the lowest ranks."""
    chosen: set[int] = set()
    room = width + 2
    for i in sorted(range(len(parts)), key=lambda i: parts[i][0]):
        length = len(parts[i][1]) + 2
        if not chosen or length <= room:
            chosen.add(i)
            room -= length
    return "  ".join(text for i, (_, text) in enumerate(parts) if i in chosen).rstrip()
