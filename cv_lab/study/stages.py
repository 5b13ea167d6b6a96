"""Trials that differ in their number of epochs alone share their beginnings. Torch is not needed to say which.

A trial begins from the checkpoint of such a sibling with which it agrees for the most epochs, so that these are trained
once. Up to which epoch two of them agree depends on their schedules, see :mod:`cv_lab.trial.stages`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cv_lab.study.identity import difference, digest
from cv_lab.study.liveness import is_alive
from cv_lab.study.record import FROM_OUTSIDE, UnreadableError, read_record

if TYPE_CHECKING:
    from cv_lab.study.plan import Job

LENGTH = ("epochs", "trainer.max_epochs")  # the keys in which siblings differ
# Checkpoints to begin from, each with the best one up to there: the last, and the one where a longer trial goes on.
CHECKPOINTS = (("last.ckpt", "best.ckpt"), ("trunk.ckpt", "trunk_best.ckpt"))


@dataclass(frozen=True)
class Agreements:
    """Up to which epoch trials of a family agree.

    Attributes:
        of: by two numbers of epochs, the shorter first.
        trunk: by a number of epochs, the one up to which such a trial agrees with all that are longer.
        why_not: why two of them do not agree up to the end of the shorter; "" if all do.
    """

    of: Mapping[tuple[int, int], int]
    trunk: Mapping[int, int]
    why_not: str = ""

    def begin(self, earlier: int, later: int) -> int:
        """The epoch from whose checkpoint in a trial of `earlier` epochs one of `later` can begin; 0 if from none."""
        limit = self.of[min(earlier, later), max(earlier, later)]
        return max(epoch for epoch in (0, earlier, self.trunk[earlier]) if epoch <= limit)


def family(config: Mapping[str, Any]) -> str:
    """A hash of what siblings have in common.

    Args:
        config: the leaves of a trial's identity, as ``trial.json`` holds them.
    """
    return digest({key: value for key, value in config.items() if key not in LENGTH})


def families(records: Mapping[Path, Mapping[str, Any]]) -> dict[str, dict[Path, int]]:
    """The folders of trials with their numbers of epochs, by family."""
    found: dict[str, dict[Path, int]] = {}
    for folder, record in records.items():
        config = record.get("config") or {}
        if isinstance(config.get("epochs"), int):
            found.setdefault(family(config), {})[folder] = config["epochs"]
    return found


def why_not_from(own: Mapping[str, Any], sibling: Mapping[str, Any], path: Path) -> str | None:
    """Why a trial cannot begin from what a sibling has left, whatever the epoch; None if it can.

    Args:
        own: the trial's record.
        sibling: the record of the other.
        path: of that record.
    """
    if sibling["status"] == "running" and is_alive(path, dict(sibling)):
        return "it is running"
    if sibling["status"] == "failed" and (sibling.get("error") or {}).get("type") not in FROM_OUTSIDE:
        return "it failed"
    if family(sibling.get("config") or {}) != family(
        own.get("config") or {}
    ):  # the data were changed since the study was planned
        return "it was trained on other data"
    if changed := difference(sibling.get("versions", {}), own["versions"]):
        return f"it was trained with other versions ({changed})"
    if "git_commit" in own and sibling.get("git_commit") != own["git_commit"]:
        return "it was trained by another commit of the code"
    return None


def chain(jobs: Sequence["Job"], alike: Sequence["Job"], known: Sequence[Agreements]) -> str:
    """Let trials begin from siblings: from completed ones, or after others that run first.

    Args:
        jobs: of a multirun, each trial once.
        alike: those to run that have siblings; their `after` and `begins` are set.
        known: for each of these up to where trials of its family agree.

    Returns:
        Why trials that differ in their number of epochs alone share less than the whole of the shorter; "" if none do.
    """
    to_run = {job.record.folder: job for job in jobs if job.to_run}
    for job, agreements in zip(alike, known, strict=True):
        for folder, epochs in job.siblings.items():
            sibling = to_run.get(folder)
            possible = _is_completed(folder, job.record.fields) if sibling is None else epochs < job.epochs
            begins = agreements.begin(epochs, job.epochs) if possible else 0
            if begins > job.begins or (begins == job.begins and sibling is None):  # what is there needs no waiting
                job.begins, job.after = begins, sibling
    return "; ".join(dict.fromkeys(agreements.why_not for agreements in known if agreements.why_not))


def _is_completed(folder: Path, own: Mapping[str, Any]) -> bool:
    path = folder / "trial.json"
    try:
        record = read_record(path)
    except UnreadableError:
        return False
    return record["status"] == "completed" and why_not_from(own, record, path) is None
