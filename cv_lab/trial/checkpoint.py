"""How a trial keeps its weights: whole or not at all, and in a folder that may be moved."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from pytorch_lightning.plugins.io import TorchCheckpointIO

from cv_lab.files import check_zip, replacing


class DamagedCheckpointError(RuntimeError):
    """The checkpoint that a trial should continue from cannot be loaded."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place and rename it.

    Lightning's own writes to the system's folder of temporary files first; where that lies on another file system,
    its last step is a copy, and a process killed meanwhile leaves half a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to the local `path`, whole or not at all."""
        assert storage_options is None
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def best_and_last(folder: Path, monitor: str, mode: str) -> tuple[ModelCheckpoint, ModelCheckpoint]:
    """The callbacks that write ``best.ckpt`` and ``last.ckpt`` into `folder` at the end of each epoch, in this order.

    They are two because Lightning's `save_last` writes only after epochs that are the best so far.
    """
    every_epoch: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    best = MovableCheckpoint(folder, "best", monitor=monitor, mode=mode, **every_epoch)
    return best, MovableCheckpoint(folder, "last", **every_epoch)


class MovableCheckpoint(ModelCheckpoint):
    """ModelCheckpoint whose folder may have been moved since; Lightning's would forget the best score."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score so far, with paths into this folder."""
        folder = str(self.dirpath)

        def moved(path: str) -> str:
            return str(Path(folder) / Path(path).name) if path else path

        paths = {key: moved(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": folder})
        self.current_score = state_dict["current_score"]  # which Lightning saves but does not restore


class StayStopped(Callback):
    """End a continued training at once if early stopping had ended it before the break.

    Lightning restores what early stopping has counted, but not that it has decided.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for callback in trainer.early_stopping_callbacks:
            assert isinstance(callback, EarlyStopping)
            if callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
                trainer.should_stop = True


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a trial's checkpoint; its tensors are read from the file when they are used.

    Raises:
        DamagedCheckpointError: if it is damaged.
    """
    try:
        check_zip(path)
        saved: dict[str, Any] = torch.load(path, weights_only=True, mmap=True)
    except Exception as error:
        raise DamagedCheckpointError(
            f"{path} is damaged, so the trial cannot continue: the same command again starts it anew"
        ) from error
    return saved
