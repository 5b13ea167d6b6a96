"""What a trial writes about itself: its identity, its status, how it ended."""

import itertools
import json
import logging
import platform
import secrets
import subprocess
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from enum import StrEnum
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cv_lab.config import Keys, trial_name
from cv_lab.files import FENCES, WRITTEN, read_json, write_json, write_yaml
from cv_lab.study.identity import difference, digest, flatten, identifying, parameters
from cv_lab.study.liveness import STALE_SECONDS, Heartbeat, Watch, holder_is_alive, this_process

log = logging.getLogger(__name__)
SCHEMA = 1  # of trial.json and result.json; raised when a field changes its meaning
# Files of every trial. A new trial refuses a folder that holds one; so, later, they are known to be the trial's own.
OWN_FILES = ("metrics.csv", "result.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt", ".hydra/config.yaml")

FINGERPRINT = "data.fingerprint"  # the contents of the data's files, among the keys of the config

# Types of fields of trial.json that the trial itself relies on.
NEEDED = {"identity": str, "status": str, "parameters": dict, "overrides": list, "attempts": list}
OPTIONAL = {"config": dict, "versions": dict, "files": list}

# Types of errors that end a trial from outside. It continues from its last checkpoint; one that failed by itself
# starts anew, since what went wrong may be in its checkpoint already.
FROM_OUTSIDE = ("Killed", "TimedOut")
ANY = "any"  # lease that a folder may have when a trial is to be run
LOCK_SECONDS = 30.0  # to wait for the lock of a folder, which is held while a file in it gets its name


class OccupiedError(ValueError):
    """The folder belongs to a trial of another config, or to no trial."""


class BusyError(ValueError):
    """The trial is running already, in another process."""


class TakenOverError(RuntimeError):
    """Another process has taken the trial over, since this one had given no sign of life for long."""


class UnreadableError(ValueError):
    """A file is damaged, or of another version."""


class FolderState(StrEnum):
    """What is in a trial's folder, which decides whether the trial starts, continues, starts anew or is skipped."""

    NEW = "new"
    COMPLETED = "already completed"
    CONTINUED = "continued"
    RETRIED = "tried again"
    FAILED = "failed before"


