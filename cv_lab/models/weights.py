"""Weights from files: read safely, and fitted with a report of what does not fit."""

import argparse
import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cv_lab.files import check_zip
from cv_lab.models.cut import copy_to_meta

SHOWN = 5  # keys listed of each kind in a message
# Where training scripts put the state dict in what they save. Averaged weights come first, as in timm: they are the
# ones that were published.
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
WRAPPERS = ("_orig_mod.", "module.")  # that torch.compile and data parallelism put in front of names


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a file of ``torch.save`` without running code from it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such file, or holds objects beside tensors and plain values.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    check_zip(Path(path))
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # the arguments of many training scripts
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler stumbles over foreign bytes in any way
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"{path} is not a checkpoint that can be loaded safely, as tensors and plain values alone: {reason}"
        ) from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a safetensors file, a file of ``torch.save``, or a trial's checkpoint (of its network).

    A file of ``torch.save`` may hold it under one of `NESTED`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds no state dict.
    """
    if Path(path).suffix == ".safetensors":
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file of weights {path}")
        try:
            return _unwrapped(load_file(path))
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole file of safetensors: {error}") from error
    saved = read_checkpoint(path)
    if not isinstance(saved, dict):
        raise ValueError(f"{path} holds no state dict, which maps names to tensors, but a {type(saved).__name__}")
    if "state_dict" in saved and "hyper_parameters" in saved:  # a trial's checkpoint: the network of its task
        return _of_trial(saved, path)
    state = next((saved[key] for key in NESTED if isinstance(saved.get(key), dict)), saved)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict, which maps names to tensors")
    return _unwrapped(state)


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the names that the network itself gives, without those of its wrappers."""
    state = {name: value for name, value in state.items() if name != "n_averaged"}  # of torch's averaged models
    while state and (prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in state)), None)):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _of_trial(saved: dict[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The state dict of the network in a trial's checkpoint, as the network was before it was cut."""
    state = {key[6:]: value for key, value in saved["state_dict"].items() if key.startswith("model.")}
    if "backbone_from" in saved:
        raise ValueError(
            f"{path} holds a head alone, trained on the backbone of weights={saved['backbone_from']}: give those"
        )
    if all(key.startswith(("backbone.", "head.")) for key in state):  # heads are replaced anyway
        return {key[9:]: value for key, value in state.items() if key.startswith("backbone.")}
    return state


def start_from(network: nn.Module, state: dict[str, Tensor], heads: Collection[str], source: str) -> None:
    """Load `state` into `network` but for the modules named `heads`, which stay as they are.

    Raises:
        ValueError: if keys are missing, unexpected or of another shape; the message lists them.
    """
    prefixes = tuple(f"{head}." for head in heads)
    kept = {key: value for key, value in network.state_dict().items() if key.startswith(prefixes)}
    fit_state_dict(network, {k: v for k, v in state.items() if not k.startswith(prefixes)} | kept, source)


def keep_head(module: nn.Module, state: dict[str, Tensor], *heads: str) -> dict[str, Tensor]:
    """`state` with the values of `module` in place of those under the prefixes `heads` that have another shape.

    They belong to other classes; a file may also lack them.
    """
    own = module.state_dict()
    kept = {
        key: value
        for key, value in own.items()
        if key.startswith(heads) and (key not in state or state[key].shape != value.shape)
    }
    return state | kept


def weights_hash(module: nn.Module) -> str:
    """A hash of all parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fit_state_dict(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load `state` into `module`, all of it or nothing.

    Modules rename what older versions of them called otherwise. Counters of BatchNorm, which state dicts before
    torch 0.4.1 and those of frozen BatchNorm lack, stay as they are.

    Raises:
        ValueError: if keys are missing, unexpected or of another shape; the message lists them.
    """
    own = module.state_dict()
    state = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")} | state
    shape = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    trial_run = {key: value.to("meta") for key, value in state.items() if own.get(key, value).shape == value.shape}
    try:
        missing, unexpected = copy_to_meta(module).load_state_dict(trial_run, strict=False)
    except RuntimeError as error:  # the shape of what the module renamed
        missing, unexpected, shape = [], [], shape + [line.strip() for line in str(error).splitlines()[1:]]
    problems = {
        "missing": [key for key in missing if key not in state],
        "unexpected": unexpected,
        "of another shape": shape,
    }
    if any(problems.values()):
        told = [
            f"{len(keys)} {kind}: {', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''}"
            for kind, keys in problems.items()
            if keys
        ]
        raise ValueError(f"the weights in {source} do not fit {type(module).__name__}: {'; '.join(told)}")
    module.load_state_dict(state)
