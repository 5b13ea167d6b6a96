"""What a multirun ends with. Imports neither torch nor Lightning."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cv_lab.study.effects import without_effect
from cv_lab.study.read import read_study
from cv_lab.study.trials import print_table


class StudySummary(Callback):
    """Hydra callback: ends a multirun with table and report of its study, and with exit code 1 if a trial failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from cv_lab.report.page import report_at_end  # which --help need not wait for

        folder = Path(config.hydra.sweep.dir)
        trials = read_study(folder).trials
        print_table(trials)
        for case in without_effect(trials):
            print(f"warning: {case.text}")
        report_at_end(folder)  # says what it could not read
        if any(trial.status == "failed" for trial in trials):
            sys.exit(1)
