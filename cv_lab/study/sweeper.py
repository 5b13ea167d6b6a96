"""Hydra sweeper: all combinations of the values given."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.errors import ConfigCompositionException

from cv_lab.study.launcher import ProcessLauncher
from cv_lab.study.plan import why_not_composed


class GridSweeper(BasicSweeper):
    """Hydra's grid sweeper, with a longer message for overrides that do not fit all options of a swept group."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose the configs of all trials before any runs, unless the launcher does so itself.

        Raises:
            ConfigCompositionException: if a config cannot be composed.
        """
        if isinstance(self.launcher, ProcessLauncher):
            return
        assert self.hydra_context is not None
        assert self.config is not None
        for overrides in batch:
            try:
                self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            except ConfigCompositionException as error:
                raise ConfigCompositionException(why_not_composed(error, list(overrides), batch)) from error
