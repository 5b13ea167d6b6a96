"""Seed the generators in each epoch."""

from pytorch_lightning import Callback, LightningModule, Trainer

from cv_lab.training.seeds import seed_all


class ReseedEachEpoch(Callback):
    """Seed all generators at the start of each epoch.

    The random numbers of an epoch then depend only on seed and epoch, so a trial that is continued from a checkpoint
    ends with the weights of an uninterrupted one. No random state needs to be saved.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Each process has its own part of the data and draws its own numbers.
        seed = (self.seed * 1_000_003 + trainer.current_epoch) * trainer.world_size + trainer.global_rank
        seed_all(seed, pl_module.device)
