"""Run trials in processes of their own: slots, signals, and what the process of a trial does.

Where the system has a fork server, it imports torch and Lightning once; the trials are forked from it, so that one
starts in milliseconds, with fresh memory and no trace of the one before. Elsewhere each is spawned. A trial's process
brings no results back: they are in its folder. So there is no pool and no queue that a killed process could break.
"""

import faulthandler
import io
import logging
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from _thread import interrupt_main
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import cloudpickle
import psutil
from hydra.core.singleton import Singleton
from hydra.core.utils import JobStatus, run_job, setup_globals
from hydra.utils import get_method
from omegaconf import DictConfig

from cv_lab.study.liveness import Watch
from cv_lab.study.plan import Job
from cv_lab.study.read import read_trial
from cv_lab.study.record import (
    FROM_OUTSIDE,
    BusyError,
    FolderState,
    OccupiedError,
    UnreadableError,
    described_holder,
    read_record,
)

log = logging.getLogger(__name__)

GRACE_SECONDS = 20.0  # from asking an interrupted trial to end until it is killed
ASK_SECONDS = 1.0  # until it is asked again, since it may not have been listening yet
STACK_SECONDS = 1.0  # for a hanging trial to write where it hangs
LOOK_SECONDS = 1.0  # between two looks at trials that other processes run
STARTS = 3  # attempts to start a process, before each of which a killed fork server is started again
# What a launcher asks of a trial's process.
INTERRUPT, WRITE_STACK = "interrupt", "write stack"


@dataclass(frozen=True)
class Slot:
    """The share of the machine that one trial at a time gets."""

    jobs: int  # trials that run at a time
    gpu: str | None  # its number; None where trials share what there is


@dataclass(frozen=True)
class Running:
    """A trial that runs, or has just ended."""

    job: Job
    slot: Slot
    due: float  # by time.monotonic(); the trial is given up then
    process: Any  # of multiprocessing
    requests: Connection

    def ask(self, request: str) -> None:
        """Ask its process for something, unless it has ended."""
        with suppress(OSError):
            self.requests.send(request)


