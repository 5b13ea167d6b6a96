"""Warn when a training goes wrong, at the end of the first epoch that shows it."""

import logging
from collections.abc import Collection, Mapping, Sequence
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
    What each epoch says is saved in the checkpoint, without regard to the number of epochs: a longer trial that goes on
    from there judges the epochs by its own number. It is a `Checkpoint` for the reason that :class:`EpochHistory`
    gives, and must stand after it in the list.

    Args:
        history: the table of epochs.
        in_use: remedies that the trial uses already, see :func:`remedies_in_use`.

    Attributes:
        findings: dicts of "kind", "epoch" (the first), "message" and "recovered" (an epoch or None).
    """

    def __init__(self, history: EpochHistory, in_use: Collection[str] = ()) -> None:
        self.history, self.in_use = history, in_use
        self.findings: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []  # of each the "step" at its end, and "messages" by kind
        self.untrained_loss: float | None = None
        self.first_loss: Tensor | None = None  # on the device, since reading it would wait for a GPU

    def on_train_batch_end(self, trainer: Trainer, task: Task, outputs: Any, *args: Any) -> None:  # type: ignore[override]
        if self.untrained_loss is None and self.first_loss is None:
            self.first_loss = outputs["loss"].detach()

    def on_train_epoch_end(self, trainer: Trainer, task: Task) -> None:  # type: ignore[override]
        if self.untrained_loss is None:
            assert self.first_loss is not None
            self.untrained_loss = self.first_loss.item()
        self.epochs.append({"step": task.global_step, "messages": self._diagnose(task)})
        self._judge(trainer)
        epoch = trainer.current_epoch + 1
        for finding in self.findings if trainer.is_global_zero else ():
            if finding["recovered"] == epoch:
                log.info("epoch %s: recovered from %s", epoch, finding["kind"].replace("_", " "))
            if finding["epoch"] == epoch:
                log.warning("warning: epoch %s: %s", epoch, finding["message"])

    def on_fit_end(self, trainer: Trainer, task: Task) -> None:  # type: ignore[override]
        self._judge(trainer)  # a trial that continues from its last epoch trains none

    def _judge(self, trainer: Trainer) -> None:
        self.findings = findings_of(self.epochs, int(trainer.estimated_stepping_batches))

    def _diagnose(self, task: Task) -> dict[str, str]:
        """Return by kind what would be wrong now, if the network had time to learn."""
        rows, in_use = self.history.rows, self.in_use
        assert self.untrained_loss is not None
        found = {
            "exploding_loss": diagnosis.exploding_loss(rows, self.untrained_loss, in_use),
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
        return {"epochs": self.epochs, "untrained_loss": self.untrained_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs, self.untrained_loss = list(state_dict["epochs"]), state_dict["untrained_loss"]


def findings_of(epochs: Sequence[Mapping[str, Any]], planned_steps: int) -> list[dict[str, Any]]:
    """The findings of a training, see :class:`Diagnostics`.

    Args:
        epochs: of each the "step" at its end and the "messages" by kind.
        planned_steps: of the whole training.
    """
    findings: list[dict[str, Any]] = []
    for number, epoch in enumerate(epochs, 1):
        judged = diagnosis.had_time_to_learn(epoch["step"], planned_steps)
        current = {kind: text for kind, text in epoch["messages"].items() if judged or kind == "exploding_loss"}
        standing = {finding["kind"]: finding for finding in findings if finding["recovered"] is None}
        for kind, finding in standing.items():
            if kind not in current:
                finding["recovered"] = number
        for kind, message in current.items():
            if kind in standing:
                standing[kind]["message"] = message
            else:
                findings.append({"kind": kind, "epoch": number, "message": message, "recovered": None})
    return findings


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
        "warm-up": choices.get("scheduler") in ("warmup_cosine", "onecycle", "wsd"),
        "falling rate": config.scheduler is not None,
        "gradient clipping": bool(config.trainer.gradient_clip_val),
        "strong augmentation": choices.get("augmentation") == "strong",
        "weight decay": bool(OmegaConf.select(config, "optimizer.weight_decay")),
        "label smoothing": bool(config.label_smoothing),
        "overfitting on purpose": choices.get("debug") == "overfit",
    }
    return {remedy for remedy, is_used in used.items() if is_used}
