"""Divide a network into stages, so that the last ones can train while the others are frozen."""

import re

from torch import nn


def stages(network: nn.Module) -> dict[str, int]:
    """Divide a network into stages, from 0 at the images upwards.

    A stage is a module with a number in its name (``layer4``, ``features.7``, ``blocks.11``) and with weights. Modules
    without a number, and layers of normalisation, dropout and activation, belong to the stage before them. Single
    layers behind the last block of several layers, such as a last convolution, an attention pooling or the layers of
    its MLP, belong to that block. Where there are no blocks, as in AlexNet and VGG, each
    layer is a stage. Lists of equal length next to each other (``patch_embeds``, ``blocks`` and ``pos_block`` of
    Twins) alternate, so their parts of the same number form one stage.

    Returns:
        The stage of each module by name; "" is the network itself, and counts as stage 0.
    """
    stage, found, numbers = 0, False, {"": 0}
    keys: dict[str, int] = {}
    blocks: set[int] = set()  # stages with several layers of weights
    for name, module in network.named_modules():
        if (key := _numbered(name)) is not None and key not in keys:
            weights = _weights(network.get_submodule(key))
            twin = _twin(network, key) if weights else key
            if twin in keys:
                keys[key] = keys[twin]
            else:
                stage += bool(weights and found)
                keys[key] = stage
            if weights > 1:
                blocks.add(keys[key])
        found = found or next(module.parameters(recurse=False), None) is not None
        numbers[name] = keys[key] if key is not None else stage
    last = max(blocks - {0}, default=stage)
    return {name: min(number, last) for name, number in numbers.items()} | {"": 0}


def _numbered(name: str) -> str | None:
    """`name` up to its first part with a digit."""
    match = re.match(r"(?:[^.\d]+\.)*[^.]*\d[^.]*", name)
    return match.group() if match else None


def _weights(module: nn.Module) -> int:
    """The number of layers with weights in `module`; biases and scales of normalisation do not count."""
    return sum(parameter.ndim > 1 for parameter in module.parameters())


def _twin(network: nn.Module, key: str) -> str:
    """The module that shares its stage with `key`: of the same number, in the first sibling list of the same length."""
    path, _, number = key.rpartition(".")
    if not path or not isinstance(own := network.get_submodule(path), nn.ModuleList):
        return key
    parent = path.rpartition(".")[0]
    for name, sibling in network.get_submodule(parent).named_children():
        if isinstance(sibling, nn.ModuleList) and len(sibling) == len(own) > 1 and _weights(sibling):
            return f"{parent}.{name}.{number}" if parent else f"{name}.{number}"
    return key