class Runner:
    """The trials that wait, and those that run, each in a slot.

    Args:
        config: of the multirun.
        preload: modules that a fork server imports.
        jobs: to be run.
        arguments: returns what :func:`_run_trial` unpacks for a job.
        more: returns the next job when none waits and a slot is free; None if there is none.
        unfinished: returns those of some jobs that are not done yet, where more than this command may run them. With
            it, trials that other hosts run are waited for; without it, until they are known to be alive.
    """

    def __init__(
        self,
        config: DictConfig,
        preload: Sequence[str],
        jobs: Sequence[Job],
        arguments: Callable[[Job], tuple[Any, ...]],
        more: Callable[[], Job | None] = lambda: None,
        unfinished: Callable[[Sequence[Job]], Sequence[Job]] | None = None,
    ) -> None:
        self.config, self.preload, self.arguments, self.more = config, preload, arguments, more
        self.unfinished = unfinished
        self.waiting = deque(job for job in jobs if job.to_run)
        self.elsewhere = {id(job): job for job in jobs if job.busy}  # run by other processes
        self.others = False  # whether other hosts were seen to run some
        self.alive: set[int] = set()  # the keys of those whose processes are known to be alive
        self.watch = Watch()
        self.running: dict[int, Running] = {}  # by their sentinels
        self.free = slots(self.config.jobs)

    def until_done(self) -> int | None:
        """Run all trials; return the exit code if it had to stop before."""
        try:
            while True:
                self._look_elsewhere()
                while self.free and (job := self._next()) is not None:
                    self._start(job, self.free.pop(0))
                if not self.running and self._may_leave():
                    return None
                ends = [self._end(running) for running in self._ended()]
                if self.config.fail_fast and not all(ends):
                    count = len(self.waiting)
                    log.error("fail_fast: %s not run", "1 trial" if count == 1 else f"{count} trials")
                    self._interrupt()
                    return 1
        except KeyboardInterrupt:
            log.error("interrupted: the running trials keep their last checkpoints")
            self._interrupt()
            return 130

    def _next(self) -> Job | None:
        """The first trial that waits for no other; one that begins from another waits until that has ended.

        Where other hosts run trials of the same study, any of those: all would try to begin with the same one.
        """
        while True:
            running = [running.job for running in self.running.values()]
            unfinished = {id(job) for job in (*self.waiting, *self.elsewhere.values(), *running)}
            ready = [job for job in self.waiting if id(job.after) not in unfinished]
            if not ready:
                return None if self.waiting else self.more()
            job = random.choice(ready) if self.others else ready[0]
            self.waiting.remove(job)
            if self._is_left(job):
                return job

    def _is_left(self, job: Job) -> bool:
        """Whether a trial is still to be run, and by none other: another host may have run it since it was planned."""
        record = job.record
        try:
            state = record.state(self.config.retry_failed)
        except BusyError:
            self.elsewhere[id(job)], self.others = job, True
            return False
        except (OccupiedError, UnreadableError):  # the trial itself says so
            return True
        found = record.found
        own = (found.get("error") or {}).get("type") not in FROM_OUTSIDE
        failed = found.get("status") == "failed" and own and found.get("lease") != job.lease
        if state in (FolderState.COMPLETED, FolderState.FAILED) or failed:
            log.info("  #%d %s by %s", job.number, found["status"], described_holder(found))
            self.others = True
            return False
        job.tell(expected_lease=found.get("lease"))
        return self.unfinished is None or bool(self.unfinished([job]))

    def _look_elsewhere(self) -> None:
        """Take up those of the trials that others run whose processes have ended or died."""
        for key, job in list(self.elsewhere.items()):
            path = job.record.path
            try:
                found = job.record.found = read_record(path)
                running = found["status"] == "running"
                alive = running and self.watch.look(path, found)
            except (OSError, UnreadableError):  # the trial itself says so
                running = alive = False
            if alive:
                self.alive.add(key)
            if alive is not False:
                continue
            if running:
                log.info("  #%d is taken over from %s, which has died", job.number, described_holder(found))
                job.record.dead = found.get("lease") or ""
                job.tell(dead_lease=job.record.dead)
            self.alive.discard(key)
            del self.elsewhere[key]
            self.waiting.append(job)

    def _may_leave(self) -> bool:
        """Whether all that is left is run by others that live; else wait a moment before looking again."""
        if not self.elsewhere and not self.waiting:
            return True
        if not self.waiting and self.unfinished is None and self.alive.issuperset(self.elsewhere):
            for job in self.elsewhere.values():
                log.info("  #%d is still run by %s", job.number, described_holder(job.record.found))
            log.info("the same command again goes on with them, should they be killed")
            return True
        time.sleep(LOOK_SECONDS)
        return False

    def _start(self, job: Job, slot: Slot) -> None:
        payload = cloudpickle.dumps((Singleton.get_state(), *self.arguments(job)))
        label = f"#{job.number} " if self.config.jobs > 1 else ""
        for attempt in range(1, STARTS + 1):
            context = start_context(self.preload)
            theirs, ours = context.Pipe(duplex=False)
            process = context.Process(
                target=_run_trial, args=(payload, slot, label, theirs), name=f"trial {job.number}"
            )
            try:
                process.start()
                break
            except (EOFError, OSError) as broken:  # the fork server was killed meanwhile
                if attempt == STARTS:
                    raise
                log.warning("  #%d could not be started (%s); trying again", job.number, type(broken).__name__)
        theirs.close()
        timeout = self.config.trial_timeout
        due = math.inf if timeout is None else time.monotonic() + timeout
        self.running[process.sentinel] = Running(job, slot, due, process, ours)

    def _ended(self) -> list[Running]:
        """Wait until a trial ends, of itself or because its time is up."""
        if not self.running:
            return []
        seconds = max(0.0, min(running.due for running in self.running.values()) - time.monotonic())
        if self.elsewhere and self.free:
            seconds = min(seconds, LOOK_SECONDS)
        ended = self._wait(None if seconds == math.inf else seconds)
        late = [running for running in self.running.values() if running.due <= time.monotonic()]
        if ended or not late:
            return ended
        for running in late:
            running.ask(WRITE_STACK)
        time.sleep(STACK_SECONDS)
        for running in late:
            _kill(running.process.pid)
        return late

    def _wait(self, seconds: float | None) -> list[Running]:
        return [self.running[sentinel] for sentinel in connection.wait(list(self.running), seconds)]  # type: ignore[index]

    def _end(self, running: Running, interrupted: bool = False) -> bool:
        """Free the slot of an ended trial, complete its record if it was killed, and say how it ended."""
        job, process = running.job, running.process
        pid = process.pid
        del self.running[process.sentinel]
        self.free.append(running.slot)
        process.join()
        if process.exitcode == 255:  # multiprocessing's answer when the fork server has died; the trial may live
            _kill(process.pid)
        late = process.exitcode not in (0, None) and running.due <= time.monotonic()
        try:
            self._complete_record(running, interrupted, late)
            trial = read_trial(job.record.folder, [])
        except (OSError, UnreadableError) as error:
            log.error("  #%d its end could not be recorded: %s", job.number, error)
            return False
        finally:
            running.requests.close()
            process.close()
        status, why = trial.record["status"], trial.record.get("error")
        if trial.record.get("pid") != pid and trial.record.get("lease") != job.record.found.get("lease"):
            self.elsewhere[id(job)] = job  # another process was faster
            return True
        message = f": {why['message'].splitlines()[0]}" if why and why["message"] and status == "failed" else ""
        log.info("  #%d %s%s", job.number, status, message)
        return status in ("completed", "paused", "pruned")

    def _complete_record(self, running: Running, interrupted: bool, late: bool) -> None:
        record, process = running.job.record, running.process
        if interrupted:
            record.close_for_dead("interrupted", "Killed", "it did not end when interrupted", process.pid)
            return
        kind, reason = "Killed", _reason(process.exitcode)
        if late:
            kind, reason = "TimedOut", f"not done after trial_timeout={self.config.trial_timeout:g} seconds"
        if record.close_for_dead("failed", kind, reason, process.pid):
            with running.job.log_file.open("a") as file:
                file.write(f"{reason}\n")

    def _interrupt(self) -> None:
        """Let the running trials end as interrupted; kill those that do not."""
        with _ignoring_signals():  # once is enough
            until = time.monotonic() + GRACE_SECONDS
            while self.running:
                for running in self.running.values():
                    running.ask(INTERRUPT)
                ended = self._wait(ASK_SECONDS)
                if not ended and time.monotonic() > until:
                    ended = list(self.running.values())
                    for running in ended:
                        _kill(running.process.pid)
                for running in ended:
                    self._end(running, interrupted=True)