class TrialRecord:
    """``trial.json`` of one trial, rewritten at each change of its status.

    Args:
        config: the composed config, with `trial_dir`, which follows when the trial moves to another folder.
        keys: what of the config identifies and describes the trial.
        write: whether this process writes the trial's files. Of several processes of one trial only the first does.

    Attributes:
        folder: of the trial.
        fields: the content of ``trial.json``.
        note: what sets an earlier attempt in the folder apart from this trial, in words; "" for nothing.
        found: the record that :meth:`state` last found in the folder; empty if there was none.
        dead: the lease of a process on another host that is known to have died, "" for a damaged one; None if there is
            none.
    """

    def __init__(self, config: DictConfig, keys: Keys, write: bool = True) -> None:
        self.folder = Path(config.trial_dir)
        self.write = write
        self.config = config
        self.identified = identifying(config, keys.not_identifying)
        self.note = ""
        self.found: dict[str, Any] = {}
        self._of_other_data = ""  # name of a folder with the same trial on other data
        self._heartbeat: Heartbeat | None = None
        hydra: Any = HydraConfig.get()
        self.dead: str | None = hydra.launcher.get("dead_lease")
        self._expected: str | None = hydra.launcher.get("expected_lease", ANY)
        overrides = list(hydra.overrides.task)
        self._named_by_overrides = self.folder.name == trial_name(overrides)
        self.fields: dict[str, Any] = {
            "schema": SCHEMA,
            **self._identity(),
            "status": "running",
            "start": _now(),
            "end": None,
            "number": OmegaConf.select(hydra, "job.num", throw_on_missing=False),  # in its multirun
            "study": config.study,
            "name": self.folder.name,
            "overrides": overrides,
            "parameters": parameters(config, keys, dict(hydra.runtime.choices), overrides),
            "seed": config.seed,
            **this_process(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in keys.packages},
            "attempts": [],  # earlier ones, oldest first
            "files": [],  # written by failed or interrupted attempts
            "error": None,
            "lease": None,  # of the process that writes to the folder, another one for each attempt
            "folder_inode": None,  # which a copy of the folder does not have
            **(hydra.launcher.get("code") or code_version()),
            "began_from": None,  # another trial: its "name", and the "epochs" that were taken over
        }

    def identify_data(self, fingerprint: str) -> None:
        """Make the contents of the data a part of what identifies the trial.

        Args:
            fingerprint: of the data's files; "" where the config says all, or where it is not known.
        """
        if fingerprint:
            self.identified["data"] = {**self.identified["data"], "fingerprint": fingerprint}
            self.fields |= self._identity()

    def _identity(self) -> dict[str, Any]:
        return {
            "identity": digest(self.identified),
            "setting": digest({**self.identified, "seed": None}),
            "config": json.loads(json.dumps(flatten(self.identified), default=str)),
        }

    @property
    def path(self) -> Path:
        """Of ``trial.json``."""
        return self.folder / "trial.json"

    @property
    def is_open(self) -> bool:
        """Whether this process has taken the folder and not given it back."""
        return self._heartbeat is not None

    @property
    def began_from_another(self) -> bool:
        """Whether the trial's first epochs were trained by another one."""
        return self.fields["began_from"] is not None

    @property
    def last_checkpoint(self) -> Path | None:
        """The checkpoint to continue from, if there is one."""
        path = self.folder / "checkpoints" / "last.ckpt"
        return path if path.exists() else None

    def choose_folder(self, trials: dict[Path, dict[str, Any]]) -> None:
        """Move to the folder that holds this trial already, or away from one that holds another.

        A trial is its identity: the same one may have been asked for in other words, such as ``lr=1e-2`` and
        ``lr=0.01``, and two that differ may have the same name. A folder that the user has named is kept.

        Args:
            trials: the records of the study's trials by folder, see :func:`read_records`.
        """
        if not self._named_by_overrides:
            return
        for is_same in (self._is_identical, self._is_of_earlier_config):
            same = [folder for folder, record in trials.items() if is_same(record)]
            if same:  # of copies, such as one made while the trial ran, the completed one, or that of the usual name
                self._move(min(same, key=lambda one: (trials[one]["status"] != "completed", one != self.folder)))
                return
        if self.folder in trials:
            changed = difference(trials[self.folder].get("config", {}), self.fields["config"])
            self._of_other_data = self.folder.name if changed.startswith(FINGERPRINT) and ";" not in changed else ""
            self._move(self._folder_with_identity())

    def state(self, retry_failed: bool = True) -> FolderState:
        """What is in the folder. Changes no file.

        Args:
            retry_failed: try again a trial that failed and would fail again.

        Raises:
            OccupiedError: if the folder holds a trial of another config, or files that no trial wrote.
            BusyError: if the trial is running in another process.
            UnreadableError: if ``trial.json`` is damaged.
        """
        self.note, self.found = "", {}
        if not self.path.exists():
            self._refuse_files_of_others()
            if self._of_other_data:
                self.note = f"since the data have changed since {self._of_other_data}"
            return FolderState.NEW
        earlier = self.found = read_record(self.path)
        of_this_config = self._has_config_of(earlier)
        if not self._is_identical(earlier) and not self._is_of_earlier_config(earlier):
            raise OccupiedError(
                f"{self.folder} holds a trial of another config, or of data that have changed since. They differ in "
                f"{difference(earlier.get('config', {}), self.fields['config'])}\n"
                "Name another study (study=NAME), or remove that folder."
            )
        self.note = self._differences(earlier)
        status, error = earlier["status"], earlier.get("error") or {}
        if status == "running" and not self._is_dead(earlier):
            raise BusyError(f"{self.folder} is being run by {described_holder(earlier)}")
        if status == "completed" and _is_object(self.folder / "result.json"):
            return FolderState.COMPLETED
        if status == "failed" and error.get("type") not in FROM_OUTSIDE:
            return FolderState.FAILED if error.get("repeats") and not retry_failed else FolderState.RETRIED
        return FolderState.CONTINUED if of_this_config else FolderState.RETRIED

    def open(self, retry_failed: bool = True) -> FolderState:
        """Take possession of the folder, unless the trial is completed or failed for good.

        Raises:
            OccupiedError: see :meth:`state`.
            BusyError: see :meth:`state`.
            UnreadableError: see :meth:`state`.
        """
        if not self.write:  # the first process has taken the folder and left a checkpoint only to continue from
            return FolderState.NEW if self.last_checkpoint is None else FolderState.CONTINUED
        with self._lock(LOCK_SECONDS):  # two commands at once must not both take it
            try:
                state = self.state(retry_failed)
            except OccupiedError:
                if not self._named_by_overrides or self.folder == self._folder_with_identity():
                    raise
                state = None  # another trial of this name has taken the folder meanwhile
            if state in (FolderState.COMPLETED, FolderState.FAILED):
                return state
            if self.found and self._expected not in (ANY, self.found.get("lease")):
                raise BusyError(f"{self.folder} has been run by {described_holder(self.found)} in the meantime")
            if state is not None:
                self._take(state)
                return state
        self._move(self._folder_with_identity())
        return self.open(retry_failed)

    def wait_for_sign(self) -> None:
        """Wait until the process on another host that runs the trial has ended or given a sign of life, or is dead."""
        watch, told = Watch(), False
        while self.path.exists() and (earlier := read_record(self.path))["status"] == "running":
            alive = watch.look(self.path, earlier)
            if alive is False:
                self.dead = earlier.get("lease") or ""
            if alive is not None:
                return
            if not told:
                who = described_holder(earlier)
                log.info("waiting up to %.0f s for a sign of life of %s, which runs this trial", STALE_SECONDS, who)
            told = True
            time.sleep(1)

    def update(self, **fields: Any) -> None:
        """Change fields and write the file."""
        self.fields.update(fields)
        if self.write:
            write_json(self.path, self.fields)

    def close(self, status: str, error: BaseException | None = None, repeats: bool = False) -> None:
        """End as "completed", "failed", "interrupted", or, stopped after some of its epochs, "paused" or "pruned".

        Args:
            status: of the trial.
            error: that the trial failed by.
            repeats: whether the same trial would fail by it again.
        """
        described = None
        if error is not None:
            described = {
                "type": type(error).__name__,
                "message": str(error),
                "repeats": repeats,
                "traceback": "".join(traceback.format_exception(error)),
            }
        with suppress(TakenOverError):  # the record is the other process's
            self.update(status=status, end=_now(), error=described, files=self._files())
        self._let_go()

    def close_for_dead(self, status: str, kind: str, message: str, pid: int | None) -> bool:
        """End the record of the trial that process `pid` ran, if that is still to do; return whether it was."""
        error = {"type": kind, "message": message, "repeats": False, "traceback": ""}
        if not self.path.exists():
            self.open()  # the process died before it came to that
            self.update(status=status, end=_now(), pid=pid, error=error)
            self._let_go()
            return True
        with self._lock():
            fields = read_record(self.path)
            own = fields.get("pid") == pid and fields.get("machine") == this_process()["machine"]
            if not own or fields["status"] != "running":
                return False
            self.fields = fields
            self.update(status=status, end=_now(), error=error)
        return True

    def _take(self, state: FolderState) -> None:
        """Begin an attempt in the folder, which is locked."""
        if state is not FolderState.NEW:
            earlier = read_record(self.path)
            kept = ("start", "end", "status", "host", "pid", "error", "versions", "git_commit", "git_dirty")
            attempt = {key: earlier.get(key) for key in kept}
            self.fields["attempts"] = [*earlier["attempts"], attempt]
            self.fields["files"] = earlier.get("files", [])
            pids = [pid for attempt in self.fields["attempts"] if isinstance(pid := attempt.get("pid"), int)]
            _remove_half_written(self.folder, pids)
            if state is FolderState.RETRIED:
                _remove_results(self.folder, self.fields["files"], pids)
                self.fields["files"] = []
            else:
                self.fields["began_from"] = earlier.get("began_from")
        lease, inode = secrets.token_hex(8), self.folder.stat().st_ino
        self.update(name=self.folder.name, lease=lease, folder_inode=inode)
        FENCES[self.folder.absolute()] = self._fence
        self._heartbeat = Heartbeat(self.path, lease)
        write_yaml(self.folder / ".hydra" / "config.yaml", self.config)
        write_yaml(self.folder / ".hydra" / "overrides.yaml", self.fields["overrides"])

    @contextmanager
    def _lock(self, timeout: float = -1) -> Iterator[None]:
        path = self.folder / ".hydra" / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path, is_singleton=True).acquire(timeout):
                yield
        except Timeout as error:
            raise BusyError(f"{self.folder} is locked by a process that does not go on") from error

    def _let_go(self) -> None:
        """Give the folder back."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        FENCES.pop(self.folder.absolute(), None)

    @contextmanager
    def _fence(self) -> Iterator[None]:
        """Keep others from taking the trial over, and raise a TakenOverError if one has already."""
        if not self.path.exists():
            raise TakenOverError(f"{self.path} has been removed while the trial ran: it ends here")
        with self._lock():
            with suppress(UnreadableError):  # a damaged record is left alone by all others
                holder = read_record(self.path)
                if holder.get("lease") != self.fields["lease"]:
                    raise TakenOverError(
                        f"{self.folder} has been taken over by {described_holder(holder)}, since this process had "
                        "given no sign of life: it ends here, and writes nothing more"
                    )
            yield

    def _is_dead(self, earlier: dict[str, Any]) -> bool:
        """Whether the process of a record that says "running" is known to have died."""
        alive = holder_is_alive(self.path, earlier)
        return alive is False or (alive is None and (earlier.get("lease") or "") == self.dead)

    def _files(self) -> list[str]:
        """The files in the folder that this attempt and those that it continues have written."""
        folder = self.folder.absolute()
        own = {path.relative_to(folder).as_posix() for path in WRITTEN if path.is_relative_to(folder)}
        return sorted(own.union(self.fields["files"]))

    def _refuse_files_of_others(self) -> None:
        others = [name for name in OWN_FILES if (self.folder / name).exists()]
        if others:
            raise OccupiedError(
                f"{self.folder} holds {', '.join(others)}, but no trial.json: a trial would overwrite what may not be "
                "its own. Give another folder, or move them away."
            )

    def _is_identical(self, record: dict[str, Any]) -> bool:
        return bool(record["identity"] == self.fields["identity"])

    def _has_config_of(self, record: dict[str, Any]) -> bool:
        """Whether a record, of this trial, is of the same config; of one of the two, the data may not be known."""
        theirs, own = record.get("config", {}), self.fields["config"]
        same = all(theirs.get(key) == own.get(key) for key in (theirs.keys() | own.keys()) - {FINGERPRINT})
        return self._is_identical(record) or same

    def _is_of_earlier_config(self, record: dict[str, Any]) -> bool:
        """Whether a record is of this trial before keys were added to the config's files, or removed from them."""
        theirs, own = record.get("config", {}), self.fields["config"]
        return (
            record["parameters"] == self.fields["parameters"]
            and _experiment(record["overrides"]) == _experiment(self.fields["overrides"])
            and all(theirs[key] == own[key] for key in theirs.keys() & own.keys())
            and bool(theirs)
        )

    def _differences(self, earlier: dict[str, Any]) -> str:
        words = []
        if not self._has_config_of(earlier):
            words.append(f"of an earlier config: {difference(earlier['config'], self.fields['config'])}")
        if changed := difference(earlier.get("versions", {}), self.fields["versions"]):
            words.append(f"under other versions: {changed}")
        return "; ".join(words)

    def _folder_with_identity(self) -> Path:
        name = trial_name(self.fields["overrides"])
        return self.folder.with_name(f"{name}-{self.fields['identity'][:8]}")

    def _move(self, folder: Path) -> None:
        self.folder = folder
        self.config.trial_dir = str(folder)


