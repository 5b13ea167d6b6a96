"""A computer-vision lab in which a study, not a run, is the unit."""

__version__ = "0.1.0"
