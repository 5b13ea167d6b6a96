"""Pictures and hyper-parameters in TensorBoard."""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams

from cv_lab.pictures.artifacts import Png, encode


def add_image(trainer: Trainer, tag: str, image: Image.Image | Png, step: int | None = None) -> None:
    """Add a picture to every TensorBoard logger of the trainer, by default at the current step."""
    png = image if isinstance(image, Png) else encode(image)
    content = Summary.Image(height=png.height, width=png.width, colorspace=3, encoded_image_string=png.data)
    summary = Summary(value=[Summary.Value(tag=tag, image=content)])
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            # Lightning closes the file after the training; this opens another.
            writer = logger.experiment._get_file_writer()
            writer.add_summary(summary, trainer.lightning_module.global_step if step is None else step)


def add_hyperparameters(
    trainer: Trainer, parameters: dict[str, Any], asked: Sequence[str], metrics: dict[str, float], step: int
) -> None:
    """Log the parameters by which a trial is compared, and its final metrics, as ``best/NAME``.

    The metrics have tags of their own: under the tags of the curves they would draw a point that no epoch had.

    Args:
        trainer: whose loggers are used; its training has ended.
        parameters: names and plain values.
        asked: names of those that the user set. TensorBoard shows few columns at first, and these before all others.
        metrics: final metrics, the most important first.
        step: see :func:`final_step`.
    """
    metrics = {f"best/{name}": value for name, value in metrics.items()}
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step)
        if isinstance(logger, TensorBoardLogger):
            # As Lightning does, but with an order of the columns. HParams show a metric only if its tag is logged too.
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


def final_step(task: LightningModule) -> int:
    """The step of what is logged after the training: one past the last, so that a continued trial can drop it."""
    return task.global_step + 1
