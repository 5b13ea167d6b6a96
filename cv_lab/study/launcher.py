"""Hydra launcher: each trial of a multirun in a process of its own. Imports neither torch nor Lightning itself.

A fork server imports them once; the trials are forked from it, so that one starts in milliseconds, with fresh memory
and no trace of the one before. A trial's process brings nothing back: what came of it stands in its folder, and the
launcher reads it there. So there is no pool and no queue that a killed process could leave broken.
"""

import faulthandler
import io
import logging
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NoReturn

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from cv_lab.config import OF_A_HEAD
from cv_lab.knobs import check_config
from cv_lab.study.record import BusyError, OccupiedError, Standing, TrialRecord, failed_value
from cv_lab.study.refusals import in_words, unfit_arguments
from cv_lab.study.trials import read_trial

log = logging.getLogger(__name__)

# What every trial needs and what takes seconds to import. Nothing here may touch a GPU or start a thread.
PRELOADED = ("cv_lab.trial.run", "tensorboard.summary", "torch.utils.tensorboard")
GRACE_SECONDS = 20.0  # from asking an interrupted trial to end until it is killed
STACK_SECONDS = 1.0  # for a hanging trial to write where it hangs


@dataclass(frozen=True)
class Slot:
    """The share of the machine that one trial at a time gets."""

    jobs: int  # the part of torch's threads is one of so many
    gpu: str | None  # its number; None where trials share what there is


@dataclass
class Job:
    """One trial of the multirun."""

    number: int
    overrides: list[str]
    config: DictConfig
    plain: dict[str, Any]  # the same without interpolations and Hydra's own part
    record: TrialRecord
    standing: Standing | None  # None if another process is running it

    @property
    def log_file(self) -> Path:
        """Where Hydra lets the trial log."""
        return self.record.folder / f"{self.config.hydra.job.name}.log"


class ProcessLauncher(Launcher):
    """Run ``jobs`` trials at a time, each in its own process.

    A trial that raises, is killed or exceeds ``trial_timeout`` is marked failed in its own folder; the others run on,
    unless ``fail_fast``. Ctrl-C, or SIGTERM, lets the running trials end as interrupted.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run the trials of `job_overrides` and return their monitored metrics.

        Raises:
            SystemExit: if a folder holds a trial of another config (code 1, before anything is run), after the first
                failure with ``fail_fast`` (code 1), and when interrupted (code 130).
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if self.config.jobs < 1:
            _refuse(f"jobs={self.config.jobs}: give the number of trials to run at a time, at least 1")
        if self.config.trial_timeout is not None and self.config.trial_timeout <= 0:
            _refuse(f"trial_timeout={self.config.trial_timeout:g}: give seconds, more than 0, or null")
        planned = self._plan(job_overrides, initial_job_idx)
        jobs = list({job.record.folder: job for job in reversed(planned)}.values())[::-1]  # each trial once
        to_run = [job for job in jobs if job.standing not in (Standing.COMPLETED, None)]
        log.info("%s in %s, %d to run%s", _trials(len(jobs)), self._folder(), len(to_run), self._at_a_time(len(to_run)))
        common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
        for job in jobs:
            standing = "running in another process" if job.standing is None else job.standing
            suffix = "" if standing is Standing.NEW else f" ({standing})"
            log.info(
                "  #%d %s%s",
                job.number,
                " ".join(o for o in filter_overrides(job.overrides) if o not in common),
                suffix,
            )
        stopped = None
        if to_run:
            with _sigterm_as_interrupt():
                context = _start_fork_server()
                if unfit := unfit_arguments(context, {job.number: job.plain for job in to_run}):
                    _refuse(in_words(unfit, len(planned)))
                stopped = _Run(context, self, to_run).until_done()
        if stopped is not None:
            self.hydra_context.callbacks.on_multirun_end(config=self.config, config_name=None)
            sys.exit(stopped)
        return [self._job_return(job) for job in planned]

    def _folder(self) -> str:
        return os.path.relpath(self.config.hydra.sweep.dir)

    def _at_a_time(self, count: int) -> str:
        return f", {min(count, self.config.jobs)} at a time" if self.config.jobs > 1 and count > 1 else ""

    def _plan(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
        """Compose all trials and look into their folders."""
        jobs, refused, unfit = [], [], {}
        for number, overrides in enumerate(job_overrides, first):
            job = self._job(number, list(overrides))
            try:
                check_config(job.config, job.config.hydra)
            except ValueError as error:
                unfit[number] = str(error)
            try:
                job.standing = job.record.standing()
            except BusyError:
                job.standing = None
            except OccupiedError as error:
                refused.append(str(error))
            jobs.append(job)
        if refused or unfit:
            _refuse("\n".join([*([in_words(unfit, len(jobs))] if unfit else []), *refused]))
        _bring_together(jobs)
        return jobs

    def _job(self, number: int, overrides: list[str]) -> Job:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)  # for the resolver of ${hydra:...}
        try:
            folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
            with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
                config.hydra.runtime.output_dir = str(folder)
            HydraConfig.instance().set_config(config)  # it keeps a copy
            own = _without_hydra(config)
            plain: Any = OmegaConf.to_container(own, resolve=True)
            return Job(number, overrides, config, plain, TrialRecord(own), Standing.NEW)
        finally:
            HydraConfig.instance().cfg = before

    def _job_return(self, job: Job) -> JobReturn:
        """What Hydra's sweepers expect. A failure is no error here: they would end the whole multirun."""
        best = None
        if (job.record.folder / "result.json").exists():
            result = read_trial(job.record.folder).result
            assert result is not None
            best = result["monitor"]["best"]
        answer = JobReturn(
            overrides=list(job.config.hydra.overrides.task),
            cfg=_without_hydra(job.config),
            hydra_cfg=job.config,
            task_name=job.config.hydra.job.name,
            status=JobStatus.COMPLETED,
        )
        answer.return_value = failed_value(job.config.hydra) if best is None else best
        return answer


