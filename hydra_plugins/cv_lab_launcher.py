"""Hydra takes launchers from this namespace package alone (it has no ``__init__.py``, and must not get one)."""

from cv_lab.study import launcher


class ProcessLauncher(launcher.ProcessLauncher):
    """See :class:`cv_lab.study.launcher.ProcessLauncher`; Hydra finds a class by the module that defines it."""
