"""A study: the trials in one folder, as a table. Reads their files alone, without torch or Lightning."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cv_lab.files import read_json

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


def read_trials(study: Path) -> list[Trial]:
    """All trials of a study, best first."""
    trials = []
    for path in study.glob("*/trial.json"):
        result = path.with_name("result.json")
        trials.append(Trial(path.parent, read_json(path), read_json(result) if result.exists() else None))
    return sorted(trials, key=lambda trial: (-trial.score, trial.folder.name))


def varied(trials: list[Trial]) -> list[str]:
    """The parameters in which the trials differ; those of a lone trial's overrides."""
    if len(trials) == 1:
        return [o.lstrip("+").partition("=")[0] for o in trials[0].record["overrides"]]
    names = dict.fromkeys(name for trial in trials for name in trial.record["parameters"])
    return [name for name in names if len({str(t.record["parameters"].get(name)) for t in trials}) > 1]


class StudySummary(Callback):
    """Hydra callback: ends a multirun with the table of its study, and with exit code 1 if a trial failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from cv_lab.report.page import report_at_end  # which reads this module's trials

        trials = read_trials(Path(config.hydra.sweep.dir))
        print_table(trials)
        report_at_end(Path(config.hydra.sweep.dir))
        if any(trial.record["status"] == "failed" for trial in trials):
            sys.exit(1)


def print_trial(trial: Trial) -> None:
    """Print the outcome of a single run on the terminal."""
    assert trial.result is not None
    result, shown = trial.result, figures(trial)
    name = metric_name(trial)
    print(
        f"best epoch {shown['epoch']} of {result['last']['epoch']}: val/{name} {shown[f'val/{name}']}, "
        f"test/{name} {shown[f'test/{name}']}, in {shown['seconds']} s ({shown['s per 1 %'] or '-'} s per 1 %)"
    )
    if result["monitor"]["validation"] != "split":
        print(VALIDATED_ON_TEST)


def print_table(trials: list[Trial]) -> None:
    """Print the trials of a study on the terminal, best first, and then why others failed."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    finished = [trial for trial in trials if trial.result is not None]
    if finished:
        table = Table(box=None, header_style="bold")
        for name in varied(trials):
            table.add_column(name, overflow="fold")
        for name in figures(finished[0]):
            table.add_column(name, justify="right")
        for trial in finished:
            table.add_row(
                *(str(trial.record["parameters"].get(name, "")) for name in varied(trials)), *figures(trial).values()
            )
        console.print(table)
        if any(trial.result["monitor"]["validation"] != "split" for trial in finished if trial.result):
            print(VALIDATED_ON_TEST)
    for trial in trials:
        if trial.record["status"] == "failed":
            print(f"failed: {trial.folder}: {trial.record['error']['message']}")


def figures(trial: Trial) -> dict[str, str]:
    """A finished trial's figures at its best epoch, by column, as text."""
    assert trial.result is not None
    name, metrics = metric_name(trial), trial.result["metrics"]
    keys = ("train/loss", "val/loss", f"train/{name}", f"val/{name}", f"test/{name}")
    shown = {key: _figure(key, metrics[key]) for key in keys if metrics.get(key) is not None}
    cost = seconds_per_percent(trial)
    return shown | {
        "epoch": str(trial.result["monitor"]["epoch"]),
        "seconds": f"{trial.result['seconds']['fit']:.1f}",
        "s per 1 %": "" if cost is None else f"{cost:.2f}",
    }


def metric_name(trial: Trial) -> str:
    """For a monitor called "val/accuracy", "accuracy"."""
    assert trial.result is not None
    return trial.result["monitor"]["name"].partition("/")[2]


def seconds_per_percent(trial: Trial) -> float | None:
    """Seconds of training for each percentage point of the monitored metric."""
    assert trial.result is not None
    monitor, seconds = trial.result["monitor"], trial.result["seconds"]["fit"]
    return seconds / (100 * monitor["best"]) if monitor["mode"] == "max" and monitor["best"] else None


def _figure(key: str, value: float) -> str:
    return f"{value:.4g}" if key.endswith("loss") else f"{100 * value:.2f} %"
