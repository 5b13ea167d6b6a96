"""A study of tiny trials that need no torch, by commands each of which takes itself for a host of its own.

A trial is a chain of numbers, one an epoch, in which each follows from the one before. Each epoch is noted in a file
beside the studies, so that none can be lost or trained once too often without a trace.
"""

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cv_lab.config import Keys, register_config
from cv_lab.files import read_json, write_csv, write_json
from cv_lab.study import liveness, processes
from cv_lab.study.record import BusyError, FolderState, TakenOverError, TrialRecord
from tests.conftest import ROOT

KEYS = Keys(not_identifying=("study", "studies_dir", "trial_dir", "jobs", "seconds", "halving"), knobs=("lr", "epochs"))
if "PRETENDED_HOST" in os.environ:  # in commands and their trials, not in the tests
    socket.gethostname = liveness.machine = lambda: os.environ["PRETENDED_HOST"]  # type: ignore[assignment]
    liveness.HEARTBEAT_SECONDS, liveness.STALE_SECONDS, processes.LOOK_SECONDS = 0.3, 1.5, 0.1
    os.fsync = lambda file: None  # no test lets the system crash


def follow(value: float, rate: float, seed: int) -> float:
    """The value after one more epoch."""
    return (3.9 * value * (1 - value) + rate + seed / 7) % 1


def run(config: DictConfig) -> float:
    """Run one trial."""
    record = TrialRecord(config, KEYS)
    try:
        state = record.open(config.retry_failed)
        if state is not FolderState.COMPLETED:
            _train(config, record)
    except (BusyError, TakenOverError) as error:
        _note(config, f"{record.folder.name} {type(error).__name__}")
    return 0.0


def _train(config: DictConfig, record: TrialRecord) -> None:
    record.update(monitor={"name": "value", "mode": "max"})
    saved = record.folder / "checkpoints" / "last.ckpt"
    rows: list[dict[str, Any]] = read_json(saved) if saved.exists() else []
    while len(rows) < config.epochs:
        time.sleep(config.seconds)
        value = follow(rows[-1]["value"] if rows else 0.5, config.lr, config.seed)
        rows.append({"epoch": len(rows) + 1, "value": value})
        write_csv(record.folder / "metrics.csv", rows)
        write_json(saved, rows)
        _note(config, f"{record.folder.name} {len(rows)}")
        if len(rows) >= (HydraConfig.get().launcher.get("pause_after") or config.epochs + 1):
            record.close("paused")
            return
    monitor = {"name": "value", "mode": "max", "best": max(row["value"] for row in rows)}
    write_json(record.folder / "result.json", {"schema": 1, "monitor": monitor, "metrics": {}, "seconds": {"fit": 1.0}})
    record.close("completed")
    _note(config, f"{record.folder.name} completed")


def _note(config: DictConfig, line: str) -> None:
    with Path(config.studies_dir, "notes.txt").open("a") as file:
        file.write(f"{line}\n")


def main() -> None:
    """What a command runs."""
    register_config()
    sys.argv.append(f"hydra.searchpath=[file://{ROOT / 'conf'}]")
    hydra.main(version_base="1.3", config_path=str(Path(__file__).parent), config_name="fleet")(run)()


def arguments(studies: Path, *overrides: str) -> list[str]:
    """Of a process that is such a command."""
    code = "from tests.study.fleet import main; main()"
    return [sys.executable, "-c", code, f"studies_dir={studies}", *overrides]
