"""Which trials of a search are stopped early, by what those before them reached in the same epoch."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cv_lab.study.read import read_trial
from cv_lab.study.record import UnreadableError

FACTOR = 3  # of the trials in a rung, one in so many goes on; the next rung has so many times the epochs
STARTUP = 5  # completed trials before the median is trusted
COMPARABLE = ("data", "task", "epochs")  # parameters in which trials must agree


@dataclass(frozen=True)
class Peer:
    """Another trial of the study.

    Attributes:
        number: in its search.
        curve: monitored value by epoch, negated if smaller is better.
        completed: whether it ran to its end.
    """

    number: int
    curve: Sequence[float]
    completed: bool


def median(curve: Sequence[float], peers: Sequence[Peer]) -> bool:
    """Whether the best value so far is below the median of the completed trials' values in this epoch.

    The rule of Google Vizier (Golovin et al. 2017) with the values themselves, as in Optuna's ``MedianPruner``.
    """
    completed = [peer.curve for peer in peers if peer.completed]
    values = [other[len(curve) - 1] for other in completed if len(other) >= len(curve)]
    return len(completed) >= STARTUP and bool(values) and max(curve) < statistics.median(values)


def successive_halving(curve: Sequence[float], peers: Sequence[Peer], first: int = 1) -> bool:
    """Whether the value is not in the upper third of those that have reached this rung.

    The asynchronous rule of Li et al. 2020 ("A System for Massively Parallel Hyperparameter Tuning"): the rungs are
    after `first`, 3, 9, ... times as many epochs, and a trial is compared with those that came to its rung before it.
    """
    rung = first
    while rung < len(curve):
        rung *= FACTOR
    if rung != len(curve):
        return False
    values = sorted([peer.curve[rung - 1] for peer in peers if len(peer.curve) >= rung] + [curve[-1]], reverse=True)
    return curve[-1] == -math.inf or curve[-1] < values[max(1, len(values) // FACTOR) - 1]


def hyperband(curve: Sequence[float], peers: Sequence[Peer], number: int, epochs: int) -> bool:
    """Successive halving with a later first rung for some trials, since early epochs may mislead (Li et al. 2018).

    The trials take the brackets in turn, and are compared with those of their own.
    """
    brackets = 1
    while FACTOR**brackets <= epochs:
        brackets += 1
    own = [peer for peer in peers if peer.number % brackets == number % brackets]
    return successive_halving(curve, own, first=FACTOR ** (number % brackets))


PRUNERS = ("median", "successive_halving", "hyperband")


def is_hopeless(pruner: str, rows: list[dict[str, float]], folder: Path, record: dict[str, Any]) -> bool:
    """Whether a trial should be stopped.

    Args:
        pruner: one of `PRUNERS`.
        rows: of its epochs so far.
        folder: of the trial, beside those of the others.
        record: the content of its ``trial.json``.
    """
    monitor, sign = record["monitor"]["name"], 1 if record["monitor"]["mode"] == "max" else -1
    curve, peers = oriented(rows, monitor, sign), _peers(folder, record, monitor, sign)
    if pruner == "median":
        return median(curve, peers)
    if pruner == "successive_halving":
        return successive_halving(curve, peers)
    return hyperband(curve, peers, record["number"], int(record["parameters"]["epochs"]))


def oriented(rows: Sequence[dict[str, float]], monitor: str, sign: int) -> list[float]:
    """The monitored value by epoch, so that larger is better; what is no number counts as the worst."""
    values = [sign * row.get(monitor, math.nan) for row in rows]
    return [-math.inf if math.isnan(value) else value for value in values]


def _peers(folder: Path, record: dict[str, Any], monitor: str, sign: int) -> list[Peer]:
    """The other trials of the study that have epochs and can be compared."""
    peers = []
    for path in sorted(folder.parent.glob("*/trial.json")):
        if path.parent.name == folder.name:
            continue
        try:
            trial = read_trial(path.parent, [])
        except (UnreadableError, OSError):
            continue
        same = all(trial.parameters.get(key) == record["parameters"].get(key) for key in COMPARABLE)
        if same and trial.epochs and monitor in trial.epochs[0]:
            curve = oriented(trial.epochs, monitor, sign)
            peers.append(Peer(trial.record.get("number") or 0, curve, trial.record["status"] == "completed"))
    return peers