def read_object(path: Path) -> dict[str, Any]:
    """Read ``trial.json`` or ``result.json``.

    Raises:
        UnreadableError: if it is damaged, or of another version.
        OSError: if it cannot be opened.
    """
    try:
        value = read_json(path)
    except (ValueError, RecursionError) as error:  # of JSON and of UTF-8
        raise UnreadableError(f"{path.name} is damaged ({error})") from error
    if not isinstance(value, dict):
        raise UnreadableError(f"{path.name} is damaged (it holds no JSON object)")
    if value.get("schema") != SCHEMA:
        raise UnreadableError(
            f"{path.name} was written by another version of the lab (schema {value.get('schema')}, {SCHEMA} is known)"
        )
    return value


def read_record(path: Path) -> dict[str, Any]:
    """Read a ``trial.json`` as the trial itself needs it.

    Raises:
        UnreadableError: if it is damaged, of another version, or cannot be opened.
    """
    try:
        record = read_object(path)
    except OSError as error:
        raise UnreadableError(f"{path.name} cannot be read ({error.strerror})") from error
    wrong = [name for name, kind in NEEDED.items() if not isinstance(record.get(name), kind)]
    wrong += [name for name, kind in OPTIONAL.items() if not isinstance(record.get(name, kind()), kind)]
    wrong += [name for name in ("error", "monitor") if not isinstance(record.get(name), dict | None)]
    if not wrong and not all(isinstance(attempt, dict) for attempt in record["attempts"]):
        wrong = ["attempts"]
    if wrong:
        raise UnreadableError(f"{path.name} is damaged (in {', '.join(wrong)})")
    return record


