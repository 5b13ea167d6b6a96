"""Which code a checkpoint may name.

A checkpoint loads with ``weights_only=True`` and holds plain values alone, but its config names what is to be built,
and Hydra would call whatever it names: a file from a stranger could run any function that is installed.
"""

import inspect
import pydoc
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any

from torch import nn, optim

# Where classes and functions may be defined, whatever name they are reached by.
PACKAGES = (
    "cv_lab.models",
    "cv_lab.tasks",
    "cv_lab.training",
    "segmentation_models_pytorch",
    "timm",
    "torch.nn",
    "torch.optim",
    "torchvision",
)
BUILT = (nn.Module, optim.Optimizer, optim.lr_scheduler.LRScheduler)


def check_targets(config: Any, trusted: Sequence[str] = ()) -> None:
    """Refuse a config, of nested plain values, that names code which checkpoints need not run.

    Args:
        config: with ``_target_`` in its dictionaries.
        trusted: modules of the user's own whose code may be run too.

    Raises:
        ValueError: if a target is not allowed.
    """
    for target in _targets(config):
        if not _is_allowed(target, trusted):
            raise ValueError(
                f"the checkpoint would run {target}, which is neither of cv_lab nor a network, loss or optimizer of "
                "torch, torchvision, timm or segmentation_models_pytorch. If it is your own code, trust its module: "
                "--trust MODULE, in Python trusted=[MODULE]"
            )


def _targets(config: Any) -> Iterator[Any]:
    if isinstance(config, dict):
        if "_target_" in config:
            yield config["_target_"]
        config = list(config.values())
    if isinstance(config, list | tuple):
        for value in config:
            yield from _targets(value)


def _is_allowed(target: Any, trusted: Sequence[str]) -> bool:
    if not isinstance(target, str) or not _is_in(target, (*PACKAGES, *trusted)):
        return False
    try:
        found = pydoc.locate(target)
    except pydoc.ErrorDuringImport:
        return False
    # By where it is defined: os can be reached as an attribute of most modules.
    home = str(getattr(found, "__module__", ""))
    if _is_in(home, trusted):
        return True
    if inspect.isclass(found):
        return _is_in(home, PACKAGES) and (issubclass(found, BUILT) or home.startswith("cv_lab."))
    return isinstance(found, FunctionType) and (_is_in(home, ("cv_lab.training",)) or _makes_network(found))


def _makes_network(function: FunctionType) -> bool:
    """Whether a function of a library returns a network by its name; others load files or write them."""
    if function.__module__.startswith("torchvision.models."):
        from torchvision.models import list_models

        return function.__name__ in list_models()
    if function.__module__.startswith("timm."):
        import timm

        return function.__name__ == "create_model" or timm.is_model(function.__name__)
    return function.__module__ == "segmentation_models_pytorch" and function.__name__ == "create_model"


def _is_in(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
