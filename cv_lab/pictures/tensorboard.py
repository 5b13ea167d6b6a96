"""Pictures, and the table of trials, into TensorBoard."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams


def add_image(trainer: Trainer, tag: str, image: Image.Image) -> None:
    """Add `image` at the current step to every TensorBoard logger of the trainer."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, np.asarray(image), trainer.lightning_module.global_step, dataformats="HWC")


def add_hyperparameters(
    trainer: Trainer, parameters: dict[str, Any], asked: Sequence[str], metrics: dict[str, float], step: int
) -> None:
    """Tell every logger of the trainer what the trial is compared by, and what came of it.

    Args:
        trainer: whose loggers are told.
        parameters: names and plain values.
        asked: names of those that the user set. TensorBoard shows few columns at first, and these before all others.
        metrics: final metrics, the most important first.
        step: at which they are logged.
    """
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step)
        if isinstance(logger, TensorBoardLogger):
            # What Lightning does, but for the order: HParams show a metric where its tag is logged, too.
            experiment, start, end = hparams(parameters, metrics)
            plugin_data = experiment.value[0].metadata.plugin_data
            content = HParamsPluginData.FromString(plugin_data.content)
            for info in content.experiment.hparam_infos:
                info.differs = info.name in asked  # by which TensorBoard sorts
            plugin_data.content = content.SerializeToString()
            for summary in (experiment, start, end):
                logger.experiment.file_writer.add_summary(summary)
        else:
            logger.log_hyperparams(parameters)
