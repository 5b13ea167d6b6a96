"""Warn when a training goes wrong, at the end of the first epoch that shows it."""

import logging
from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from cv_lab.callbacks.history import EpochHistory
from cv_lab.study import diagnosis
from cv_lab.tasks.base import Task

log = logging.getLogger(__name__)


class Diagnostics(Checkpoint):
    """Collect findings: what went wrong, since which epoch, with figures and with what to try.

    Each finding is logged once, as a warning, in its first epoch. Its message has the figures of the last epoch in
    which it held. A finding that stops holding is logged again and kept with the epoch of its recovery, since a
    network that predicts one class in its first epoch may still learn.
    Until the network has had time to learn, only an exploding loss counts as a finding.
    The findings are saved in the checkpoint. It is a `Checkpoint` for the reason that :class:`EpochHistory` gives,
    and must stand after it in the list.

    Args:
        history: the table of epochs.
        in_use: remedies that the trial uses already, see :func:`remedies_in_use`.

    Attributes:
        findings: dicts of "kind", "epoch" (the first), "message" and "recovered" (an epoch or None).
    """

    def __init__(self, history: EpochHistory, in_use: Collection[str] = ()) -> None:
        self.history, self.in_use = history, in_use
        self.findings: list[dict[str, Any]] = []
        self.untrained_loss: float | None = None
        self.first_loss: Tensor | None = None  # on the device, since reading it would wait for a GPU

    def on_train_batch_end(self, trainer: Trainer, task: Task, outputs: Any, *args: Any) -> None:  # type: ignore[override]
        if self.untrained_loss is None and self.first_loss is None:
            self.first_loss = outputs["loss"].detach()

    def on_train_epoch_end(self, trainer: Trainer, task: Task) -> None:  # type: ignore[override]
        if self.untrained_loss is None:
            assert self.first_loss is not None
            self.untrained_loss = self.first_loss.item()
        current = self._diagnose(trainer, task)
        epoch = trainer.current_epoch + 1
        for finding in self.findings:
            if finding["recovered"] is None and finding["kind"] not in current:
                finding["recovered"] = epoch
                if trainer.is_global_zero:
                    log.info("epoch %s: recovered from %s", epoch, finding["kind"].replace("_", " "))
        standing = {finding["kind"]: finding for finding in self.findings if finding["recovered"] is None}
        for kind, message in current.items():
            if kind in standing:
                standing[kind]["message"] = message
            else:
                self.findings.append({"kind": kind, "epoch": epoch, "message": message, "recovered": None})
                if trainer.is_global_zero:
                    log.warning("warning: epoch %s: %s", epoch, message)

    def _diagnose(self, trainer: Trainer, task: Task) -> dict[str, str]:
        """Return the messages of the findings that hold now, by kind."""
        rows, in_use = self.history.rows, self.in_use
        assert self.untrained_loss is not None
        found = {"exploding_loss": diagnosis.exploding_loss(rows, self.untrained_loss, in_use)}
        if diagnosis.had_time_to_learn(task.global_step, int(trainer.estimated_stepping_batches)):
            found |= {
                "diverging_loss": diagnosis.diverging_loss(rows, in_use),
                "dead_learning": diagnosis.dead_learning(rows),
                "overfitting": diagnosis.overfitting(rows, task.monitor, in_use),
            }
            confusion = task.confusion("val")
            if confusion is not None and confusion.sum() > 0:
                counts = confusion.cpu().numpy()
                unit = "pixels" if task.target == "mask" else "images"
                found["collapse"] = diagnosis.collapse(counts, task.classes, unit, in_use)
                if found["collapse"] is None:  # which would explain a chance level
                    found["chance_level"] = diagnosis.chance_level(counts, unit, in_use)
        return {kind: message for kind, message in found.items() if message is not None}

    def state_dict(self) -> dict[str, Any]:
        return {"findings": self.findings, "untrained_loss": self.untrained_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.findings, self.untrained_loss = state_dict["findings"], state_dict["untrained_loss"]


def remedies_in_use(config: DictConfig, choices: Mapping[str, str]) -> set[str]:
    """Return which of :data:`~cv_lab.study.diagnosis.REMEDIES` a trial uses already.

    Args:
        config: the composed config.
        choices: the option chosen in each group, for example "focal" of "loss".
    """
    loss = choices.get("loss") or ""
    used = {
        "class weights": "weight" in loss or "effective_number" in loss,
        "overlap loss": any(name in loss for name in ("dice", "tversky", "lovasz")),
        "focal loss": "focal" in loss,
        "warm-up": choices.get("scheduler") in ("warmup_cosine", "onecycle"),
        "falling rate": config.scheduler is not None,
        "gradient clipping": bool(config.trainer.gradient_clip_val),
        "strong augmentation": choices.get("augmentation") == "strong",
        "weight decay": bool(OmegaConf.select(config, "optimizer.weight_decay")),
        "label smoothing": bool(config.label_smoothing),
        "overfitting on purpose": choices.get("debug") == "overfit",
    }
    return {remedy for remedy, is_used in used.items() if is_used}
