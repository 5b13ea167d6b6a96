"""Which trials of a multirun start, continue, start anew or are skipped."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import filter_overrides
from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from cv_lab.config import Keys, plain, split_override
from cv_lab.study.compose import Composer
from cv_lab.study.identity import digest
from cv_lab.study.record import (
    FINGERPRINT,
    BusyError,
    FolderState,
    OccupiedError,
    TrialRecord,
    UnreadableError,
    code_version,
    described_holder,
    read_records,
)
from cv_lab.study.refusals import in_words
from cv_lab.study.stages import families, family

log = logging.getLogger(__name__)
Check = Callable[[DictConfig, DictConfig], None]  # raises a ValueError for a config, given with Hydra's own part
MANY = 50  # trials whose configs take seconds to compose, which is announced


class RefusedError(ValueError):
    """The multirun cannot be run as it was asked for."""


@dataclass
class Job:
    """One trial of the multirun.

    Attributes:
        number: of the trial in the multirun.
        overrides: that its config was composed with.
        config: with Hydra's own part under ``hydra``.
        record: of the trial.
        state: of its folder; None if nothing can be done there.
        why_not: why nothing can be done there.
        busy: whether that is because another process runs it.
        damaged: whether that is because its record cannot be read.
        lease: that its folder had when it was planned; None if it was empty.
        refusal: why its config is refused.
        siblings: the folders of trials that differ in their number of epochs alone, each with that number.
        after: the trial of this multirun that it begins from, and so waits for.
        begins: the epochs that it takes over from another trial.
    """

    number: int
    overrides: list[str]
    config: DictConfig
    record: TrialRecord
    state: FolderState | None = None
    why_not: str = ""
    busy: bool = False
    damaged: bool = False
    lease: str | None = None
    refusal: str = ""
    siblings: dict[Path, int] = field(default_factory=dict)
    after: "Job | None" = None
    begins: int = 0

    @property
    def log_file(self) -> Path:
        """Where Hydra lets the trial log."""
        return self.record.folder / f"{self.config.hydra.job.name}.log"

    @property
    def plain(self) -> dict[str, Any]:
        """The trial's own part of the config as plain values, without interpolations."""
        own: dict[str, Any] = plain(without_hydra(self.config))
        return own

    @property
    def epochs(self) -> int:
        """The number of epochs asked for."""
        return int(self.config.epochs)

    @property
    def to_run(self) -> bool:
        return self.state not in (FolderState.COMPLETED, FolderState.FAILED, None)

    def tell(self, **settings: Any) -> None:
        """Write `settings` to ``hydra.launcher`` of the config that the trial gets."""
        launcher: Any = self.config.hydra.launcher
        with read_write(launcher), open_dict(launcher):
            launcher.update(settings)

    def describe(self, common: set[str]) -> str:
        """Number, overrides but for the `common` ones, and what is done."""
        words = [f"#{self.number}", *(o for o in filter_overrides(self.overrides) if o not in common)]
        state = self.why_not or self.state
        if state and (state != FolderState.NEW or self.record.note):
            words.append(f"({state}{', ' if self.record.note else ''}{self.record.note})")
        if self.after is not None:
            words.append(f"(after epoch {self.begins} of #{self.after.number})")
        elif self.begins:
            words.append(f"(after epoch {self.begins} of a completed trial)")
        return " ".join(words)


@dataclass(frozen=True)
class Sharing:
    """Which trials are told of each other, so that what they have in common can be computed once.

    Attributes:
        when: key of the config that must be true.
        differ_in: nested keys in which such trials may differ; each trial is told those of the others.
        knobs: further keys in which they may differ, and on which `differ_in` depends.
    """

    when: str
    differ_in: Sequence[str]
    knobs: Sequence[str]


def plan(
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    keys: Keys,
    sharing: Sharing | None,
    check: Check | None = None,
    fingerprints: Callable[[dict[int, dict[str, Any]]], dict[int, str]] | None = None,
) -> list[Job]:
    """Compose the configs of all trials and look into their folders. Writes nothing.

    Args:
        context: Hydra's.
        config: of the multirun.
        job_overrides: of each trial.
        first: number of the first trial.
        keys: what of a config identifies a trial.
        sharing: see there; None for trials that share nothing.
        check: raises a ValueError for a config, given with Hydra's own part, that should be refused.
        fingerprints: give the contents of the data by the number of a trial, for plain values of "data" and "task" by
            number; see :meth:`~cv_lab.study.record.TrialRecord.identify_data`. Asked only if the study has such trials.

    Raises:
        RefusedError: if a config cannot be composed or is refused, or a folder holds a trial of another config.
    """
    if len(job_overrides) > MANY:
        log.info("composing the configs of %d trials", len(job_overrides))
    composer = Composer(context, config)
    jobs = [
        _job(composer, number, list(overrides), keys, job_overrides, check)
        for number, overrides in enumerate(job_overrides, first)
    ]
    refused = _refused(jobs)
    trials = read_records(Path(config.hydra.sweep.dir).absolute())
    if fingerprints is not None and any(FINGERPRINT in record.get("config", {}) for record in trials.values()):
        _identify_data(jobs, fingerprints)
    for job in jobs:
        job.record.choose_folder(trials)
        try:
            job.state = job.record.state(config.retry_failed)
        except BusyError:
            job.busy, job.why_not = True, f"run by {described_holder(job.record.found)}"
        except UnreadableError as error:
            job.damaged = True
            job.why_not = f"left out, since its {error}: restore that file, or remove {job.record.folder}"
        except OccupiedError as error:
            refused.append(str(error))
        job.lease = job.record.found.get("lease")
        trials.setdefault(job.record.folder, job.record.fields)
        _keep_log_in(job)
    if refused:
        raise RefusedError("\n".join(refused))
    if sharing is not None:
        _bring_together(jobs, sharing)
    _tell_siblings(jobs, trials)
    return jobs


