"""Search for good settings with Optuna's samplers. The trials' folders are the storage: there is no database."""

import logging
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from cv_lab.config import Keys, split_override
from cv_lab.study.read import read_trial
from cv_lab.study.record import UnreadableError, read_records
from cv_lab.study.space import Dimension
from cv_lab.study.trials import Trial

log = logging.getLogger(__name__)

SAMPLERS: dict[str, Any] = {
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "qmc": optuna.samplers.QMCSampler,
    "random": optuna.samplers.RandomSampler,
}
REPLAYED = ("cmaes", "qmc")  # samplers with a memory of their own: they are asked again for all trials so far
ATTEMPTS = 100  # to propose a trial that is not in the study yet
ENOUGH = 10  # completed trials, below which no importance is estimated


@dataclass(frozen=True)
class Known:
    """A trial of the search.

    Attributes:
        number: of the trial in the search.
        params: values of what the search varies.
        folder: of the trial; None if its config was refused, so that it has none.
    """

    number: int
    params: dict[str, Any]
    folder: Path | None

    def read(self) -> Trial | None:
        """The trial as its folder describes it; None if there is nothing to read yet."""
        try:
            return None if self.folder is None else read_trial(self.folder, [])
        except (UnreadableError, OSError):
            return None


class Search:
    """Propose trials, from what the trials of the study's folder reached.

    Args:
        study: folder of the study.
        fixed: overrides that all trials have in common.
        space: what is varied, by the key of its override.
        keys: tells which overrides change what a trial computes.
        sampler: a key of `SAMPLERS`.
        options: further arguments of the sampler.
        seed: the same trials are proposed after the same trials.

    Attributes:
        asked: the trials that this search has asked for, by number.
        others: folders of trials that do not count, since files of their config or their data have changed since.

    Raises:
        ValueError: if there is nothing to search, or no such sampler.
    """

    def __init__(
        self,
        study: Path,
        fixed: Sequence[str],
        space: Mapping[str, Dimension],
        keys: Keys,
        sampler: str,
        options: Mapping[str, Any],
        seed: int,
    ) -> None:
        if not space:
            raise ValueError("there is nothing to search: give a range, such as 'lr=tag(log,interval(1e-4,1e-1))'")
        if sampler not in SAMPLERS:
            raise ValueError(f"there is no sampler={sampler}: give one of {', '.join(SAMPLERS)}")
        self.study, self.fixed, self.space, self.keys = study, list(fixed), dict(space), keys
        self.sampler, self.options, self.seed = sampler, dict(options), seed
        self.asked: dict[int, Known] = {}
        self.others: set[Path] = set()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sample([], 0)  # wrong options are refused at once

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        return {key: dimension.distribution for key, dimension in self.space.items()}

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """Of the trial with these values."""
        return [*self.fixed, *(f"{key}={self.space[key].text(value)}" for key, value in params.items())]

    def known(self) -> list[Known]:
        """The study's trials of this search by number: those of earlier commands, and those asked for by this one.

        Trials of the study that differ in anything else, or lie outside of what is searched, do not count.
        """
        found = {}
        taken = self.others.union(known.folder for known in self.asked.values() if known.folder is not None)
        for folder, record in read_records(self.study).items():
            params = self._params(record["overrides"])
            if params is not None and folder not in taken:
                found[folder] = Known(record.get("number") or 0, params, folder)
        return sorted([*found.values(), *self.asked.values()], key=lambda known: (known.number, str(known.folder)))

    def propose(self) -> tuple[int, dict[str, Any]] | None:
        """Number and values of a new trial; None if almost nothing is left to try."""
        known = self.known()
        number = max((one.number for one in known), default=-1) + 1
        tried = [self.overrides(one.params) for one in known]
        for attempt in range(ATTEMPTS):
            params = self._sample(known, attempt)
            if self.overrides(params) not in tried:
                return number, params
        return None

    def add(self, number: int, params: dict[str, Any], folder: Path | None) -> None:
        """Take note of a trial that is about to run, or that was refused (no folder)."""
        self.asked[number] = Known(number, params, folder)

    def summary(self) -> dict[str, Any]:
        """Best trial and importance of what was varied (PED-ANOVA, Watanabe et al. 2023), as plain values."""
        known = self.known()
        completed = [one for one in known if (trial := one.read()) is not None and trial.best is not None]
        study = self._study(known)
        best = max(completed, key=lambda one: one.read().score, default=None)  # type: ignore[union-attr]
        importance = {}
        if len(completed) >= ENOUGH and len(self.space) > 1:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            importance = optuna.importance.get_param_importances(study, evaluator=evaluator)
        return {
            "sampler": self.sampler,
            "seed": self.seed,
            "trials": len(known),
            "best": None if best is None or best.folder is None else {"trial": best.folder.name, **best.params},
            "importance": {key.lstrip("+"): share for key, share in importance.items()},
        }

    def _sample(self, known: Sequence[Known], attempt: int) -> dict[str, Any]:
        """Ask the sampler, or, when it repeats itself, choose at random."""
        draw = random.Random(f"{self.seed} {len(known)} {attempt}").getrandbits(32)
        if attempt > ATTEMPTS // 10:
            sampler: Any = optuna.samplers.RandomSampler(seed=draw)
            study = optuna.create_study(sampler=sampler)
        else:
            replayed = self.sampler in REPLAYED
            sampler = self._make_sampler(self.seed + attempt if replayed else draw)
            study = self._study(known, sampler, replayed)
        params = study.ask(self.distributions).params
        return {key: self.space[key].value(self.space[key].text(value)) for key, value in params.items()}

    def _make_sampler(self, seed: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # as Optuna calls some of them
            try:
                return SAMPLERS[self.sampler](**{"seed": seed, **self.options})
            except TypeError as error:
                raise ValueError(f"hydra.sweeper.options={self.options}: {error}") from error

    def _study(self, known: Sequence[Known], sampler: Any = None, replayed: bool = False) -> optuna.Study:
        """Optuna's view of the trials."""
        trials = [one.read() for one in known]
        started = [trial for trial in trials if trial is not None]  # all may be pruned, without a result
        monitors = [m for t in started for m in ((t.result or {}).get("monitor"), t.record.get("monitor")) if m]
        mode = monitors[0]["mode"] if monitors else "max"
        study = optuna.create_study(sampler=sampler, direction="maximize" if mode == "max" else "minimize")
        for one, trial in zip(known, trials, strict=True):
            frozen = self._frozen(one, trial)
            if not replayed:
                study.add_trial(frozen)
                continue
            study.enqueue_trial(frozen.params)
            asked = study.ask(self.distributions)
            _ = asked.relative_params  # lets the sampler propose, which it does not for values that are given
            if frozen.state.is_finished():
                study.tell(asked, frozen.value if frozen.state is TrialState.COMPLETE else None, frozen.state)
        return study

    def _frozen(self, known: Known, trial: Trial | None) -> FrozenTrial:
        """A failed trial counts as failed; one of which nothing is known yet as running."""
        state, value, epochs = TrialState.RUNNING, None, {}
        status = None if trial is None else trial.record["status"]
        if known.folder is None or status == "failed":
            state = TrialState.FAIL
        elif trial is not None and status == "completed" and trial.best is not None:
            state, value = TrialState.COMPLETE, trial.best
        elif trial is not None and status == "pruned":
            name = trial.record["monitor"]["name"]
            rows = enumerate(trial.epochs, 1)
            epochs = {epoch: row[name] for epoch, row in rows if math.isfinite(row.get(name, math.nan))}
            state = TrialState.PRUNED
        return create_trial(
            state=state,
            value=value if state is TrialState.COMPLETE else epochs.get(max(epochs, default=0)),
            params=known.params,
            distributions=self.distributions,
            intermediate_values=epochs,
        )

    def _params(self, overrides: Sequence[str]) -> dict[str, Any] | None:
        """The values of a trial of this search; None for another trial."""
        texts = dict(override.split("=", 1) for override in overrides if "=" in override)
        try:
            params = {key: dimension.value(texts[key]) for key, dimension in self.space.items()}
        except (KeyError, ValueError):
            return None
        return params if self._identifying(self.overrides(params)) == self._identifying(overrides) else None

    def _identifying(self, overrides: Sequence[str]) -> set[str]:
        keyed = ((split_override(text)[0], text) for text in overrides)
        return {text for key, text in keyed if key == "experiment" or self.keys.is_identifying(key)}
