from typing import Any

import numpy as np
import pytest

from cv_lab.data.splits import balanced_subset, stratified_split

LABELS = np.repeat([0, 1, 2], [100, 50, 10])


def test_split_is_seeded_complete_and_balanced() -> None:
    kept, held_out = stratified_split(LABELS, 0.2, seed=3)
    assert sorted([*kept, *held_out]) == list(range(160))
    assert np.bincount(LABELS[held_out]).tolist() == [20, 10, 2]
    again = stratified_split(LABELS, 0.2, seed=3)[1]
    other = stratified_split(LABELS, 0.2, seed=4)[1]
    assert np.array_equal(held_out, again)
    assert not np.array_equal(held_out, other)


@pytest.mark.parametrize(("amount", "count"), [(16, 16), (0.5, 80), (1.0, 160), (1, 1)])
def test_subset_takes_a_count_or_a_fraction(amount: int | float, count: int) -> None:
    subset = balanced_subset(LABELS, amount, seed=0)
    assert len(subset) == len(set(subset)) == count
    expected = np.bincount(LABELS) * count / 160
    assert np.all(np.abs(np.bincount(LABELS[subset], minlength=3) - expected) <= 1)


def test_every_class_keeps_its_share_to_within_one_sample() -> None:
    random = np.random.default_rng(0)
    for case in range(200):
        sizes = random.integers(1, 60, random.integers(1, 40))
        labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
        count = int(random.integers(1, len(labels) + 1))
        subset = balanced_subset(labels, count, seed=case)
        assert len(np.unique(subset)) == count
        taken = np.bincount(labels[subset], minlength=len(sizes))
        assert np.abs(taken - sizes * count / len(labels)).max() < 1


def test_a_larger_subset_of_equal_shares_contains_a_smaller_one() -> None:
    small, large = balanced_subset(LABELS, 16, seed=5), balanced_subset(LABELS, 80, seed=5)
    assert set(small) < set(large)


def test_which_of_equal_classes_gets_the_odd_sample_is_drawn() -> None:
    labels = np.repeat(np.arange(10), 10)
    chosen = {tuple(np.bincount(labels[balanced_subset(labels, 15, seed)], minlength=10)) for seed in range(20)}
    assert len(chosen) > 10


@pytest.mark.parametrize("amount", [0, -5, 161, 0.0, float("nan"), float("inf"), True, "x", [1], {}])
def test_an_impossible_subset_is_refused(amount: Any) -> None:
    with pytest.raises(ValueError, match="count from 1 to 160"):
        balanced_subset(LABELS, amount, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1, 0.0001])
def test_a_split_that_leaves_a_side_empty_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="val_fraction"):
        stratified_split(LABELS, fraction, seed=0)
