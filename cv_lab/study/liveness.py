"""Whether the process of a trial is still alive, on this machine or on another one."""

import os
import socket
import tempfile
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

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
    except psutil.Error:
        return None


def this_process() -> dict[str, Any]:
    """What :func:`is_alive` needs to know of the process that runs a trial."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "machine": machine(), "pid": pid, "pid_start": process_start(pid)}


def is_alive(path: Path, record: dict[str, Any]) -> bool:
    """Whether the process that runs a trial is alive.

    Args:
        path: of the trial's ``trial.json``, whose time of change is the last sign of life.
        record: its content, whose status is "running".
    """
    if record.get("pid") is not None and record.get("machine", record.get("host")) in (machine(), socket.gethostname()):
        start = process_start(record["pid"])
        # Process numbers are used again; the time at which the process started tells them apart.
        return start is not None and start == record.get("pid_start")
    return seconds_since_sign(path) < STALE_SECONDS


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


class Heartbeat:
    """Touch a trial's ``trial.json`` regularly, until it is stopped or the process dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stopped = threading.Event()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self) -> None:
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # the folder may have been moved or removed
                os.utime(self._path)

    def stop(self) -> None:
        """Give no more signs of life."""
        self._stopped.set()
