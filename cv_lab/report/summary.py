"""What a multirun ends with. Imports neither torch nor Lightning."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cv_lab.study.read import read_study


class StudySummary(Callback):
    """Hydra callback: ends a multirun with table and report of its study, and with exit code 1 if a trial failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from cv_lab.report.page import report_at_end  # which --help need not wait for
        from cv_lab.report.terminal import print_table

        folder = Path(config.hydra.sweep.dir)
        trials = read_study(folder).trials
        print_table(trials)
        report_at_end(folder)  # says what it could not read
        if any(trial.status == "failed" for trial in trials):
            sys.exit(1)
