"""A study: the trials in one folder, as a table. Reads their files alone, without torch or Lightning."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

from cv_lab.config import split_override
from cv_lab.files import read_json
from cv_lab.study.record import is_alive

VALIDATED_ON_TEST = "Validated on the test set, which therefore picked the checkpoint too: no unbiased estimate."


@dataclass(frozen=True)
class Trial:
    """One trial as its folder tells it: ``trial.json``, and ``result.json`` if it is completed."""

    folder: Path
    record: dict[str, Any]
    result: dict[str, Any] | None

    @property
    def score(self) -> float:
        """Best value of the monitored metric, turned so that larger is better; -inf without a result."""
        if self.result is None or self.result["monitor"]["best"] is None:
            return -math.inf
        monitor = self.result["monitor"]
        return monitor["best"] if monitor["mode"] == "max" else -monitor["best"]


AnyTrial = TypeVar("AnyTrial", bound=Trial)


def read_trial(folder: Path) -> Trial:
    """The trial in `folder`."""
    result = folder / "result.json"
    return Trial(folder, read_json(folder / "trial.json"), read_json(result) if result.exists() else None)


def varied(trials: Sequence[Trial]) -> list[str]:
    """The parameters in which the trials differ; those of a lone trial's overrides."""
    if len(trials) == 1:
        return [o.lstrip("+").partition("=")[0] for o in trials[0].record["overrides"]]
    names = dict.fromkeys(name for trial in trials for name in trial.record["parameters"])
    return [name for name in names if len({str(t.record["parameters"].get(name)) for t in trials}) > 1]


def implied(trials: Sequence[Trial], names: Sequence[str]) -> list[str]:
    """Those of the varied parameters `names` that were not asked for, but follow from another that was.

    ``optimizer=adam,adamw`` varies the weight decay as well, since AdamW has one of its own.
    """
    asked = {split_override(override)[0] for trial in trials for override in trial.record.get("overrides") or []}

    def follows(name: str, other: str) -> bool:
        pairs = {tuple(str(t.record["parameters"].get(key)) for key in (other, name)) for t in trials}
        return len(pairs) == len({value for value, _ in pairs})

    others = [other for other in names if other in asked and other != "seed"]
    return [name for name in names if name not in asked and any(follows(name, other) for other in others)]


def print_trial(trial: Trial) -> None:
    """Print the outcome of a single run on the terminal."""
    assert trial.result is not None
    result, shown = trial.result, figures([trial], [])
    name = metric_name(trial)
    print(
        f"best epoch {shown['epoch']} of {result['last']['epoch']}: val/{name} {shown[f'val/{name}']}, "
        f"test/{name} {shown[f'test/{name}']}, in {shown['seconds']} s ({shown['s per 1 %'] or '-'} s per 1 %)"
    )
    if "features s" in shown:
        print(
            f"features took {shown['features s']} s, once for all trials "
            f"({shown['s per 1 % with features'] or '-'} s per 1 % with them)"
        )
    if result["monitor"]["validation"] != "split":
        print(VALIDATED_ON_TEST)