def start_context(preload: Sequence[str]) -> Any:
    """The multiprocessing context for trials: a fork server that has imported `preload`, or else spawn."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    # Up to Python 3.12 the server does not get this process's sys.path.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), before]))
    try:
        # Its children inherit that it ignores Ctrl-C, until they can handle it.
        with _ignoring_signals():
            multiprocessing.forkserver.ensure_running()  # type: ignore[attr-defined]
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def slots(jobs: int) -> list[Slot]:
    """`jobs` equal shares, with a GPU each in turn where there are several."""
    gpus = _gpus()
    return [Slot(jobs, gpus[i % len(gpus)] if len(gpus) > 1 else None) for i in range(jobs)]


def ending_signals() -> list[signal.Signals]:
    """Ctrl-C, SIGTERM from a cluster's scheduler or ``kill``, and, where there is one, the end of the terminal."""
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt for whatever asks this process to end, in the block."""

    def interrupt(signum: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    # nohup ignores the end of the terminal, and a shell Ctrl-C for what it starts in the background.
    heeded = [signum for signum in ending_signals() if signal.getsignal(signum) is not signal.SIG_IGN]
    with _handled_by(interrupt, heeded):
        yield


def _ignoring_signals() -> Any:
    return _handled_by(signal.SIG_IGN, ending_signals())


@contextmanager
def _handled_by(handler: Any, signums: Sequence[signal.Signals]) -> Iterator[None]:
    before = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        yield
    finally:
        for signum, former in before.items():
            signal.signal(signum, former)


def _run_trial(payload: bytes, slot: Slot, label: str, requests: Connection) -> None:
    """What a trial's process does."""
    log_file = None
    try:
        for signum in ending_signals():
            signal.signal(signum, signal.SIG_IGN)  # the launcher tells it, when it listens
        if slot.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu  # CUDA reads it when it is first used, which is later
        if label:
            sys.stdout, sys.stderr = _Labelled(sys.stdout, label), _Labelled(sys.stderr, label)
        singletons, before_trial, hydra_context, task_function, config, log_path = cloudpickle.loads(payload)
        if before_trial is not None:
            get_method(before_trial)(slot.jobs)
        setup_globals()
        Singleton.set_state(singletons)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log_file = log_path.open("a")
        faulthandler.enable(log_file)  # a crash in native code leaves its stack
        threading.Thread(target=_listen, args=(requests, log_file), name="launcher watch", daemon=True).start()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Lightning handles it
        signal.signal(signal.SIGINT, _interrupt_once)
        job = run_job(task_function, config, "hydra.sweep.dir", "hydra.sweep.subdir", hydra_context)
        if job.status is JobStatus.FAILED:  # not the trial, which would have recorded that, but what is around it
            log.error("the trial could not be run", exc_info=job._return_value)
            sys.exit(1)
    except KeyboardInterrupt:  # before the trial could handle it
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        faulthandler.disable()
        if log_file is not None:
            log_file.close()


def _listen(requests: Connection, log_file: io.TextIOBase) -> None:
    """Do what the launcher asks for, and let this process die when it has died, so that no trial runs on unseen."""
    while True:
        try:
            request = requests.recv()
        except (EOFError, OSError):
            os._exit(1)
        if request == INTERRUPT:
            interrupt_main()
        elif request == WRITE_STACK:
            faulthandler.dump_traceback(log_file)


def _interrupt_once(signum: int, frame: Any) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


class _Labelled(io.TextIOBase):
    """A stream whose lines are marked with the trial that they come from, and written whole."""

    def __init__(self, stream: Any, label: str) -> None:
        self.stream, self.label, self.begun = stream, label, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split("\n")
        if lines:
            self.stream.write("".join(f"{self.label}{line}\n" for line in lines))
            self.stream.flush()
        return len(text)

    def flush(self) -> None:
        self.stream.flush()


def _gpus() -> list[str]:
    """The GPUs that this process may use, found without torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(i) for i, _ in enumerate(listed.stdout.splitlines())]


def _reason(exit_code: int | None) -> str:
    """Why a process that left its record open has ended."""
    if exit_code == 0:  # it came to its end
        return "its end could not be recorded, most likely because the disk is full"
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"
    if exit_code == 255:  # multiprocessing's answer
        return "the fork server was killed, so how its process ended is not known"
    return f"its process ended with exit code {exit_code}"


def _kill(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
        psutil.Process(pid).kill()
