"""Cut a network in two: a backbone, whose last stages may train, and a head of one's own."""

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.flop_counter import FlopCounterMode


class CutNetwork(nn.Module):
    """A network whose head is replaced, frozen up to a cut.

    Below the cut nothing changes: parameters get no gradients, BatchNorm keeps its statistics and dropout is
    inactive, whatever :meth:`train` is told.

    Takes images, float (N, 3, H, W), or the features that :meth:`features` made of them, float (N, D).

    Args:
        network: any classifier; its head is the last linear layer or convolution.
        head: makes the head from D; by default one linear layer of `num_classes` outputs.
        trained_stages: of the backbone's last stages, how many train; -1 are all.
        freeze_statistics: BatchNorm layers keep their statistics above the cut too.
        dropout_below: dropout layers below the cut stay active in training.
    """

    def __init__(
        self,
        network: nn.Module,
        head: Callable[[int], nn.Module],
        trained_stages: int = 0,
        freeze_statistics: bool = True,
        dropout_below: bool = False,
    ) -> None:
        super().__init__()
        self.cut_at, old = head_of(network)
        width = old.in_features if isinstance(old, nn.Linear) else old.in_channels
        network.set_submodule(self.cut_at, nn.Identity())
        self.backbone = network
        self.head = head(width)
        self.width = width
        self.freeze_statistics, self.dropout_below = freeze_statistics, dropout_below
        self.stage_of = stages(network)
        self.stage_count = 1 + max(self.stage_of.values())
        self.train_stages(trained_stages)

    def train_stages(self, count: int) -> None:
        """Let the last `count` stages of the backbone train, or with -1 all.

        Raises:
            ValueError: if there are fewer stages.
        """
        if not -1 <= count <= self.stage_count:
            raise ValueError(
                f"{type(self.backbone).__name__} has {self.stage_count} stages, so {count} of them cannot train: "
                f"give 0 to {self.stage_count}, or -1 for all"
            )
        self.trained_stages = self.stage_count if count == -1 else count
        for name, module in self.backbone.named_modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(not self.is_frozen(name))
        self.train(self.training)

    def is_frozen(self, name: str) -> bool:
        """Whether the backbone's module of that name lies below the cut."""
        return self.stage_of[name] < self.stage_count - self.trained_stages

    def stage_parameters(self, depth: int) -> list[nn.Parameter]:
        """The parameters of the stage at `depth`, counted from the head: 1 is the last stage."""
        names = [name for name, stage in self.stage_of.items() if stage == self.stage_count - depth]
        return [p for name in names for p in self.backbone.get_submodule(name).parameters(recurse=False)]

    def train(self, mode: bool = True) -> "CutNetwork":
        super().train(mode)
        for name, module in self.backbone.named_modules():
            if self.is_frozen(name):
                # Each by itself: a frozen container may hold stages that train.
                module.training = mode and self.dropout_below and isinstance(module, _DropoutNd)
            elif self.freeze_statistics and isinstance(module, _BatchNorm):
                module.training = False
        return self

    def features(self, images: Tensor) -> Tensor:
        """What the head gets of images, float (N, D)."""
        return self.backbone(images)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(inputs if inputs.ndim == 2 else self.features(inputs))


def head_of(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Name and module of a classifier's head: its last linear layer or convolution.

    Raises:
        ValueError: if it has neither, or several heads side by side, as distilled networks do.
    """
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ValueError(f"{type(network).__name__} ends in no linear layer that a head could replace")
    name, head = layers[-1]
    heads = [n for n, m in layers if n.startswith("head") and m.weight.shape == head.weight.shape]
    if name.startswith("head") and len(heads) > 1:
        raise ValueError(
            f"{type(network).__name__} has {len(heads)} heads, {' and '.join(heads)}, and one is to be replaced: give "
            "a network with a single one, such as its version without distillation"
        )
    return name, head


def stages(network: nn.Module) -> dict[str, int]:
    """Divide a network into stages, from 0 at the images upwards.

    A stage is what carries one number in the names of its parameters (``layer4``, ``features.7``, ``blocks.11``) and
    has weights of its own; what has no number, and layers of normalisation, dropout and activation, belong to the
    stage before them.

    Returns:
        The stage of each module by name; "" is the network itself, and counts as stage 0.
    """
    stage, found, numbers = 0, False, {"": 0}
    keys: dict[str, int] = {}
    for name, module in network.named_modules():
        key = _numbered(name)
        if key is not None and key not in keys:
            weighty = any(parameter.ndim > 1 for parameter in network.get_submodule(key).parameters())
            if weighty and found:
                stage += 1
            keys[key] = stage
        found = found or next(module.parameters(recurse=False), None) is not None
        numbers[name] = keys[key] if key is not None else stage
    return numbers | {"": 0}


def _numbered(name: str) -> str | None:
    """`name` up to its first part with a digit."""
    match = re.match(r"(?:[^.\d]+\.)*[^.]*\d[^.]*", name)
    return match.group() if match else None


def copy_to_meta(module: nn.Module) -> nn.Module:
    """A copy without data, in evaluation mode, for questions of shape and cost."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in module.parameters()}
    memo |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return copy.deepcopy(module, memo).eval()  # it takes what stands in memo for copies, so that no data is copied


def flops(module: nn.Module, size: tuple[int, ...]) -> int:
    """Floating-point operations of a forward pass of float `size`; a multiplication and an addition count as two.

    Args:
        module: a network, or a part of one.
        size: of its input: of images (N, 3, H, W), or of features (N, D).

    Raises:
        ValueError: if the module takes no images of that size.
    """
    try:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            copy_to_meta(module)(torch.empty(size, dtype=next(module.parameters()).dtype, device="meta"))
    except Exception as error:  # networks fail in their own ways, deep inside
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"the network takes no images of {' x '.join(map(str, size[2:]))} pixels ({reason}): give it larger ones, "
            "with model.image_size=N for a network of torchvision or timm"
        ) from error
    return int(counter.get_total_flops())
