"""What a study begins and ends with."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from cv_lab.study.effects import without_effect
from cv_lab.study.read import read_study

LONGEST_STUDY = 200  # bytes of a folder's name; file systems allow 255


class StudySummary(Callback):
    """Hydra callback: refuse folders that cannot be used, and end a multirun with table and report of its study.

    The exit code is 1 if a trial failed, or the table or the report could not be made. Hydra turns exceptions of
    callbacks into warnings, so they are caught and printed here.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _check_study(config, lambda: config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _check_study(config, lambda: config.hydra.sweep.dir)
        _set_direction(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from cv_lab.report.page import write_report  # which --help need not wait for
        from cv_lab.report.terminal import print_table
        from cv_lab.report.wording import clean

        folder = Path(config.hydra.sweep.dir)
        failed = False
        try:
            study = read_study(folder)
            failed = any(trial.status == "failed" for trial in study.trials)
            print_table(study.trials)
            for case in without_effect(study.trials):
                print(f"warning: {case.text}")
        except Exception as error:
            failed = True
            print(f"error: no table: {type(error).__name__}: {error}", file=sys.stderr)
        try:
            report = write_report(folder)
            print(*map(clean, report.notes), *report.files[-1:], sep="\n")
        except Exception as error:
            failed = True
            print(f"error: no report: {type(error).__name__}: {error}", file=sys.stderr)
        if failed:
            sys.exit(1)


def _check_study(config: DictConfig, folder: Callable[[], str]) -> None:
    """Leave with a message if the study's folder is not where studies are, or cannot be written to."""
    before = HydraConfig.instance().cfg
    try:
        HydraConfig.instance().set_config(config)  # for the resolver of ${hydra:...}
        name, path = str(config.study), Path(folder())
        if not name or Path(name).is_absolute() or ".." in Path(name).parts or name == ".":
            _refuse(f"study={name} is not the name of a folder in {config.studies_dir}: give one, such as study=rates")
        if len(os.fsencode(Path(name).name)) > LONGEST_STUDY:
            _refuse(f"study={name[:20]}... is too long for a folder: give a name of at most {LONGEST_STUDY} bytes")
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            _refuse(f"{path} cannot be written to: name another folder with study=NAME or studies_dir=FOLDER")
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}: name another folder with study=NAME or studies_dir=FOLDER")
    except OmegaConfBaseException as error:
        _refuse(str(error).splitlines()[0])
    finally:
        HydraConfig.instance().cfg = before


def _set_direction(config: DictConfig) -> None:
    """Let a search maximise or minimise as the task's metric asks for; a sweeper's own default is to minimise."""
    sweeper = config.hydra.sweeper
    if "direction" not in sweeper:
        return
    from hydra.utils import get_class  # the task is imported for its mode, which takes seconds

    kind: Any = get_class(config.task._target_)
    name = (config.get("monitor") or "").partition("/")[2]
    unit = kind.units.get(name) or kind.units.get(name.partition("/")[0])
    right = {"max": "maximize", "min": "minimize"}[unit.mode if unit else kind.mode]
    asked = [o.partition("=")[2] for o in config.hydra.overrides.hydra if o.startswith("hydra.sweeper.direction=")]
    if any(direction != right for direction in asked):
        _refuse(
            f"hydra.sweeper.direction={asked[-1]}, but the metric that the task is judged by is to be {right}d: leave "
            "it out"
        )
    with read_write(config.hydra), open_dict(config.hydra):
        sweeper.direction = right
        config.hydra.overrides.hydra.append(f"hydra.sweeper.direction={right}")  # for the configs of the trials


def _refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
