"""The trials of a study, sorted: a section for each task, in it the settings, in each the seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cv_lab.study.trials import Trial, group_by_setting, implied_parameters, varying_parameters


@dataclass(frozen=True)
class Setting:
    """The trials that differ in nothing but their seed.

    Attributes:
        values: of the parameters in which settings differ.
        label: the same as text.
        trials: best first.
    """

    values: dict[str, Any]
    label: str
    trials: list[Trial]

    @property
    def scores(self) -> list[float]:
        """Best values of the monitored metric, one a finished trial."""
        return [trial.best for trial in self.trials if trial.best is not None]

    @property
    def mean(self) -> float:
        """Of the scores; there must be some."""
        return statistics.fmean(self.scores)

    @property
    def deviation(self) -> float | None:
        return deviation(self.scores)


@dataclass(frozen=True)
class Section:
    """The trials that can be compared: of one task, judged by one metric.

    Attributes:
        task: name of the task.
        monitor: the metric that trials are judged by, such as "val/accuracy"; "" if no trial has a result.
        mode: "max" or "min".
        trials: best first.
        settings: best first; those without a result last.
        names: parameters in which the settings differ.
        implied: further ones, whose values follow from those of another.
    """

    task: str
    monitor: str
    mode: str
    trials: list[Trial]
    settings: list[Setting]
    names: list[str]
    implied: list[str]

    @property
    def metric(self) -> str:
        """For "val/accuracy", "accuracy"."""
        return self.monitor.partition("/")[2]

    @property
    def seeds(self) -> int:
        """The largest number of finished trials in a setting."""
        return max((len(setting.scores) for setting in self.settings), default=0)

    @property
    def finished(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.best is not None]

    @property
    def best(self) -> Trial:
        """The best trial; there must be one with a result."""
        return next(trial for trial in self.trials if trial.best is not None)

    @property
    def judged(self) -> list[Setting]:
        """Settings with a result, best first."""
        return [setting for setting in self.settings if setting.scores]

    def better(self, a: float, b: float) -> float:
        """By how much `a` is better than `b`; negative if it is worse."""
        return a - b if self.mode == "max" else b - a

    def label(self, trial: Trial) -> str:
        """A trial by the values in which it differs from the others."""
        names = [name for name in (*self.names, "seed") if name in self.names or len(self.settings) < len(self.trials)]
        alone = "the only trial" if len(self.trials) == 1 else trial.name
        return label({name: trial.parameters.get(name) for name in names}) or alone


def sections(trials: Sequence[Trial]) -> list[Section]:
    """Sort trials, given best first, into sections."""
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        if trial.result is not None:
            monitor = trial.result["monitor"]
            groups.setdefault((_task(trial), monitor["name"], monitor["mode"]), []).append(trial)
    for trial in trials:
        if trial.result is None:  # by what it is judged is not known: it goes to the others of its task
            key = next((key for key in groups if key[0] == _task(trial)), (_task(trial), "", "max"))
            groups.setdefault(key, []).append(trial)
    return [_section(*key, members) for key, members in groups.items()]


def label(values: dict[str, Any]) -> str:
    """Parameters in words: "adam, lr 0.001"."""
    return ", ".join(_words(name, value) for name, value in values.items())


def text(value: Any) -> str:
    """A parameter's value."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of the sample; None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def _section(task: str, monitor: str, mode: str, trials: list[Trial]) -> Section:
    names = [name for name in varying_parameters(trials) if name != "seed"] if len(trials) > 1 else []
    follow = implied_parameters(trials, names)
    names = [name for name in names if name not in follow]
    settings = []
    for members in group_by_setting(trials):
        values = {name: members[0].parameters.get(name) for name in names}
        settings.append(Setting(values, label(values) or "the only setting", members))
    sign = 1 if mode == "max" else -1
    settings.sort(key=lambda setting: -sign * setting.mean if setting.scores else math.inf)
    return Section(task, monitor, mode, trials, settings, names, follow)


def _task(trial: Trial) -> str:
    return text(trial.parameters.get("task", "unknown task"))


def _words(name: str, value: Any) -> str:
    plain = isinstance(value, str) and value.lower() not in ("none", "true", "false", "auto")
    return value if plain else f"{name} {text(value)}"
