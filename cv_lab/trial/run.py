"""One trial: from a composed config to a folder with everything about it."""

import logging
import math
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from cv_lab.config import KEYS
from cv_lab.data.memory import keep_large_blocks
from cv_lab.files import write_json
from cv_lab.labels import NonFiniteLossError
from cv_lab.report.terminal import print_trial
from cv_lab.study.read import read_trial
from cv_lab.study.record import BusyError, FolderState, TrialRecord, read_records
from cv_lab.study.trials import Trial
from cv_lab.trial.build import fingerprint
from cv_lab.trial.hardware import visible_gpus
from cv_lab.trial.train import train_and_test

log = logging.getLogger(__name__)
REPEATING = (ValueError, TypeError, NonFiniteLossError)  # what a trial that is run again fails by again
# Its hints at every start and stop say nothing of the trial; it sets its own level when imported.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
logging.raiseExceptions = False  # where the disk is full, one message says so, and no log's traceback


def run_trial(config: DictConfig) -> float:
    """Train, test and record one trial.

    A trial that its folder holds as completed is not run again; one that was killed or interrupted is continued from
    its last checkpoint.

    Returns:
        The best value of the task's monitored metric; NaN if the trial failed as one of a multirun, whose other
        trials run on, or was paused or pruned.

    Raises:
        SystemExit: if the trial failed in a single run (code 1), or was interrupted (130 by Ctrl-C, 143 by SIGTERM).
    """
    keep_large_blocks()
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]  # of the processes that train one network
    if not first:
        logging.getLogger("cv_lab").setLevel(logging.ERROR)
    record = None
    try:
        _heed_hangup()
        record = TrialRecord(config, KEYS, write=first)
        record.identify_data(fingerprint(config))
        state = _open(record, config)
        if state is FolderState.FAILED:
            return _give_up(FailedBeforeError(record.folder))
        if state is FolderState.COMPLETED:
            result = read_trial(record.folder, []).result
            assert result is not None
            log.info("%s: %s", os.path.relpath(record.folder), state)
        else:
            with visible_gpus(config.trainer.accelerator):
                result = train_and_test(config, record, state)
            if result is None:
                return math.nan
            if first:
                write_json(record.folder / "result.json", result)
            record.close("completed")
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns Ctrl-C and SIGTERM into SystemExit
        _end_interrupted(record, error)
    except BusyError as error:
        if not HydraConfig.get().launcher.get("planned"):
            return _give_up(error)
        log.info("%s", error)  # which the launcher of a study waits for
        return math.nan
    except Exception as error:
        return _end_failed(record, error)
    if HydraConfig.get().mode == RunMode.RUN and first:
        print_trial(Trial(record.folder, record.fields, result, epochs=[]))
    best = result["monitor"]["best"]
    return math.nan if best is None else float(best)


class FailedBeforeError(RuntimeError):
    """The trial failed for a reason that would make it fail again."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} failed before and would fail again: retry_failed=true runs it again")


def _open(record: TrialRecord, config: DictConfig) -> FolderState:
    """Take possession of the trial's folder, which may be another than the one that its overrides name."""
    if not HydraConfig.get().launcher.get("planned"):  # the launcher of a study has done this already
        record.choose_folder(read_records(record.folder.parent))
        record.wait_for_sign()
    state = record.open(retry_failed=config.retry_failed or HydraConfig.get().mode == RunMode.RUN)
    _log_in(record.folder)
    if record.note:
        log.warning("%s: %s, %s", os.path.relpath(record.folder), state, record.note)
    return state


def _end_interrupted(record: TrialRecord | None, error: BaseException) -> NoReturn:
    """Record that the trial was interrupted, and leave with the usual exit code."""
    if record is not None and record.is_open:
        record.close("interrupted")
        log.error("interrupted; the last checkpoint is kept in %s", record.folder)
    sys.exit(143 if isinstance(error, SIGTERMException) else 130)


def _end_failed(record: TrialRecord | None, error: Exception) -> float:
    """Record that the trial failed, unless its folder belongs to another, and tell the user."""
    cause = _cause(error)
    if record is None or not record.is_open:
        return _give_up(cause)
    try:
        record.close("failed", cause, repeats=isinstance(cause, REPEATING))
    except OSError as full:  # probably a full disk, which may also be why the trial failed
        log.error("error: the trial's end could not be recorded: %s", full)
    return _give_up(cause, record.folder)


def _heed_hangup() -> None:
    """Let the end of the terminal interrupt the trial, unless ``nohup`` says otherwise."""
    in_main = threading.current_thread() is threading.main_thread()  # where alone a handler may be set
    if in_main and hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def _cause(error: Exception) -> Exception:
    """The error itself, without Hydra's wrapper, which buries the message."""
    wrapped = isinstance(error, InstantiationException) and isinstance(error.__cause__, Exception)
    return error.__cause__ if wrapped else error  # type: ignore[return-value]


def _log_in(folder: Path) -> None:
    """Move the log file, which is still empty, to the trial's folder if Hydra chose another."""
    chosen = Path(HydraConfig.get().runtime.output_dir)
    if chosen == folder:
        return
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and handler.stream is None:
            handler.baseFilename = str(folder.absolute() / Path(handler.baseFilename).name)
    with suppress(OSError):  # it may hold something
        chosen.rmdir()


def _give_up(error: Exception, folder: Path | None = None) -> float:
    """Tell the user why, in one message; the traceback goes to the log file."""
    log.error("error: %s", error)
    log.debug("".join(traceback.format_exception(error)))
    if folder is not None:
        log.error("The traceback is in %s", folder / "train.log")
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return math.nan
    sys.exit(1)