def read_records(study: Path) -> dict[Path, dict[str, Any]]:
    """The readable records of a study's trials by folder."""
    records = {}
    for path in sorted(study.glob("*/trial.json")):
        try:
            records[path.parent] = read_record(path)
        except UnreadableError:  # the trial itself will say so
            continue
    return records


def described_holder(record: dict[str, Any]) -> str:
    """Process and host of a trial, in words."""
    return f"process {record.get('pid')} on {record.get('host')}"


def _is_object(path: Path) -> bool:
    try:
        return path.exists() and bool(read_object(path))
    except (UnreadableError, OSError):
        return False


def _experiment(overrides: list[str]) -> list[str]:
    return [override for override in overrides if override.lstrip("+").startswith("experiment=")]


def _remove_half_written(folder: Path, pids: Iterable[int]) -> None:
    """Remove the temporary files of killed processes."""
    for pid in pids:
        own = [(folder / name).rglob(f".*.{pid}") for name in ("checkpoints", "predictions", ".hydra")]
        for path in [*folder.glob(f".*.{pid}"), *itertools.chain(*own)]:
            path.unlink(missing_ok=True)


def _remove_results(folder: Path, written: Iterable[str], pids: Iterable[int]) -> None:
    """Remove the files that failed attempts wrote, except their logs; keep files that no trial wrote."""
    logs = {path for pid in pids for path in folder.glob(f"events.out.tfevents.*.{pid}.*")}
    for path in {folder / name for name in (*OWN_FILES, *written)} | logs:
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            path.unlink()


_version = cache(version)  # which looks through the installed packages each time


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


@cache
def code_version() -> dict[str, Any]:
    """Commit of the code and whether it was changed since; both null outside a checkout. Asked once in a process."""
    here = Path(__file__).parent

    def ask(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return answer.stdout.strip()

    status = ask("status", "--porcelain")
    return {"git_commit": ask("rev-parse", "HEAD"), "git_dirty": None if status is None else bool(status)}
