"""Hydra launcher: each trial of a multirun in a process of its own. Imports neither torch nor Lightning itself."""

import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from cv_lab.study.halving import pending, rungs, survivors
from cv_lab.study.plan import Job, RefusedError, Sharing, plan
from cv_lab.study.processes import Runner, signals_as_interrupt, start_context
from cv_lab.study.read import read_trial
from cv_lab.study.record import UnreadableError
from cv_lab.study.refusals import ask, ask_each, in_words, refusals
from cv_lab.study.stages import chain

log = logging.getLogger(__name__)


class ProcessLauncher(Launcher):
    """Run ``jobs`` trials at a time, each in its own process.

    A trial that raises, is killed or exceeds ``trial_timeout`` is marked failed in its own folder; the others run on,
    unless ``fail_fast``. Ctrl-C, SIGTERM, or the end of the terminal, lets the running trials end as interrupted.

    Args:
        keys: dotted name of the :class:`~cv_lab.config.Keys` that identify a trial.
        preload: modules that every trial needs and that take seconds to import. None may touch a GPU or start a thread.
        before_trial: dotted name of a function that is called in a trial's process with the number of trials at a time.
        check: dotted name of a function that raises a ValueError for a trial's config, given with Hydra's own part, if
            the trial should be refused.
        check_parts: the same, for a check of the config's plain values that imports what the trials import.
        fingerprint: dotted name of a function that returns the fingerprint of the data of a config's plain values, in a
            process that has imported what the trials import.
        sharing: see :class:`~cv_lab.study.plan.Sharing`; null for trials that share nothing.
        agreements: dotted name of a function that says up to which epoch trials agree that differ in their number of
            epochs alone, see :mod:`cv_lab.study.stages`; null lets each train all of its epochs.
    """

    def __init__(
        self,
        keys: str,
        preload: Sequence[str] = (),
        before_trial: str | None = None,
        check: str | None = None,
        check_parts: str | None = None,
        fingerprint: str | None = None,
        sharing: DictConfig | None = None,
        agreements: str | None = None,
    ) -> None:
        self.keys, self.preload, self.before_trial = get_object(keys), list(preload), before_trial
        self.check, self.check_parts = None if check is None else get_object(check), check_parts
        self.agreements = agreements
        self.fingerprint = fingerprint
        self.sharing = None if sharing is None else Sharing(**sharing)  # type: ignore[arg-type]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run the trials of `job_overrides` and return their monitored metrics.

        Raises:
            SystemExit: if a folder holds a trial of another config (code 1, before anything is run), after the first
                failure with ``fail_fast`` (code 1), when interrupted (code 130), and in the end if a trial was left out
                because its record is damaged (code 1).
        """
        self.begin()
        try:
            planned = self.plan(job_overrides, initial_job_idx, self.sharing)
            if self.config.halving is not None:
                self._check_halving(planned)
        except (RefusedError, OSError) as error:
            refuse(str(error))
        jobs = list({job.record.folder: job for job in reversed(planned)}.values())[::-1]  # each trial once
        to_run = [job for job in jobs if job.to_run]
        why_not = self._chain(jobs)
        self._announce(jobs, to_run, why_not)
        stopped = 1 if any(job.damaged for job in jobs) else None
        if any(job.to_run or job.busy for job in jobs):
            with signals_as_interrupt():
                if to_run:
                    self.check_all(to_run, len(planned))
                run = self._run_in_rungs if self.config.halving is not None else self.run
                stopped = run(jobs) or stopped
        self.end(stopped)
        return [self._job_return(job) for job in planned]

    def begin(self) -> None:
        """Prepare logging in this process, and check how trials are to be run."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if self.config.jobs < 1:
            refuse(f"jobs={self.config.jobs}: give the number of trials to run at a time, at least 1")
        if self.config.trial_timeout is not None and self.config.trial_timeout <= 0:
            refuse(f"trial_timeout={self.config.trial_timeout:g}: give seconds, more than 0, or null")

    def plan(self, job_overrides: Sequence[Sequence[str]], first: int, sharing: Sharing | None = None) -> list[Job]:
        """See :func:`~cv_lab.study.plan.plan`."""
        fingerprints = None if self.fingerprint is None else self._fingerprints
        return plan(self.hydra_context, self.config, job_overrides, first, self.keys, sharing, self.check, fingerprints)

    def run(self, jobs: Sequence[Job], more: Callable[[], Job | None] = lambda: None) -> int | None:
        """Run `jobs`, and those that `more` returns whenever a slot is free; return the exit code if stopped before."""
        return Runner(self.config, self.preload, jobs, self._child, more=more).until_done()

    def end(self, stopped: int | None) -> None:
        """Leave with the exit code `stopped`, after table and report; None goes on."""
        if stopped is not None:
            self.hydra_context.callbacks.on_multirun_end(config=self.config, config_name=None)
            sys.exit(stopped)

    def _run_in_rungs(self, jobs: Sequence[Job]) -> int | None:
        """Run `jobs`, of which the worse pause after each rung."""
        epochs, factor = jobs[0].config.epochs, self.config.halving
        for rung, epoch in enumerate([*rungs(epochs, factor), epochs]):
            unfinished = partial(pending, epoch=epoch, first=rung == 0)
            to_run = unfinished(jobs)
            for job in to_run:
                job.tell(pause_after=epoch if epoch < epochs else None)
            log.info("halving=%d: %d of the trials up to epoch %d of %d", factor, len(jobs), epoch, epochs)
            stopped = Runner(self.config, self.preload, to_run, self._child, unfinished=unfinished).until_done()
            if stopped is not None:
                return stopped
            if epoch < epochs:
                jobs = survivors(jobs, epoch, factor)
        return None

    def _check_halving(self, jobs: Sequence[Job]) -> None:
        """Refuse, with a RefusedError, what trials cannot be compared in after a part of their epochs."""
        halving = f"halving={self.config.halving}"
        if self.config.halving < 2:
            raise RefusedError(f"{halving}: give at least 2, such as 3 to pause the worse two thirds")
        if self.config.hydra.sweeper.get("max_batch_size") is not None:
            raise RefusedError(f"{halving} compares all trials: leave hydra.sweeper.max_batch_size out")
        if len({job.config.epochs for job in jobs}) > 1:
            raise RefusedError(f"{halving} compares trials of equal length: give one value of epochs")
        if len({OmegaConf.select(job.config, "monitor") for job in jobs}) > 1:
            raise RefusedError(f"{halving} compares trials by one metric: give one value of monitor")
        if self.sharing is not None and any(OmegaConf.select(job.config, self.sharing.when) for job in jobs):
            raise RefusedError(
                f"{halving} saves nothing where the heads of all trials are trained in one pass: leave it out, or give "
                f"{self.sharing.when}=false"
            )
        if unknown := [job for job in jobs if job.state is None and not job.busy]:
            raise RefusedError(f"{halving} needs all trials, but #{unknown[0].number} is {unknown[0].why_not}")

    def _child(self, job: Job) -> tuple[Any, ...]:
        """What a trial's process needs to know."""
        return self.before_trial, self.hydra_context, self.task_function, job.config, job.log_file

    def _fingerprints(self, configs: dict[int, dict[str, Any]]) -> dict[int, str]:
        assert self.fingerprint is not None
        return ask_each(start_context(self.preload), self.fingerprint, configs)

    def check_all(self, jobs: Sequence[Job], trials: int) -> None:
        """Refuse `jobs`, of `trials` in all, before the first runs, for what only a process like theirs can check."""
        if self.check_parts is None:
            return
        configs = {job.number: job.plain for job in jobs}
        if refused := refusals(start_context(self.preload), self.check_parts, configs):
            refuse(in_words(refused, trials))

    def _chain(self, jobs: Sequence[Job]) -> str:
        """Let trials begin from others; return why some that differ in their number of epochs alone do not."""
        alike = [job for job in jobs if job.to_run and job.siblings]
        if self.agreements is None or not alike:
            return ""
        wanted = [(job.plain, sorted({job.epochs, *job.siblings.values()})) for job in alike]
        known = ask(start_context(self.preload), self.agreements, wanted)
        return "" if known is None else chain(jobs, alike, known)

    def _announce(self, jobs: Sequence[Job], to_run: Sequence[Job], why_not: str) -> None:
        count = len(to_run)
        at_a_time = f", {min(count, self.config.jobs)} at a time" if self.config.jobs > 1 and count > 1 else ""
        folder = os.path.relpath(self.config.hydra.sweep.dir)
        log.info(
            "%s in %s, %d to run%s", "1 trial" if len(jobs) == 1 else f"{len(jobs)} trials", folder, count, at_a_time
        )
        if any(job.begins for job in to_run):
            total = sum(job.epochs for job in to_run)
            begun = [job for job in to_run if job.begins]
            log.info(
                "%s, %d from the start, %d of %d epochs: %d begin from trials that differ in epochs alone",
                "1 trial" if count == 1 else f"{count} trials",
                count - len(begun),
                total - sum(job.begins for job in begun),
                total,
                len(begun),
            )
        if why_not:
            log.info("trials that differ in epochs alone share less than they could: %s", why_not)
        common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
        for job in jobs:
            log.info("  %s", job.describe(common))

    def _job_return(self, job: Job) -> JobReturn:
        """What Hydra's sweepers expect. A failure is no error here: they would end the whole multirun."""
        try:
            best = read_trial(job.record.folder, []).best
        except (UnreadableError, OSError):
            best = None
        answer = JobReturn(
            overrides=list(job.config.hydra.overrides.task),
            hydra_cfg=job.config,
            task_name=job.config.hydra.job.name,
            status=JobStatus.COMPLETED,
        )
        answer.return_value = math.nan if best is None else best
        return answer


def refuse(message: str) -> NoReturn:
    """End the program with a message."""
    log.error("error: %s", message)
    sys.exit(1)
