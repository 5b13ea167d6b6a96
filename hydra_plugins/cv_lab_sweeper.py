"""Hydra takes sweepers from this namespace package alone (it has no ``__init__.py``, and must not get one)."""

from cv_lab.study import sweeper


class GridSweeper(sweeper.GridSweeper):
    """See :class:`cv_lab.study.sweeper.GridSweeper`; Hydra finds a class by the module that defines it."""


class SearchSweeper(sweeper.SearchSweeper):
    """See :class:`cv_lab.study.sweeper.SearchSweeper`; Hydra finds a class by the module that defines it."""
