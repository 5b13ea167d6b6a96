"""What a trial writes of itself: its identity, its status, how it ended. Imports neither torch nor Lightning."""

import fcntl
import hashlib
import json
import math
import os
import platform
import re
import shutil
import socket
import subprocess
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cv_lab.config import NOT_IDENTIFYING, split_override
from cv_lab.files import read_json, write_json, write_yaml

SCHEMA = 1  # of trial.json and result.json; raised when a field changes its meaning
GROUPS = ("data", "task", "model", "loss", "optimizer", "scheduler", "augmentation")
KNOBS = ("lr", "epochs", "batch_size", "weight_decay", "label_smoothing", "precision", "seed", "weights")
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "timm")


# Types of errors that end a trial from outside. It goes on from its last checkpoint; one that failed by itself starts
# anew, since what went wrong may lie in its checkpoint already.
FROM_OUTSIDE = ("Killed", "TimedOut")


class OccupiedError(ValueError):
    """The folder belongs to a trial of another config."""


class BusyError(ValueError):
    """The trial runs already, in another process."""


class Standing(StrEnum):
    """What a trial finds in its folder, and therefore does."""

    NEW = "new"
    COMPLETED = "already completed"
    CONTINUED = "continued"
    RETRIED = "tried again"


class TrialRecord:
    """``trial.json`` of one trial, rewritten at each change of its status.

    Args:
        config: the composed config, with `trial_dir`.
        write: whether this process writes the trial's files. Of several processes of one trial only the first does.
    """

    def __init__(self, config: DictConfig, write: bool = True) -> None:
        self.folder = Path(config.trial_dir)
        self.path = self.folder / "trial.json"
        self.write = write
        self.config = config
        self.identified = identifying(config)
        hydra = HydraConfig.get()
        self.fields: dict[str, Any] = {
            "schema": SCHEMA,
            "identity": _digest(self.identified),
            "status": "running",
            "start": _now(),
            "end": None,
            "study": config.study,
            "name": self.folder.name,
            "overrides": list(hydra.overrides.task),
            "parameters": parameters(config, dict(hydra.runtime.choices), list(hydra.overrides.task)),
            "seed": config.seed,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pid_start": process_start(os.getpid()),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in PACKAGES},
            "attempts": [],  # earlier ones, oldest first
            "error": None,
        }

    @property
    def last_checkpoint(self) -> Path | None:
        """The checkpoint to go on from, if there is one."""
        path = self.folder / "checkpoints" / "last.ckpt"
        return path if path.exists() else None

    def standing(self) -> Standing:
        """What the folder holds. Changes nothing.

        Raises:
            OccupiedError: if a trial of another config lies there; the message shows the difference.
            BusyError: if the trial is running in another process.
        """
        if not self.path.exists():
            return Standing.NEW
        earlier = read_json(self.path)
        if earlier["identity"] != self.fields["identity"]:
            other = OmegaConf.to_container(OmegaConf.load(self.folder / ".hydra" / "identity.yaml"))
            raise OccupiedError(
                f"{self.folder} holds a trial of another config. {difference(other, self.identified)}\n"
                "Name another study (study=NAME), or remove that folder."
            )
        if earlier["status"] == "running":
            if is_alive(earlier):
                raise BusyError(f"{self.folder} is being run by process {earlier['pid']} on {earlier['host']}")
            return Standing.CONTINUED
        if earlier["status"] == "completed":
            return Standing.COMPLETED if (self.folder / "result.json").exists() else Standing.CONTINUED
        if earlier["status"] == "interrupted" or earlier["error"]["type"] in FROM_OUTSIDE:
            return Standing.CONTINUED
        return Standing.RETRIED

    def open(self) -> Standing:
        """Take possession of the folder, unless the trial is completed.

        Raises:
            OccupiedError: see :meth:`standing`.
            BusyError: see :meth:`standing`.
        """
        if not self.write:  # the first process has taken the folder and left a checkpoint only to continue from
            return Standing.NEW if self.last_checkpoint is None else Standing.CONTINUED
        with _locked(self.folder / ".hydra" / "lock"):  # two commands at once must not both take it
            standing = self.standing()
            if standing is Standing.COMPLETED:
                return standing
            if standing is not Standing.NEW:
                earlier = read_json(self.path)
                attempt = {key: earlier[key] for key in ("start", "end", "status", "host", "pid", "error")}
                self.fields["attempts"] = [*earlier["attempts"], attempt]
            _clean(self.folder, all_results=standing is Standing.RETRIED)
            write_yaml(self.folder / ".hydra" / "config.yaml", self.config)
            write_yaml(self.folder / ".hydra" / "overrides.yaml", self.fields["overrides"])
            write_yaml(self.folder / ".hydra" / "identity.yaml", self.identified)
            self.update(**_git())
        return standing

    def update(self, **fields: Any) -> None:
        """Change fields and write the file."""
        self.fields.update(fields)
        if self.write:
            write_json(self.path, self.fields)

    def close(self, status: str, error: BaseException | None = None) -> None:
        """End as "completed", "failed" or "interrupted"."""
        told = None
        if error is not None:
            told = {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": "".join(traceback.format_exception(error)),
            }
        self.update(status=status, end=_now(), error=told)

    def close_for_dead(self, status: str, kind: str, message: str, pid: int | None) -> bool:
        """End the record of the trial that process `pid` ran, if that could not do so itself; says whether so."""
        if self.path.exists():
            fields = read_json(self.path)
            if fields["pid"] != pid or fields["status"] != "running":
                return False
            self.fields = fields
        else:
            self.open()  # the process died before it came to that
        self.update(status=status, end=_now(), pid=pid, error={"type": kind, "message": message, "traceback": ""})
        return True