def print_table(trials: Sequence[Trial]) -> None:
    """Print the trials of a study on the terminal, best first, and then why others did not end.

    Trials that differ in their seed alone share a row, with mean and sample standard deviation.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)  # in a file or a pipe nothing need be folded
    groups = by_seed([trial for trial in trials if trial.result is not None])
    if groups:
        several = any(len(group) > 1 for group in groups)
        names = [name for name in varied(trials) if not (several and name == "seed")]
        rows, losses = [], loss_columns(trials)
        for group in groups:
            row = {name: str(group[0].record["parameters"].get(name, "")) for name in names}
            rows.append(row | ({"seeds": str(len(group))} if several else {}) | figures(group, losses))
        table = Table(box=None, header_style="bold")
        columns = dict.fromkeys(name for row in rows for name in row)
        for name in columns:
            if name in names:
                table.add_column(name, overflow="fold")
            else:
                table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*(row.get(name, "") for name in columns))
        console.print(table)
        if any(trial.result["monitor"]["validation"] != "split" for trial in trials if trial.result):
            print(VALIDATED_ON_TEST)
    for trial in trials:
        status, error = trial.record["status"], trial.record.get("error")
        if status == "running":
            status = "running in another process" if is_alive(trial.record) else "killed"
        if status != "completed":
            print(f"{status}: {trial.folder}" + (f": {error['message']}" if error and status == "failed" else ""))


def by_seed(trials: Sequence[AnyTrial]) -> list[list[AnyTrial]]:
    """Completed trials in groups that differ in their seed alone, the group of the best mean first."""
    return sorted(but_for_seed(trials), key=lambda group: -fmean(trial.score for trial in group))


def but_for_seed(trials: Sequence[AnyTrial]) -> list[list[AnyTrial]]:
    """Trials of any status in groups that differ in their seed alone, in the order in which they come."""
    groups: dict[str, list[AnyTrial]] = {}
    for trial in trials:
        others = {name: str(value) for name, value in trial.record["parameters"].items() if name != "seed"}
        groups.setdefault(str(sorted(others.items())), []).append(trial)
    return list(groups.values())


def is_loss(metric: str) -> bool:
    """Whether a metric is a loss; all others lie in 0..1 and are shown in per cent."""
    return metric.endswith(("loss", "cross_entropy"))


def unit_of(trial: Trial, metric: str) -> str:
    """The unit of a metric: "share" (0..1, shown in per cent), "plain", or a word that is shown behind the number."""
    assert trial.result is not None
    units = trial.result.get("units")
    if units is None:  # an earlier version wrote the trial, whose metrics were losses and shares
        return "plain" if is_loss(metric) else "share"
    unit: str = units.get(metric, {"unit": "plain"})["unit"]
    return unit


def loss_columns(trials: Sequence[Trial]) -> list[str]:
    """The losses that tables show: plain cross entropy too, where the training's loss on the same images is another."""

    def is_another(metrics: Mapping[str, Any]) -> bool:
        loss, plain = metrics.get("val/loss"), metrics.get("val/cross_entropy")
        return isinstance(loss, float) and isinstance(plain, float) and not math.isclose(loss, plain, rel_tol=0.01)

    other = any(is_another(trial.result["metrics"]) for trial in trials if trial.result)
    return ["train/loss", "val/loss", *(["val/cross_entropy"] if other else [])]


def figures(trials: Sequence[Trial], losses: Sequence[str]) -> dict[str, str]:
    """The figures of completed trials at their best epochs, by column, as text; of several, mean ± deviation.

    Args:
        trials: that share a row.
        losses: see :func:`loss_columns`.
    """
    each = [_numbers(trial, losses) for trial in trials]
    return {
        key: _text(key, [numbers[key] for numbers in each], unit_of(trials[0], key))
        for key in each[0]
        if all(key in numbers for numbers in each)
    }


def _numbers(trial: Trial, losses: Sequence[str]) -> dict[str, float | None]:
    assert trial.result is not None
    name, metrics, seconds = metric_name(trial), trial.result["metrics"], trial.result["seconds"]
    keys = (*losses, f"train/{name}", f"val/{name}", f"test/{name}")
    numbers: dict[str, float | None] = {key: metrics[key] for key in keys if metrics.get(key) is not None}
    numbers |= {
        "epoch": trial.result["monitor"]["epoch"],
        "seconds": seconds["fit"],
        "s per 1 %": seconds_per_percent(trial),
    }
    if "features" in seconds:
        numbers |= {
            "features s": seconds["features"],
            "s per 1 % with features": seconds_per_percent(trial, with_features=True),
        }
    return numbers


def _text(key: str, values: list[float | None], unit: str) -> str:
    """Mean and deviation of `values` of a column; `unit` is that of a metric, whose name holds a slash."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    factor, suffix, digits = 1, "", ".2f"
    if "/" in key and unit == "share":
        factor, suffix = 100, " %"
    elif "/" in key:
        digits, suffix = ".4g", "" if unit == "plain" else f" {unit}"
    elif key == "epoch":
        digits = ".3g"
    elif key in ("seconds", "features s"):
        digits = ".1f"
    text = f"{factor * fmean(known):{digits}}"
    return text + (f" ± {factor * stdev(known):{digits}}" if len(known) > 1 else "") + suffix


def metric_name(trial: Trial) -> str:
    """For a monitor called "val/accuracy", "accuracy"."""
    assert trial.result is not None
    return trial.result["monitor"]["name"].partition("/")[2]


def seconds_per_percent(trial: Trial, with_features: bool = False) -> float | None:
    """Seconds of training for each percentage point of the monitored metric; None if it is not a share.

    Args:
        trial: a completed one.
        with_features: count the pass that computed its features as well, whichever trial ran it.
    """
    assert trial.result is not None
    monitor, seconds = trial.result["monitor"], trial.result["seconds"]["fit"]
    if unit_of(trial, monitor["name"]) != "share":
        return None
    if with_features:
        seconds += trial.result["seconds"]["features"]
    return seconds / (100 * monitor["best"]) if monitor["mode"] == "max" and monitor["best"] else None
