"""One trial: from a composed config to a folder with everything about it."""

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from cv_lab.data.memory import keep_large_blocks
from cv_lab.files import write_json
from cv_lab.study.record import BusyError, OccupiedError, Standing, TrialRecord, failed_value
from cv_lab.study.trials import Trial, print_trial, read_trial
from cv_lab.trial.hardware import visible_gpus
from cv_lab.trial.train import train_and_test

log = logging.getLogger(__name__)
# Its hints at every start and stop say nothing of the trial; it sets its own level when imported.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def run_trial(config: DictConfig) -> float:
    """Train, test and record one trial.

    A trial that its folder holds as completed is not run again; one that was killed or interrupted is continued from
    its last checkpoint.

    Returns:
        The best value of the task's monitored metric; :func:`~cv_lab.study.record.failed_value` if the trial
        failed as one of a multirun, whose other trials shall run on.

    Raises:
        SystemExit: if the trial failed in a single run (code 1), or was interrupted (130 by Ctrl-C, 143 by SIGTERM).
    """
    keep_large_blocks()
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]  # of the processes that train one network
    if not first:
        log.setLevel(logging.ERROR)
    record = TrialRecord(config, write=first)
    try:
        standing = record.open()
    except (OccupiedError, BusyError) as error:
        return _give_up(error)  # and leave the other trial's files alone
    if standing is Standing.COMPLETED:
        result = read_trial(record.folder).result
        assert result is not None
        log.info("%s: %s", os.path.relpath(record.folder), standing)
    else:
        try:
            with visible_gpus(config.trainer.accelerator):
                result = train_and_test(config, record, standing)
            if first:
                write_json(record.folder / "result.json", result)
            record.close("completed")
        except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns Ctrl-C and SIGTERM into SystemExit
            _end_interrupted(record, error)
        except Exception as error:
            return _end_failed(record, error)
    if HydraConfig.get().mode == RunMode.RUN and first:
        print_trial(Trial(record.folder, record.fields, result))
    best = result["monitor"]["best"]
    return failed_value(HydraConfig.get()) if best is None else float(best)


def _end_interrupted(record: TrialRecord, error: BaseException) -> NoReturn:
    """Record that the trial was interrupted, and leave with the usual exit code."""
    record.close("interrupted")
    log.error("interrupted; the last checkpoint is kept in %s", record.folder)
    sys.exit(143 if isinstance(error, SIGTERMException) else 130)


def _end_failed(record: TrialRecord, error: Exception) -> float:
    """Record that the trial failed, and tell the user."""
    try:
        record.close("failed", error)
    except OSError as full:  # probably a full disk, which may also be why the trial failed
        log.error("error: the trial's end could not be recorded: %s", full)
    return _give_up(error, record.folder)


def _give_up(error: Exception, folder: Path | None = None) -> float:
    """Tell the user in one message why the trial failed; the traceback goes to the log file."""
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # Hydra's wrapper buries the message
    log.error("error: %s", error)
    log.debug("".join(traceback.format_exception(error)))
    if folder is not None:
        log.error("The traceback is in %s", folder / "train.log")
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return failed_value(HydraConfig.get())
    sys.exit(1)