def failed_value(hydra: Any) -> float:
    """What a failed trial of a multirun returns: to a search the worst value, so that it turns away, else NaN.

    Args:
        hydra: the trial's config under ``hydra``.
    """
    direction = OmegaConf.select(hydra.sweeper, "direction")  # Optuna's, an enum or its name
    return {"maximize": -math.inf, "minimize": math.inf}.get(str(direction).rpartition(".")[2], math.nan)


def is_alive(record: dict[str, Any]) -> bool:
    """Whether the process of a record that says "running" still is. One on another host counts as alive."""
    if record["host"] != socket.gethostname():
        return True
    # A process id is given again; the time at which the process started tells them apart.
    return _exists(record["pid"]) and process_start(record["pid"]) == record["pid_start"]


def process_start(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; None where the system does not tell (macOS)."""
    try:
        # The second field, the program's name in brackets, may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie has ended; only its parent has not asked yet.
    return None if fields[0] == "Z" else int(fields[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clean(folder: Path, all_results: bool) -> None:
    """Remove what a killed process left half written, and if `all_results` what a failed attempt wrote.

    Its log and, in ``trial.json``, its error stay.
    """
    for path in folder.rglob(".*"):
        if re.fullmatch(r"\..+\.\d+", path.name):
            path.unlink(missing_ok=True)
    if all_results:
        files = (folder / name for name in ("metrics.csv", "result.json", "test.npz", "test.csv"))
        for path in (*files, *folder.glob("events.out.tfevents.*")):
            path.unlink(missing_ok=True)
        for name in ("checkpoints", "predictions"):
            shutil.rmtree(folder / name, ignore_errors=True)


def identifying(config: DictConfig) -> dict[str, Any]:
    """The resolved config without what does not change a trial's result, such as folders."""
    emptied = OmegaConf.create(OmegaConf.to_container(config))
    for key in NOT_IDENTIFYING:
        # Emptied before the rest is resolved, since paths are built from these by interpolation.
        if OmegaConf.select(emptied, key, throw_on_missing=False) is not None:
            OmegaConf.update(emptied, key, "")
    plain = OmegaConf.to_container(emptied, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key not in NOT_IDENTIFYING}


def parameters(config: DictConfig, choices: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """What trials are compared by: the chosen group options, the top-level knobs, and every other value overridden."""
    chosen = {group: choices[group] for group in GROUPS if choices.get(group) is not None}
    knobs = {name: config[name] for name in KNOBS}
    # What is in effect: the knob is only what the optimizer follows unless ``optimizer.weight_decay`` is overridden.
    knobs["weight_decay"] = OmegaConf.select(config, "optimizer.weight_decay")
    others: dict[str, Any] = {}
    for override in overrides:
        key, text = split_override(override)
        if key not in (*chosen, *knobs, *NOT_IDENTIFYING) and not key.startswith("hydra"):
            value = OmegaConf.select(config, key)
            others[key] = value if isinstance(value, int | float | str) else text
    return chosen | knobs | others


def difference(left: Any, right: Any) -> str:
    """The leaves in which two nested configs differ, as ``key: left -> right``."""
    a, b = _leaves(left), _leaves(right)
    absent = "(absent)"
    lines = [
        f"{key}: {a.get(key, absent)} -> {b.get(key, absent)}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key, absent) != b.get(key, absent)
    ]
    return "They differ in " + "; ".join(lines)


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _leaves(item, f"{prefix}.{key}".strip(".")).items()}
    return {prefix: value}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _git() -> dict[str, Any]:
    """Commit of the code and whether it was changed since; both null outside a checkout."""
    here = Path(__file__).parent

    def ask(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return answer.stdout.strip()

    status = ask("status", "--porcelain")
    return {"git_commit": ask("rev-parse", "HEAD"), "git_dirty": None if status is None else bool(status)}
