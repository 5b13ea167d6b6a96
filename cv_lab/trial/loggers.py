"""A trial's loggers, which continue where an earlier attempt was killed."""

import csv
from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from pytorch_lightning import loggers
from pytorch_lightning.utilities.rank_zero import rank_zero_only


class CSVLogger(loggers.CSVLogger):
    """Lightning's logger, which deletes the table of an earlier attempt; this one keeps the rows that are still valid.

    Args:
        purge_step: rows of an earlier attempt from this step on are dropped, as TensorBoard's logger does; None drops
            all of them.
        options: of Lightning's logger.
    """

    def __init__(self, *, purge_step: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._keep_rows(0 if purge_step is None else purge_step)

    @rank_zero_only
    def _keep_rows(self, purge_step: int) -> None:
        path = Path(self.log_dir) / "metrics.csv"
        rows = _read(path) if purge_step else []
        path.unlink(missing_ok=True)  # else Lightning warns that it deletes the file
        self.experiment.metrics = [row for row in rows if int(row["step"]) < purge_step]
        self.save()


def make_loggers(config: DictConfig, log_from: int | None) -> list[loggers.Logger]:
    """The loggers of a trial.

    Args:
        config: the trial's; ``config.logger`` holds loggers by name.
        log_from: the step from which on the log of an earlier attempt does not hold; None if there was none. The
            loggers of TensorBoard and :class:`CSVLogger` drop what lies there; others begin anew.
    """
    made = []
    for part in (config.logger or {}).values():
        purges = issubclass(get_class(part._target_), loggers.TensorBoardLogger | CSVLogger)
        made.append(instantiate(part, purge_step=log_from) if purges and log_from is not None else instantiate(part))
    return made


def _read(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a table, without empty cells; the last row may have been cut short by a kill."""
    if not path.exists():
        return []
    text = path.read_text()
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    return [{name: cell for name, cell in row.items() if cell} for row in rows]
