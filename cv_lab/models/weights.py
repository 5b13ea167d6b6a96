"""Read weights from files without running code, and load them with a report of what does not fit."""

import argparse
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cv_lab.data.preprocess import Preprocessing
from cv_lab.files import check_zip
from cv_lab.labels import first_line
from cv_lab.models.meta import copy_to_meta

MAX_KEYS_LISTED = 5  # of each kind, in a message
# Keys under which training scripts save the state dict. Averaged weights come first, as in timm: they are the ones
# that were published.
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
WRAPPERS = ("_orig_mod.", "module.")  # prefixes of names that torch.compile and data parallelism add
NUMPY = (".npz", ".npy")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a file written by ``torch.save`` without running code from it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file was not written by ``torch.save``, or holds more than tensors and plain values.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    check_zip(Path(path))
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # the arguments of many training scripts
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler fails on foreign bytes in any way
        raise ValueError(
            f"{path} is not a checkpoint that can be loaded safely, as tensors and plain values alone: "
            f"{first_line(error)}"
        ) from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict in a safetensors file, a file of ``torch.save``, or a trial's checkpoint (of its network).

    A file of ``torch.save`` may hold it under one of the keys `NESTED`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds no state dict.
    """
    if Path(path).suffix in NUMPY:
        raise ValueError(
            f"{path} holds NumPy arrays, as the JAX networks of big_vision do: their names and layouts differ from "
            "those of PyTorch. Convert it with timm and safetensors: "
            f'save_file(timm.create_model(NAME, checkpoint_path="{path}").state_dict(), "net.safetensors"), and give '
            "weights=net.safetensors"
        )
    if Path(path).suffix == ".safetensors":
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file of weights {path}")
        try:
            return _unwrapped(load_file(path))
        except SafetensorError as error:
            raise ValueError(f"{path} is not a complete safetensors file: {error}") from error
    saved = read_checkpoint(path)
    if not isinstance(saved, dict):
        raise ValueError(f"{path} holds a {type(saved).__name__} and no state dict, which maps names to tensors")
    if "state_dict" in saved and "hyper_parameters" in saved:  # a trial's checkpoint: the network of its task
        return _of_trial(saved, path)
    state = next((saved[key] for key in NESTED if isinstance(saved.get(key), dict)), saved)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict, which maps names to tensors")
    return _unwrapped(state)


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` without the prefixes that wrappers of the network add to its names."""
    state = {name: value for name, value in state.items() if name != "n_averaged"}  # a counter of torch's AveragedModel
    while state and (prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in state)), None)):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _of_trial(saved: dict[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The state dict of the network in a trial's checkpoint, with the names that it has before it is cut."""
    state = {key[6:]: value for key, value in saved["state_dict"].items() if key.startswith("model.")}
    if "backbone_from" in saved:
        raise ValueError(
            f"{path} holds only a head, trained on the backbone of weights={saved['backbone_from']}: give those weights"
        )
    if all(key.startswith(("backbone.", "head.")) for key in state):  # a CutNetwork, whose head is replaced anyway
        return {key[9:]: value for key, value in state.items() if key.startswith("backbone.")}
    return state


def start_from(
    module: nn.Module, state: Mapping[str, Tensor], source: str, heads: Collection[str] = (), fresh: bool = True
) -> None:
    """Load `state` into `module`, all of it but the heads, or nothing.

    Args:
        module: the network.
        state: weights of the same network, perhaps for other classes.
        source: where they come from, for the message.
        heads: names of the modules within `module` that depend on the classes.
        fresh: leave the heads as they are; if false, only those parameters of theirs that `state` lacks or has in
            another shape.

    Raises:
        ValueError: if keys are missing, unexpected or of another shape; the message lists them.
    """
    prefixes = tuple(f"{head}." for head in heads)
    own = {key: value for key, value in module.state_dict().items() if key.startswith(prefixes)}
    if fresh:
        state = {key: value for key, value in state.items() if not key.startswith(prefixes)}
    else:
        own = {key: value for key, value in own.items() if key not in state or state[key].shape != value.shape}
    fit_state_dict(module, {**state, **own}, source)


def saved_preprocessing(path: str | Path) -> Preprocessing | None:
    """What images went through in the trial that wrote the checkpoint `path`; None for any other file of weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be loaded safely.
    """
    if Path(path).suffix in (".safetensors", *NUMPY):
        return None
    saved = read_checkpoint(path)
    about = saved.get("hyper_parameters", {}).get("preprocessing") if isinstance(saved, dict) else None
    return None if about is None else Preprocessing(**about)


def weights_hash(module: nn.Module) -> str:
    """A hash of all parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fit_state_dict(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load `state` into `module`, all of it or nothing.

    torch and timm load all that fits and report the rest in hundreds of lines, or not at all. Parameters that a module
    renames when it loads an older version of itself are accepted. Counters of BatchNorm, which state dicts before torch
    0.4.1 and those of frozen BatchNorm lack, stay as they are.

    Raises:
        ValueError: if keys are missing, unexpected or of another shape; the message lists them.
    """
    own = module.state_dict()
    state = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")} | dict(state)
    shape = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    trial_run = {key: value.to("meta") for key, value in state.items() if own.get(key, value).shape == value.shape}
    try:
        missing, unexpected = copy_to_meta(module).load_state_dict(trial_run, strict=False)
    except RuntimeError as error:  # a parameter that the module renamed has another shape
        missing, unexpected, shape = [], [], shape + [line.strip() for line in str(error).splitlines()[1:]]
    problems = {
        "missing": [key for key in missing if key not in state],
        "unexpected": unexpected,
        "of another shape": shape,
    }
    if any(problems.values()):
        listed = [
            f"{len(keys)} {kind}: {', '.join(keys[:MAX_KEYS_LISTED])}{', ...' if len(keys) > MAX_KEYS_LISTED else ''}"
            for kind, keys in problems.items()
            if keys
        ]
        raise ValueError(f"the weights in {source} do not fit {type(module).__name__}: {'; '.join(listed)}")
    module.load_state_dict(state)
