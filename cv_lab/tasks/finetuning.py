"""Fine-tuning of a pretrained network: its new head, its last stages, or all of it."""

from collections.abc import Sequence

from torch import nn

from cv_lab.tasks.base import ModelFactory, OptimizerFactory, SchedulerFactory
from cv_lab.tasks.transfer import Transfer
from cv_lab.training.optimizers import ParameterGroups


class FineTuning(Transfer):
    """Train a new head on a pretrained network, and as many of the network's last stages as asked.

    Args:
        model, classes, loss, optimizer, scheduler: see :class:`~cv_lab.tasks.transfer.Transfer`.
        trained: "head", a number of the backbone's last stages, or "all".
        lr_decay: the last stage trains at the head's learning rate times this, each one below at as much less
            (discriminative learning rates, Howard & Ruder, 2018).
        unfreeze_every: gradual unfreezing: the head trains alone for this number of epochs, and one more stage is
            added after every further such number; None trains all from the start.
        freeze_statistics: BatchNorm layers of the trained stages keep their statistics too, which is safer with
            small batches and little data.
        dropout_below: dropout layers of the frozen part stay active in training.

    Raises:
        ValueError: if there are fewer stages than `trained`, or a value is out of range.
    """

    def __init__(
        self,
        model: ModelFactory,
        classes: Sequence[str],
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        trained: int | str = "head",
        lr_decay: float = 0.5,
        unfreeze_every: int | None = None,
        freeze_statistics: bool = True,
        dropout_below: bool = False,
    ) -> None:
        if isinstance(trained, str) and trained not in ("head", "all"):
            raise ValueError(f"task.trained={trained} is not known: give head, a number of stages, or all")
        if not 0 < lr_decay <= 1:
            raise ValueError(f"task.lr_decay={lr_decay} must be above 0 and at most 1")
        if unfreeze_every is not None and unfreeze_every < 1:
            raise ValueError(f"task.unfreeze_every={unfreeze_every} must be at least 1 epoch, or null")
        super().__init__(
            model,
            classes,
            loss,
            optimizer,
            scheduler,
            trained_stages={"head": 0, "all": -1}.get(trained, trained) if isinstance(trained, str) else trained,
            freeze_statistics=freeze_statistics,
            dropout_below=dropout_below,
        )
        self.lr_decay, self.unfreeze_every = lr_decay, unfreeze_every
        self.unused_parameters = unfreeze_every is not None

    def parameter_groups(self) -> ParameterGroups:
        """One group for the head, and one for each stage that ever trains, from the last down."""
        groups = [list(self.model.head.parameters())]
        groups += [self.model.freezing.parameters(depth) for depth in range(1, self.model.most_trained_stages + 1)]
        return [{"params": group, "lr_ratio": self.lr_decay**depth} for depth, group in enumerate(groups)]

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.unfreeze_every is not None:
            self.model.train_stages(min(self.current_epoch // self.unfreeze_every, self.model.most_trained_stages))
