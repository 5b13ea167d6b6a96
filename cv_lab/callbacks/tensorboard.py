"""Pictures into TensorBoard."""

import numpy as np
from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger


def add_image(trainer: Trainer, tag: str, image: Image.Image) -> None:
    """Add `image` at the current step to every TensorBoard logger of the trainer."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, np.asarray(image), trainer.global_step, dataformats="HWC")
