"""Reports of simulated studies claim little that is not so, and find what is."""

import numpy as np
import pytest

from scripts.benchmarks.false_findings import NOTHING, SOMETHING, ahead_on_images, claimed


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ["a grid of 3 x 3 equal settings", "two equal settings, with 50 validation images"])
def test_studies_without_effect_have_few_claims(name: str, seeds: int) -> None:
    cells, shared, images = NOTHING[name]
    assert max(claimed(cells, seeds, 100, shared, images).values()) <= 0.09  # 5 % and two standard errors


def test_equal_networks_are_seldom_called_ahead() -> None:
    assert ahead_on_images(60) <= 0.11


@pytest.mark.parametrize(("kind", "cells"), SOMETHING.values())
def test_effects_of_one_deviation_are_found_with_twenty_seeds(kind: str, cells: np.ndarray) -> None:
    assert claimed(cells, 20, 50)[kind] >= 0.75  # 80 % and a standard error
