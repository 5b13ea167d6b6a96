"""A feature pyramid over any classifier: its features at several strides, with as many channels each."""

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from cv_lab.labels import first_line
from cv_lab.models.freezing import Freezing
from cv_lab.models.meta import copy_to_meta

PROBE_SIZE = 256  # side in pixels of the image with which strides are measured
# Left whole by the tracer. Within a traced function the mode of the whole network would decide for frozen stages too.
LEAVES = {"leaf_modules": [torchvision.ops.StochasticDepth]}


class PartlyFrozen(nn.Module):
    """A network that computes features at several strides; only its last stages train.

    Args:
        body: maps images to features by name, "0", "1", ...
        trained_stages: number of its last stages that train; -1 trains all.
        freeze_statistics: BatchNorm layers of trained stages keep their statistics too.

    Raises:
        ValueError: if the network has fewer stages.
    """

    def __init__(self, body: nn.Module, trained_stages: int = -1, freeze_statistics: bool = False) -> None:
        super().__init__()
        self.body = body
        self.freezing = Freezing(body, trained_stages, freeze_statistics)
        self.train(self.training)

    def train(self, mode: bool = True) -> "PartlyFrozen":
        super().train(mode)
        self.freezing.set_mode(mode)
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.body(images)


class TimmFeatures(PartlyFrozen):
    """A network of timm that computes the features which timm's ``features_only=True`` takes.

    The layers behind them are removed. Parameters keep the names that they have in the classifier, unlike those of a
    network created with ``features_only=True``, so weights load by name.

    Args:
        body: the classifier; its layers are removed in place.
        levels: index of the features of each level in the classifier's `feature_info`.
        trained_stages, freeze_statistics: see :class:`PartlyFrozen`.
    """

    def __init__(
        self, body: nn.Module, levels: Sequence[int], trained_stages: int = -1, freeze_statistics: bool = False
    ) -> None:
        levels = body.prune_intermediate_layers(list(levels), prune_norm=True)  # type: ignore[operator]
        super().__init__(body, trained_stages, freeze_statistics)
        self.levels = levels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body.forward_intermediates(  # type: ignore[operator]
            images, indices=self.levels, output_fmt="NCHW", intermediates_only=True
        )
        return {str(level): value for level, value in enumerate(features)}


class PyramidBackbone(nn.Module):
    """A feature pyramid (Lin et al., 2017) over a classifier.

    Maps float (N, 3, H, W) to float (N, `channels`, H / s, W / s) under "0", "1", ... for each stride s, and under
    "pool" for twice the largest.

    Args:
        classifier: a network of timm, or any network that torch.fx can trace.
        strides: of the features, ascending.
        channels: of each level.
        trained_stages, freeze_statistics: see :class:`PartlyFrozen`.

    Raises:
        ValueError: if the classifier cannot be traced, or has no features of such a stride.
    """

    def __init__(
        self,
        classifier: nn.Module,
        strides: Sequence[int] = (4, 8, 16, 32),
        channels: int = 64,
        trained_stages: int = -1,
        freeze_statistics: bool = False,
    ) -> None:
        super().__init__()
        of_timm = hasattr(classifier, "forward_intermediates")
        available = _timm_features(classifier) if of_timm else _traced_features(classifier)
        if missing := [stride for stride in strides if stride not in available]:
            raise ValueError(
                f"{type(classifier).__name__} has no features of stride {', '.join(map(str, missing))}: give "
                f"model.strides out of {sorted(available)}"
            )
        taken, widths = zip(*(available[stride] for stride in strides), strict=True)
        self.body: PartlyFrozen
        if of_timm:
            self.body = TimmFeatures(classifier, taken, trained_stages, freeze_statistics)
        else:
            names = {name: str(level) for level, name in enumerate(taken)}
            body = create_feature_extractor(classifier, names, tracer_kwargs=LEAVES, suppress_diff_warning=True)
            self.body = PartlyFrozen(body, trained_stages, freeze_statistics)
        self.fpn = FeaturePyramidNetwork(list(widths), channels, LastLevelMaxPool(), norm_layer=nn.BatchNorm2d)
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.fpn(self.body(images))


def _timm_features(classifier: nn.Module) -> dict[int, tuple[int, int]]:
    """For each stride, the index of the last features of that stride and their number of channels."""
    levels = enumerate(classifier.feature_info)  # type: ignore[arg-type]
    return {info["reduction"]: (index, info["num_chs"]) for index, info in levels}


def _traced_features(classifier: nn.Module) -> dict[int, tuple[str, int]]:
    """For each stride, the last node of the network's graph with features of that stride and their channels."""
    network = copy_to_meta(classifier)
    try:
        training, inference = get_graph_node_names(network, tracer_kwargs=LEAVES, suppress_diff_warning=True)
        names = [name for name in inference if name in training]
        every = create_feature_extractor(network, names, tracer_kwargs=LEAVES, suppress_diff_warning=True).eval()
        with torch.inference_mode():
            outputs = every(torch.empty(1, 3, PROBE_SIZE, PROBE_SIZE, device="meta"))
    except Exception as error:  # the tracer fails in many ways, deep inside
        raise ValueError(
            f"{type(classifier).__name__} cannot be cut into features ({first_line(error)}): give another backbone, "
            "such as model@model.backbone=timm model.backbone.name=resnet18"
        ) from error
    available = {}
    for name, value in outputs.items():
        if isinstance(value, Tensor) and value.ndim == 4 and value.shape[2] == value.shape[3] > 1:
            stride, rest = divmod(PROBE_SIZE, value.shape[2])
            if rest == 0:
                available[stride] = (name, value.shape[1])
    return available
