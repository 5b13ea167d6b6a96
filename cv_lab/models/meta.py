"""Run a network without data, to learn the shapes and the cost of what it computes."""

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cv_lab.labels import first_line


def copy_to_meta(module: nn.Module) -> nn.Module:
    """A copy of `module` on the meta device, in evaluation mode."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in module.parameters()}
    memo |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return copy.deepcopy(module, memo).eval()  # deepcopy takes entries of memo as copied already, so it copies no data


def flops(module: nn.Module, size: tuple[int, ...]) -> int:
    """Floating-point operations of a forward pass; a multiplication and an addition count as two.

    Args:
        module: a network, or a part of one.
        size: shape of its input: images (N, 3, H, W), or features (N, D).

    Raises:
        ValueError: if the module takes no input of that size.
    """
    try:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            copy_to_meta(module)(torch.empty(size, dtype=next(module.parameters()).dtype, device="meta"))
    except Exception as error:  # networks fail in their own ways, deep inside
        raise ValueError(
            f"the network takes no images of {' x '.join(map(str, size[2:]))} pixels ({first_line(error)}): they may "
            "be too small for it, or of another size than it was made for. Give another size with model.image_size=N "
            "for a network of torchvision or timm"
        ) from error
    return int(counter.get_total_flops())
