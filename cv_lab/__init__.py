"""A computer-vision lab in which a study, not a run, is the unit.

>>> import cv_lab
>>> study = cv_lab.read_study("studies/NAME")  # trials with parameters, results and epochs
>>> predict = cv_lab.load("studies/NAME/TRIAL/checkpoints/best.ckpt")  # a function of images
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cv_lab.study.read import read_study
    from cv_lab.trial.predictor import load

__version__ = "0.1.0"
__all__ = ["load", "read_study"]

_HOMES = {"load": "cv_lab.trial.predictor", "read_study": "cv_lab.study.read"}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: `import cv_lab` alone must stay light."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
