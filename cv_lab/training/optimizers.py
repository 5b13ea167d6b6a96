"""Optimizers from their configs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hydra.utils import instantiate
from torch.optim import Optimizer

ParameterGroups = Sequence[dict[str, Any]]  # as torch.optim takes them
OptimizerFactory = Callable[[ParameterGroups], Optimizer]


def optimizer_factory(config: Mapping[str, Any]) -> OptimizerFactory:
    """Makes an optimizer from groups of parameters.

    Args:
        config: a partial of an optimizer, without interpolations. Beside the optimizer's own options it may hold
            ``decay_norms: false``: parameters of fewer than two dimensions, which are the biases and the scales of
            normalisation layers, then get no weight decay, as in timm.
    """
    options = dict(config)
    decay_norms = options.pop("decay_norms", True)
    make: OptimizerFactory = instantiate(options)
    return make if decay_norms else partial(_without_norms, make)


def _without_norms(make: OptimizerFactory, groups: ParameterGroups) -> Optimizer:
    """Make the optimizer after splitting each group in two: parameters that decay, then those that do not."""
    parts = []
    for group in groups:
        matrices = [p for p in group["params"] if p.ndim > 1]
        vectors = [p for p in group["params"] if p.ndim <= 1]
        parts += [{**group, "params": matrices}, {**group, "params": vectors, "weight_decay": 0.0}]
    return make([part for part in parts if part["params"]])
