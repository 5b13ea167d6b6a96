"""What a multirun ends with. Imports neither torch nor Lightning."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cv_lab.study import print_table, read_trials


class StudySummary(Callback):
    """Hydra callback: ends a multirun with table and report of its study, and with exit code 1 if a trial failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from cv_lab.report.page import report_at_end  # which --help need not wait for

        folder = Path(config.hydra.sweep.dir)
        try:
            trials = read_trials(folder)
            print_table(trials)
        finally:  # the report passes over damaged files, which the table does not
            report_at_end(folder)
        if any(trial.record["status"] == "failed" for trial in trials):
            sys.exit(1)