class _Run:
    """The trials that wait, and those that run, each in a slot."""

    def __init__(self, context: Any, launcher: ProcessLauncher, jobs: list[Job]) -> None:
        self.context, self.launcher, self.config = context, launcher, launcher.config
        self.waiting = deque(jobs)
        self.running: dict[ForkServerProcess, tuple[Job, Slot, float]] = {}  # with the time to give it up
        self.free = _slots(self.config.jobs)

    def until_done(self) -> int | None:
        """Run all; the exit code if it had to stop before."""
        try:
            while self.waiting or self.running:
                while self.waiting and self.free:
                    self._start(self.waiting.popleft(), self.free.pop(0))
                ends = [self._end(process) for process in self._ended()]
                if self.config.fail_fast and not all(ends):
                    log.error("fail_fast: %s not run", _trials(len(self.waiting)))
                    self._interrupt()
                    return 1
        except KeyboardInterrupt:
            log.error("interrupted: the running trials keep their last checkpoints")
            self._interrupt()
            return 130
        return None

    def _start(self, job: Job, slot: Slot) -> None:
        launcher = self.launcher
        payload = cloudpickle.dumps(
            (Singleton.get_state(), launcher.hydra_context, launcher.task_function, job.config, job.log_file)
        )
        label = f"#{job.number} " if self.config.jobs > 1 else ""
        process = self.context.Process(target=_run_trial, args=(payload, slot, label), name=f"trial {job.number}")
        process.start()
        timeout = self.config.trial_timeout
        self.running[process] = (job, slot, math.inf if timeout is None else time.monotonic() + timeout)

    def _ended(self) -> list[ForkServerProcess]:
        """Wait until a trial ends, of itself or because its time is up."""
        due = min(due for _, _, due in self.running.values())
        by_sentinel = {process.sentinel: process for process in self.running}
        wait = None if due == math.inf else max(0.0, due - time.monotonic())
        ended = [by_sentinel[sentinel] for sentinel in connection.wait(list(by_sentinel), wait)]  # type: ignore[index]
        if ended:
            return ended
        late = [process for process, (_, _, due) in self.running.items() if due <= time.monotonic()]
        for process in late:
            _signal(process, signal.SIGUSR2)  # it writes its stack to its log; SIGUSR1 is Slurm's and Lightning's
        time.sleep(STACK_SECONDS)
        for process in late:
            _signal(process, signal.SIGKILL)
        return late

    def _end(self, process: ForkServerProcess, interrupted: bool = False) -> bool:
        """Free the slot of an ended trial, complete its record if it was killed, and say how it ended."""
        job, slot, due = self.running.pop(process)
        self.free.append(slot)
        process.join()
        if process.exitcode == 255:  # multiprocessing's answer when the fork server has died; the trial may live
            _signal(process, signal.SIGKILL)
        record = job.record
        if interrupted:
            record.close_for_dead("interrupted", "Killed", "it did not end when interrupted", process.pid)
        else:
            kind, reason = _reason(process.exitcode)
            if process.exitcode == -signal.SIGKILL and due <= time.monotonic():
                kind, reason = "TimedOut", f"not done after trial_timeout={self.config.trial_timeout:g} seconds"
            if record.close_for_dead("failed", kind, reason, process.pid):
                with job.log_file.open("a") as file:
                    file.write(f"{reason}\n")
        process.close()
        trial = read_trial(record.folder)
        status, error = trial.record["status"], trial.record["error"]
        message = f": {error['message'].splitlines()[0]}" if error and error["message"] and status == "failed" else ""
        log.info("  #%d %s%s", job.number, status, message)
        return status == "completed"

    def _interrupt(self) -> None:
        """Let the running trials end as interrupted; kill those that do not."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(signum, signal.SIG_IGN) for signum in signals]  # once is enough
        for process in self.running:
            _signal(process, signal.SIGINT)
        until = time.monotonic() + GRACE_SECONDS
        while self.running:
            sentinels = {process.sentinel: process for process in self.running}
            ended = connection.wait(list(sentinels), max(0.0, until - time.monotonic()))
            for process in [sentinels[sentinel] for sentinel in ended] or list(self.running):  # type: ignore[index]
                if not ended:
                    _signal(process, signal.SIGKILL)
                self._end(process, interrupted=True)
        for signum, handler in zip(signals, before, strict=True):
            signal.signal(signum, handler)


def _run_trial(payload: bytes, slot: Slot, label: str) -> None:
    """What a trial's process does."""
    _end_with_launcher()
    signal.signal(signal.SIGINT, _interrupt_once)
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu  # CUDA reads it when it is first used, which is later
    if label:
        sys.stdout, sys.stderr = _Labelled(sys.stdout, label), _Labelled(sys.stderr, label)
    import torch  # the fork server has it already

    torch.set_num_threads(max(1, torch.get_num_threads() // slot.jobs))
    singletons, hydra_context, task_function, config, log_file = cloudpickle.loads(payload)
    setup_globals()
    Singleton.set_state(singletons)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("a") as file:
        faulthandler.enable(file)  # a crash in native code leaves its stack
        faulthandler.register(signal.SIGUSR2, file)
        job = run_job(task_function, config, "hydra.sweep.dir", "hydra.sweep.subdir", hydra_context)
        if job.status is JobStatus.FAILED:  # not the trial, which would have recorded that, but what is around it
            log.error("the trial could not be run", exc_info=job._return_value)
            sys.exit(1)
        faulthandler.disable()
        faulthandler.unregister(signal.SIGUSR2)


def _end_with_launcher() -> None:
    """Let this process die when its launcher has died, so that no trial runs on unseen."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None

    def watch() -> None:
        connection.wait([launcher.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="launcher watch", daemon=True).start()


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


def _start_fork_server() -> Any:
    """The multiprocessing context whose fork server has imported what trials need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    # Up to Python 3.12 the server does not get this process's sys.path.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), before]))
    try:
        multiprocessing.forkserver.ensure_running()  # type: ignore[attr-defined]
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def _slots(jobs: int) -> list[Slot]:
    """`jobs` equal shares, with a GPU each in turn where there are several."""
    gpus = _gpus()
    return [Slot(jobs, gpus[i % len(gpus)] if len(gpus) > 1 else None) for i in range(jobs)]


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


def _reason(exit_code: int | None) -> tuple[str, str]:
    """Why a process that left its record open has ended: the kind of error and the message."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return "Killed", f"its process was killed by {name}{hint}"
    return "Killed", f"its process ended with exit code {exit_code}"


def _signal(process: ForkServerProcess, signum: int) -> None:
    assert process.pid is not None
    with suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(process.pid, signum)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Cluster schedulers and ``kill`` send SIGTERM; the trials shall end as with Ctrl-C."""

    def interrupt(signum: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _bring_together(jobs: list[Job]) -> None:
    """Tell trials that may train their heads in one pass of each other, by what they differ in.

    Those that are completed count too: what is computed for the others shall not depend on how far the study is.
    """
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if OmegaConf.select(job.config, "task.together"):
            rest = {key: value for key, value in job.record.identified.items() if key not in OF_A_HEAD}
            groups.setdefault(repr(rest), []).append(job)
    for group in groups.values():
        points = [{key: job.record.identified[key] for key in ("optimizer", "scheduler")} for job in group]
        distinct = {repr(point): point for point in points}
        for job, own in zip(group, points, strict=True):
            others = [point for name, point in distinct.items() if name != repr(own)]
            launcher = job.config.hydra.launcher
            with read_write(launcher), open_dict(launcher):
                launcher.together = [own, *others]


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"


def _refuse(message: str) -> NoReturn:
    log.error("error: %s", message)
    sys.exit(1)
