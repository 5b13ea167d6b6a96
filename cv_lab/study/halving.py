"""Successive halving of a grid (Jamieson and Talwalkar 2016): the worse part of its trials pauses early."""

import math
from collections.abc import Sequence

from cv_lab.study.plan import Job
from cv_lab.study.pruning import oriented
from cv_lab.study.read import read_trial
from cv_lab.study.record import UnreadableError
from cv_lab.study.trials import Trial

LEVELS = 2  # rungs before the last: with halving=3 after a ninth and after a third of the epochs


def rungs(epochs: int, factor: int) -> list[int]:
    """The epochs after which trials pause, for example 1 and 3 of 9 with a `factor` of 3."""
    return [math.ceil(epochs / factor**level) for level in range(LEVELS, 0, -1)]


def pending(jobs: Sequence[Job], epoch: int, first: bool) -> list[Job]:
    """Those that have not reached the end of `epoch`. One that failed is tried again in the `first` rung alone."""

    def to_run(job: Job) -> bool:
        trial = _trial(job)
        if trial is None:
            return True
        failed = trial.record["status"] == "failed"
        return trial.record["status"] != "completed" and (first if failed else len(trial.epochs) < epoch)

    return [job for job in jobs if (job.to_run or job.busy) and to_run(job)]


def survivors(jobs: Sequence[Job], epoch: int, factor: int) -> list[Job]:
    """One in `factor` settings, those whose best values up to `epoch` are best in the mean over seeds.

    The seeds of a setting pause together: chosen by their values, those left would say too much of it. A trial that
    failed, or diverged, counts as the worst. Of equals, the setting whose trial has the lowest number goes on.
    """
    settings: dict[str, list[Job]] = {}
    for job in jobs:
        settings.setdefault(job.record.fields["setting"], []).append(job)
    # Summed exactly, so that settings with equal values of their seeds tie in whatever order these come.
    means = {name: math.fsum(_value(job, epoch) for job in group) / len(group) for name, group in settings.items()}
    kept = sorted(settings, key=lambda name: -means[name])[: max(1, len(settings) // factor)]
    return [job for job in jobs if job.record.fields["setting"] in kept]


def rank_agreement(trials: Sequence[Trial], epoch: int) -> tuple[float, int, int] | None:
    """How well the ranks of trials after `epoch` agree with those of the same trials later.

    Returns:
        Kendall's tau-b (1 for the same order, -1 for the reverse), the later epoch, which is the last one that all of
        them reached, and the number of trials that went on after `epoch`; None for fewer than three, or if all tie.
    """
    longer = [trial for trial in trials if len(trial.epochs) > epoch]
    if len(longer) < 3:
        return None
    later = min(len(trial.epochs) for trial in longer)
    early, late = ([_best(trial, end) for trial in longer] for end in (epoch, later))
    signs = [
        ((early[i] > early[j]) - (early[i] < early[j]), (late[i] > late[j]) - (late[i] < late[j]))
        for i in range(len(longer))
        for j in range(i)
    ]
    untied = math.sqrt(sum(a * a for a, _ in signs) * sum(b * b for _, b in signs))
    return (sum(a * b for a, b in signs) / untied, later, len(longer)) if untied else None


def _value(job: Job, epoch: int) -> float:
    trial = _trial(job)
    if trial is None or trial.record["status"] == "failed" or not trial.epochs:
        return -math.inf
    return _best(trial, epoch)


def _best(trial: Trial, epoch: int) -> float:
    """The best value up to `epoch`, so that larger is better."""
    monitor = trial.record["monitor"]
    values = oriented(trial.epochs[:epoch], monitor["name"], 1 if monitor["mode"] == "max" else -1)
    return max(values, default=-math.inf)


def _trial(job: Job) -> Trial | None:
    try:
        return read_trial(job.record.folder, [])
    except (UnreadableError, OSError):
        return None
