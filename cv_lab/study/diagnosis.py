"""Detect what goes wrong in a training, from its table of epochs and its confusion matrices.

Each function looks for one fault after the last epoch in `rows`, and returns a message with advice, or None. They serve
every task, and need neither torch nor Lightning. Their common arguments are

- `rows`: the table of epochs, the oldest first, with "epoch", "train/loss", "val/loss" and the monitored metric;
- `in_use`: names of :data:`REMEDIES` that the trial uses already, so that no message recommends them.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[Mapping[str, float]]
Counts = NDArray[np.integer]

COLLAPSED = 0.1  # maximum ratio of the predicted to the true share of all other classes
NO_AGREEMENT = 0.02  # maximum Cohen's kappa of predictions that agree with the truth by chance only
EXPLODED = 10.0  # minimum ratio of the loss to that of the untrained network
DIVERGED = 1.2  # minimum ratio of the training loss to its lowest so far, after it rose twice in a row
DEAD = 0.01  # minimum fall of the training loss, as a share of its value in the first epoch
DEAD_EPOCHS = 3  # epochs within which it must fall so far
MIN_STEPS = 100  # optimizer steps until a network is judged
MIN_STEPS_AT_END = 30  # optimizer steps until it is judged at the end of a shorter training
OVERFIT_RATIO = 1.1  # minimum ratio of the validation loss to its lowest so far
OVERFIT_PATIENCE = 3  # minimum number of epochs since that lowest loss

# Advice in messages, by the names that `in_use` may hold.
REMEDIES = {
    "class weights": "class weights (loss=weighted_cross_entropy)",
    "overlap loss": "a loss of overlap (loss=dice_cross_entropy)",
    "focal loss": "the focal loss (loss=focal)",
    "warm-up": "a warm-up (scheduler=warmup_cosine)",
    "falling rate": "a learning rate that falls (scheduler=cosine)",
    "gradient clipping": "gradient clipping (trainer.gradient_clip_val=1)",
    "strong augmentation": "more augmentation (augmentation=strong)",
    "weight decay": "weight decay (weight_decay=1e-2)",
    "label smoothing": "label smoothing (label_smoothing=0.1)",
    "overfitting on purpose": "a check that labels fit their images (debug=overfit)",
}


def had_time_to_learn(steps: int, planned: int) -> bool:
    """Whether a network should have learned something after `steps` of its `planned` optimizer steps."""
    return steps >= min(MIN_STEPS, max(MIN_STEPS_AT_END, planned))


def collapse(counts: Counts, classes: Sequence[str], unit: str, in_use: Collection[str] = ()) -> str | None:
    """Detect that nearly all predictions are of one class although others occur.

    Args:
        counts: int (K, K) of the validation set; rows are the truth.
        classes: K names.
        unit: what is counted, "pixels" or "images".
    """
    truth, predicted = _shares(counts)
    top = int(predicted.argmax())
    others_true, others_predicted = 1 - truth[top], 1 - predicted[top]
    if others_true == 0 or others_predicted > COLLAPSED * others_true:
        return None
    neglected = int((np.delete(truth, top) > 0).sum())
    losses = ("class weights", "overlap loss", "focal loss") if unit == "pixels" else ("class weights", "focal loss")
    return (
        f"the network has collapsed to one class: {_percent(predicted[top])} of all {unit} are predicted as "
        f"{classes[top]}, which is {_percent(truth[top])} of the truth; {neglected} other classes, "
        f"{_percent(others_true)} of the truth, get {_percent(others_predicted)} of the predictions. "
        f"Try {_advice(losses, in_use, 'another learning rate, usually a lower one')}"
    )


def chance_level(counts: Counts, unit: str, in_use: Collection[str] = ()) -> str | None:
    """Detect that predictions are no better than random ones with the same shares of classes.

    Cohen's kappa is 0 for such predictions; a small sample may exceed it by two standard errors. For the arguments see
    :func:`collapse`.
    """
    truth, predicted = _shares(counts)
    blind = float(truth @ predicted)
    if blind >= 1:
        return None  # a single class in both
    n = int(counts.sum())
    accuracy = float(counts.diagonal().sum()) / n
    kappa = (accuracy - blind) / (1 - blind)
    error = 0.0 if unit == "pixels" else math.sqrt(blind / (n * (1 - blind)))  # pixels are not independent samples
    if kappa > max(NO_AGREEMENT, 2 * error):
        return None
    return (
        f"the network does no better than chance: {_percent(accuracy)} of the {unit} are right, and random "
        f"guesses with the same shares of classes would give {_percent(blind)}. "
        f"Try {_advice(['overfitting on purpose'], in_use, 'another learning rate (ten times higher or lower)')}"
    )


def exploding_loss(rows: Rows, untrained_loss: float, in_use: Collection[str] = ()) -> str | None:
    """Detect a loss far above `untrained_loss`, which is that of the first training step."""
    for split in ("train", "val"):
        loss = rows[-1].get(f"{split}/loss", 0.0)
        if loss > EXPLODED * untrained_loss > 0:
            return (
                f"the {_SPLITS[split]} loss has exploded to {loss:.3g}; the untrained network had "
                f"{untrained_loss:.3g}. "
                f"Try {_advice(['warm-up', 'gradient clipping'], in_use, 'a learning rate ten times lower')}"
            )
    return None


def diverging_loss(rows: Rows, in_use: Collection[str] = ()) -> str | None:
    """Detect a training loss that rose in the last two epochs, well above its lowest."""
    losses = [row["train/loss"] for row in rows]
    if len(losses) < 3 or not losses[-3] < losses[-2] < losses[-1] or losses[-1] <= DIVERGED * min(losses):
        return None
    return (
        f"the training loss diverges: it rose from {min(losses):.3g} in epoch {_epoch(rows, losses)} to "
        f"{losses[-1]:.3g}. Try {_advice(['falling rate', 'gradient clipping'], in_use, 'a lower learning rate')}"
    )


def dead_learning(rows: Rows) -> str | None:
    """Detect a training loss that has not fallen since the first epoch."""
    losses = [row["train/loss"] for row in rows]
    if len(losses) < DEAD_EPOCHS or min(losses) < (1 - DEAD) * losses[0]:
        return None
    return (
        f"the network does not learn: its training loss was {losses[0]:.4g} in epoch {rows[0]['epoch']:.0f} and is "
        f"{losses[-1]:.4g}. Try a higher learning rate if the loss is flat, a lower one if it jumps, and look for "
        "parts that are frozen"
    )


def overfitting(rows: Rows, monitor: str, in_use: Collection[str] = ()) -> str | None:
    """Detect a validation loss that has risen for some epochs while the training loss kept falling."""
    losses = [row["val/loss"] for row in rows if "val/loss" in row]
    if len(losses) < len(rows):
        return None  # not every epoch was validated
    best = int(np.argmin(losses))
    now, then = rows[-1], rows[best]
    if (
        len(rows) - 1 - best < OVERFIT_PATIENCE
        or now["val/loss"] < OVERFIT_RATIO * then["val/loss"]
        or now["train/loss"] >= then["train/loss"]
    ):
        return None
    remedies = ("strong augmentation", "weight decay", "label smoothing")
    return (
        f"the network overfits: since epoch {then['epoch']:.0f} the training loss fell from {then['train/loss']:.3g} "
        f"to {now['train/loss']:.3g} while the validation loss rose from {then['val/loss']:.3g} to "
        f"{now['val/loss']:.3g} ({monitor} {then[monitor]:.3g}, now {now[monitor]:.3g}). "
        f"Try {_advice(remedies, in_use, 'fewer epochs', 'a smaller network')}"
    )


_SPLITS = {"train": "training", "val": "validation"}


def _advice(remedies: Sequence[str], in_use: Collection[str], *others: str) -> str:
    """List the remedies that are not in use, and the `others`, as "a, b or c"."""
    *first, last = [REMEDIES[name] for name in remedies if name not in in_use] + list(others)
    return f"{', '.join(first)} or {last}" if first else last


def _shares(counts: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of each class in the truth and in the predictions, (K,) each."""
    total = max(int(counts.sum()), 1)
    return counts.sum(1) / total, counts.sum(0) / total


def _epoch(rows: Rows, losses: Sequence[float]) -> int:
    return int(rows[int(np.argmin(losses))]["epoch"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
