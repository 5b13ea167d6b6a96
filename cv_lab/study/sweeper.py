"""Hydra sweepers: all combinations of the values given, or a search."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from cv_lab.files import write_json
from cv_lab.study.launcher import ProcessLauncher, refuse
from cv_lab.study.plan import Job, RefusedError, why_not_composed
from cv_lab.study.processes import signals_as_interrupt
from cv_lab.study.pruning import PRUNERS

if TYPE_CHECKING:
    from cv_lab.study.search import Search

log = logging.getLogger(__name__)
SUMMARY = "search.json"  # in the study's folder: the best trial, and the importance of what was varied


class GridSweeper(BasicSweeper):
    """Hydra's grid sweeper, with a longer message for overrides that do not fit all options of a swept group."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose the configs of all trials before any runs, unless the launcher does so itself.

        Raises:
            ConfigCompositionException: if a config cannot be composed.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        if self.config.pruner is not None:
            refuse(
                f"pruner={self.config.pruner} stops trials of a search alone: give hydra/sweeper=search or halving=3"
            )
        if isinstance(self.launcher, ProcessLauncher):
            return
        if self.config.halving is not None:
            refuse("halving=... needs hydra/launcher=processes, since trials of one rung wait for each other")
        for overrides in batch:
            try:
                self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            except ConfigCompositionException as error:
                raise ConfigCompositionException(why_not_composed(error, list(overrides), batch)) from error


class SearchSweeper(Sweeper):
    """Run `config.trials` trials in all, proposed one by one, and keep `config.jobs` of them running.

    Args:
        options: of the sampler, such as ``n_startup_trials``, see Optuna's documentation.
        params: overrides to search by, for experiments' files; the command line's come after them.
    """

    config: DictConfig  # set by `setup`, as the rest
    hydra_context: HydraContext

    def __init__(self, options: Mapping[str, Any] | None = None, params: Mapping[str, str] | None = None) -> None:
        self.options, self.params = dict(options or {}), dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.folder = Path(config.hydra.sweep.dir).absolute()

    def sweep(self, arguments: list[str]) -> None:
        """Search by Hydra's overrides, of which the sweeps are what is varied.

        Raises:
            SystemExit: see :class:`~cv_lab.study.launcher.ProcessLauncher`; with code 1 for what cannot be searched.
        """
        if not isinstance(self.launcher, ProcessLauncher):
            refuse("hydra/sweeper=search proposes a trial when another ends: it needs hydra/launcher=processes")
        self.launcher.begin()
        self._check()
        try:
            self.search = self._search(arguments)
        except ImportError as error:
            refuse(f"a search needs {error.name or 'optuna'}: pip install 'cv-lab[engines]'")
        except ValueError as error:
            refuse(str(error))
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, self.folder / "multirun.yaml")
        try:
            unfinished = self._unfinished()
        except (RefusedError, OSError) as error:
            refuse(str(error))
        with signals_as_interrupt():
            stopped = self.launcher.run(unfinished, self._next)
        self._conclude()
        self.launcher.end(stopped)

    def _check(self) -> None:
        config = self.config
        if config.trials < 1:
            refuse(f"trials={config.trials}: give the number of trials of the search, at least 1")
        if config.pruner is not None and config.pruner not in PRUNERS:
            refuse(f"there is no pruner={config.pruner}: give one of {', '.join(PRUNERS)}, or null")
        if config.halving is not None:
            refuse("halving=... is for grids: give a search pruner=successive_halving")

    def _search(self, arguments: list[str]) -> "Search":
        from cv_lab.study.search import Search  # Optuna, which only searches need
        from cv_lab.study.space import dimension

        assert isinstance(self.launcher, ProcessLauncher)
        loader = self.hydra_context.config_loader
        texts = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        fixed: dict[str, str] = {}
        space: dict[str, Any] = {}
        for override in OverridesParser.create(config_loader=loader).parse_overrides(texts):
            key = override.get_key_element()
            fixed.pop(key, None)
            space.pop(key, None)
            if not override.is_sweep_override():
                fixed[key] = override.input_line or f"{key}={override.get_value_element_as_str()}"
            elif override.is_discrete_sweep() and len(values := set(override.sweep_string_iterator())) == 1:
                fixed[key] = f"{key}={values.pop()}"
            else:
                space[key] = dimension(override, loader)
        if "monitor" in space:
            refuse("a search compares trials by one metric: give one value of monitor")
        config, keys = self.config, self.launcher.keys
        return Search(self.folder, list(fixed.values()), space, keys, config.sampler, self.options, config.seed)

    def _unfinished(self) -> list[Job]:
        """The trials of earlier commands that go on, and a word on those that do not."""
        self._leave_out_others()
        known = self.search.known()
        log.info(
            "search of %d trials in %s, %d of them known, %d at a time",
            self.config.trials,
            self.folder,
            len(known),
            self.config.jobs,
        )
        jobs = []
        for one in known:
            trial = one.read()
            if trial is None or trial.record["status"] in ("completed", "pruned"):
                continue
            job = self._job(one.number, one.params)
            if job.to_run:
                log.info("  %s", job.describe(set(self.search.fixed)))
                self.search.add(one.number, one.params, job.record.folder)
                jobs.append(job)
        return jobs

    def _leave_out_others(self) -> None:
        """Do not count trials of the same overrides whose config, by a file of it, or whose data were others."""
        assert isinstance(self.launcher, ProcessLauncher)
        known = self.search.known()
        jobs = self.launcher.plan([self.search.overrides(one.params) for one in known], 0)
        others = {one.folder for one, job in zip(known, jobs, strict=True) if job.record.folder != one.folder}
        self.search.others = {folder for folder in others if folder is not None}
        if others:
            log.info(
                "%d trials of the study do not count: the files of their config, or their data, differ", len(others)
            )

    def _next(self) -> Job | None:
        """A new trial; None if there are enough, or nothing new is left."""
        assert isinstance(self.launcher, ProcessLauncher)
        while len(self.search.known()) < self.config.trials:
            proposed = self.search.propose()
            if proposed is None:
                log.info("all that can be searched has been tried")
                return None
            number, params = proposed
            try:
                job = self._job(number, params)
            except RefusedError as error:
                if number == 0:
                    refuse(str(error))
                log.error("  #%d is not run: %s", number, error)
                self.search.add(number, params, None)
                continue
            if not self.search.asked:
                self.launcher.check_all([job], 1)
            self.search.add(number, params, job.record.folder)
            log.info("  %s", job.describe(set(self.search.fixed)))
            if job.to_run:
                return job
        return None

    def _job(self, number: int, params: Mapping[str, Any]) -> Job:
        assert isinstance(self.launcher, ProcessLauncher)
        (job,) = self.launcher.plan([self.search.overrides(params)], number)
        if self.config.pruner is not None:
            job.tell(pruner=self.config.pruner)
        return job

    def _conclude(self) -> None:
        summary = self.search.summary()
        write_json(self.folder / SUMMARY, summary)
        if summary["importance"]:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in summary["importance"].items())
            log.info("importance (PED-ANOVA): %s", shares)