def _identify_data(jobs: Sequence[Job], fingerprints: Callable[[dict[int, dict[str, Any]]], dict[int, str]]) -> None:
    """Ask for the fingerprint of each data set once."""
    same: dict[str, list[Job]] = {}
    for job in jobs:
        same.setdefault(digest([job.record.identified[key] for key in ("data", "task")]), []).append(job)
    asked = {some[0].number: {key: plain(some[0].config[key]) for key in ("data", "task")} for some in same.values()}
    known = fingerprints(asked)
    for some in same.values():
        for job in some:
            job.record.identify_data(known.get(some[0].number, ""))


def _refused(jobs: Sequence[Job]) -> list[str]:
    problems = {job.number: job.refusal for job in jobs if job.refusal}
    return [in_words(problems, len(jobs))] if problems else []


def _job(
    composer: Composer,
    number: int,
    overrides: list[str],
    keys: Keys,
    job_overrides: Sequence[Sequence[str]],
    check: Check | None,
) -> Job:
    try:
        composed = composer.compose(overrides)
    except ConfigCompositionException as error:
        raise RefusedError(why_not_composed(error, overrides, job_overrides)) from error
    with open_dict(composed):
        composed.hydra.job.id = str(number)
        composed.hydra.job.num = number
        composed.hydra.launcher.planned = True
        composed.hydra.launcher.code = code_version()
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = composed  # type: ignore[assignment]  # for the resolver of ${hydra:...}
    try:
        folder = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir).absolute()
        with read_write(composed.hydra.runtime), open_dict(composed.hydra.runtime):
            composed.hydra.runtime.output_dir = str(folder)
        job = Job(number, overrides, composed, TrialRecord(without_hydra(composed), keys))
        if check is not None:
            try:
                check(composed, composed.hydra)
            except ValueError as error:
                job.refusal = str(error)
        return job
    except OmegaConfBaseException as error:
        raise RefusedError(f"#{number} {' '.join(overrides)}: {error}") from error
    finally:
        HydraConfig.instance().cfg = before


def _keep_log_in(job: Job) -> None:
    """Let Hydra log where the trial's record is, in which folder it may have been before under another name."""
    folder = job.record.folder
    config = job.config
    config.trial_dir = str(folder)
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.runtime.output_dir = str(folder)
        config.hydra.sweep.dir, config.hydra.sweep.subdir = str(folder.parent), folder.name


def why_not_composed(
    error: ConfigCompositionException, overrides: list[str], job_overrides: Sequence[Sequence[str]]
) -> str:
    """Hydra's message, and which of several swept options has no such key."""
    message = str(error)
    swept = {
        key: value
        for key, value in map(split_override, overrides)
        if len({value for others in job_overrides for k, value in map(split_override, others) if k == key}) > 1
    }
    for key, _ in map(split_override, overrides):
        group, _, rest = key.partition(".")
        if rest and group in swept and f"'{key}'" in message:
            return (
                f"{key}: {group}={swept[group]} has no {rest}, though {group} is swept. Run the options that have it "
                f"by a command of their own into the same study (study=NAME), or append it to all with +{key}=..."
            )
    return message


def _bring_together(jobs: Sequence[Job], sharing: Sharing) -> None:
    """Write to ``hydra.launcher.together`` of each trial what those that it can share with differ in, its own first.

    Those that are completed count too: what is computed for the others must not depend on how far the study is.
    """
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if OmegaConf.select(job.config, sharing.when):
            left_out = (*sharing.differ_in, *sharing.knobs)
            rest = {key: value for key, value in job.record.identified.items() if key not in left_out}
            groups.setdefault(repr(rest), []).append(job)
    for group in groups.values():
        points = [{key: job.record.identified[key] for key in sharing.differ_in} for job in group]
        distinct = {repr(point): point for point in points}
        for job, own in zip(group, points, strict=True):
            others = [point for name, point in distinct.items() if name != repr(own)]
            job.tell(together=[own, *others])


def _tell_siblings(jobs: Sequence[Job], trials: dict[Path, dict[str, Any]]) -> None:
    """Write to ``hydra.launcher.siblings`` of each trial the folders of those that it may begin from."""
    found = families(trials)
    for job in jobs:
        if len(job.config.hydra.launcher.get("together") or ()) < 2:  # else its head is trained with those of others
            own = found.get(family(job.record.fields["config"]), {})
            job.siblings = {folder: epochs for folder, epochs in own.items() if epochs != job.epochs}
        job.tell(siblings=[str(folder) for folder in job.siblings])


def without_hydra(config: DictConfig) -> DictConfig:
    """The trial's own part of a composed config."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
