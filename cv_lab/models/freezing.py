"""Freeze the lower stages of a network."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from cv_lab.models.stages import stages


class Freezing:
    """Which stages of a network train.

    Parameters of frozen stages get no gradients, and their modules stay in evaluation mode: ``requires_grad=False``
    alone stops neither BatchNorm from updating its statistics nor dropout, and ``network.train()`` undoes
    ``network.eval()``. The module that holds the network therefore calls :meth:`set_mode` at the end of its own
    ``train``.

    Args:
        network: the network.
        trained_stages: number of its last stages that train, see :func:`~cv_lab.models.stages.stages`; -1 trains all.
        freeze_statistics: BatchNorm layers of trained stages keep their statistics too.
        dropout: dropout layers of frozen stages stay active in training.

    Raises:
        ValueError: if the network has fewer stages.
    """

    def __init__(
        self, network: nn.Module, trained_stages: int = 0, freeze_statistics: bool = False, dropout: bool = False
    ) -> None:
        self.network, self.freeze_statistics, self.dropout = network, freeze_statistics, dropout
        # Parameters that the network itself never trains, such as position embeddings made of sines and cosines.
        self.constant = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        self.stage_of = stages(network)
        self.count = 1 + max(self.stage_of.values())
        self.train_stages(trained_stages)

    def train_stages(self, count: int) -> None:
        """Train the last `count` stages, or all of them with -1.

        Raises:
            ValueError: if there are fewer stages.
        """
        if not -1 <= count <= self.count:
            raise ValueError(
                f"{type(self.network).__name__} has {self.count} stages, so {count} of them cannot train: give 0 to "
                f"{self.count}, or -1 for all"
            )
        self.trained_stages = self.count if count == -1 else count
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name not in self.constant and not self.is_frozen(name.rpartition(".")[0]))

    def is_frozen(self, name: str) -> bool:
        """Whether the module of that name belongs to a frozen stage."""
        return self.stage_of[name] < self.count - self.trained_stages

    def parameters(self, depth: int) -> list[nn.Parameter]:
        """The parameters of the stage at `depth`, counted from the output: 1 is the last stage."""
        names = [name for name, stage in self.stage_of.items() if stage == self.count - depth]
        return [p for name in names for p in self.network.get_submodule(name).parameters(recurse=False)]

    def set_mode(self, training: bool) -> None:
        """Set all modules to training or evaluation mode, but those of frozen stages to evaluation mode."""
        # A traced network has two graphs, one with the functional dropout of training: a frozen one runs the other.
        self.network.train(training and self.trained_stages > 0)
        for name, module in self.network.named_modules():
            if self.is_frozen(name):
                # One by one: a frozen container may hold stages that train.
                module.training = training and self.dropout and isinstance(module, _DropoutNd)
            elif self.freeze_statistics and isinstance(module, _BatchNorm):
                module.training = False
