"""Whether the process of a trial is still alive, on this machine or on another one.

The process that runs a trial holds its lease: it touches ``trial.json`` regularly. On its own machine it can be asked
for. Elsewhere it counts as dead if that file has not changed while another process has watched it for long enough by
its own clock. So no two clocks are ever compared.
"""

import os
import socket
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from cv_lab.files import read_json

HEARTBEAT_SECONDS = 15.0  # between two signs of life
STALE_SECONDS = 90.0  # without a sign of life, after which a process that cannot be asked counts as dead


@cache
def machine() -> str:
    """Name the system whose process numbers this process sees.

    A host name does not: containers get a new one with each start, and a laptop's follows the network. On Linux it is
    the boot of the kernel and the namespace of process numbers; elsewhere the host name has to do.
    """
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def process_start(pid: int) -> float | None:
    """When a process started, in seconds after the boot of the machine; None if it has ended.

    Relative to the boot, since the clock may be set while a process runs.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # it has ended; only its parent has not asked yet
            return None
        return round(float(process.create_time() - psutil.boot_time()), 2)
    except (psutil.Error, TypeError, ValueError):  # or no number that a process can have, in a damaged record
        return None


def this_process() -> dict[str, Any]:
    """What :func:`holder_is_alive` needs to know of the process that runs a trial."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "machine": machine(), "pid": pid, "pid_start": process_start(pid)}


def holder_is_alive(path: Path, record: dict[str, Any]) -> bool | None:
    """Whether the process that runs a trial is alive; None if this machine cannot tell.

    Args:
        path: of the trial's ``trial.json``.
        record: its content, whose status is "running".
    """
    if record.get("pid") is None or record.get("machine", record.get("host")) not in (machine(), socket.gethostname()):
        return None
    start = process_start(record["pid"])
    # Process numbers are used again; the time at which the process started tells them apart.
    if start is None or start != record.get("pid_start"):
        return False
    copied = record.get("folder_inode") not in (None, path.parent.stat().st_ino)
    return None if copied else True  # the process may write to the original alone


def is_alive(path: Path, record: dict[str, Any]) -> bool:
    """Whether the process that runs a trial seems to be alive, at a single look. To be sure, use :class:`Watch`."""
    alive = holder_is_alive(path, record)
    return seconds_since_sign(path) < STALE_SECONDS if alive is None else alive


def seconds_since_sign(path: Path) -> float:
    """Seconds since the last sign of life in either direction: a clock may have been set back.

    Measured by the clock of the file system, since those of two hosts may differ by minutes.
    """
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            now = os.fstat(file.fileno()).st_mtime
    except OSError:  # not writable
        now = time.time()
    return abs(now - path.stat().st_mtime)


@dataclass(frozen=True)
class _Look:
    """What was seen of a file: its state, since when and until when by time.monotonic(), and whether it changed."""

    state: tuple[Any, ...]
    since: float
    until: float
    changed: bool = False


class Watch:
    """Watch the signs of life of trials on other machines."""

    def __init__(self) -> None:
        self._looks: dict[Path, _Look] = {}

    def look(self, path: Path, record: dict[str, Any]) -> bool | None:
        """Whether the process that runs a trial is alive; None as long as that is not known.

        Must be called at least every `HEARTBEAT_SECONDS`. After a longer pause, such as that of a suspended machine,
        the watch begins anew, since others may have been suspended as well.

        Args:
            path: of the trial's ``trial.json``.
            record: its content, whose status is "running".
        """
        alive = holder_is_alive(path, record)
        if alive is not None:
            return alive
        with path.open() as file:  # opened, since a network file system may answer from memory otherwise
            state = (os.fstat(file.fileno()).st_mtime_ns, record.get("lease"))
        now = time.monotonic()
        before = self._looks.get(path)
        if before is None or now - before.until > HEARTBEAT_SECONDS:
            before = _Look(state, now, now)
        elif state != before.state:
            before = _Look(state, now, now, changed=True)
        self._looks[path] = replace(before, until=now)
        if now - before.since >= STALE_SECONDS:
            return False
        return True if before.changed else None


class Heartbeat:
    """Touch a trial's ``trial.json`` regularly, until it is stopped, the lease is another's, or the process dies."""

    def __init__(self, path: Path, lease: str) -> None:
        self._path, self._lease = path, lease
        self._stopped = threading.Event()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self) -> None:
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            with suppress(OSError, ValueError):  # the folder may have been moved or removed, the file be damaged
                if read_json(self._path).get("lease") != self._lease:
                    return
                os.utime(self._path)

    def stop(self) -> None:
        """Give no more signs of life."""
        self._stopped.set()
