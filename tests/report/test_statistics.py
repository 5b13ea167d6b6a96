"""Distributions, tests and intervals against published figures, and how often they err on simulated data."""

import math

import numpy as np
import pytest

from cv_lab.report import statistics as s


@pytest.mark.parametrize(  # from the table of Student's t in the NIST/SEMATECH e-Handbook of Statistical Methods
    ("df", "t"), [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (19, 2.093), (100, 1.984)]
)
def test_t_quantiles_are_those_of_the_table(df: int, t: float) -> None:
    assert s.t_quantile(0.975, df) == pytest.approx(t, abs=5e-4)
    assert s.t_p_value(t, df) == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize(("df1", "df2", "f"), [(1, 5, 6.608), (4, 20, 2.866), (2, 10, 4.103), (10, 100, 1.927)])
def test_f_tail_is_that_of_the_table(df1: int, df2: int, f: float) -> None:  # upper 5 %, the same handbook
    assert s.f_p_value(f, df1, df2) == pytest.approx(0.05, abs=1e-4)


def test_holm_gives_the_values_worked_out_by_hand() -> None:
    assert s.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert s.holm([0.6, 0.9]) == [1.0, 1.0]


def test_mcnemar_is_the_binomial_test_of_the_discordant_images() -> None:
    assert s.mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert s.mcnemar(0, 0) == s.mcnemar(3, 3) == 1.0
    assert s.mcnemar(194, 109) == pytest.approx(1.2e-6, rel=0.05)
    assert 0 <= s.mcnemar(40_000, 45_000) < 1e-60


def test_wilson_interval_of_published_examples() -> None:
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3
    assert s.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert s.wilson(0 / 20, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_paired_t_test_of_a_published_example() -> None:
    # Student (1908), Biometrika 6:1-25: additional hours of sleep by two drugs; t = 4.0621, df = 9, p = 0.00283
    first = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    second = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    found = s.compare_seeds(dict(enumerate(first)), dict(enumerate(second)))
    assert found is not None
    assert found.p == pytest.approx(0.00283, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((0.7001, 2.4599), abs=1e-4)
    # The same as independent groups: Welch's t = 1.8608; scipy.stats.t.sf(1.8608, 9) * 2 is 0.0957
    welch = s.compare_seeds(dict(enumerate(first)), dict(enumerate(second, 100)))
    assert welch is not None
    assert welch.p == pytest.approx(0.0957, abs=1e-4)


@pytest.mark.parametrize(("few", "many"), [(2, 3), (2, 20), (3, 20)])
def test_equal_settings_of_unequally_many_seeds_are_told_apart_in_at_most_5_per_cent(few: int, many: int) -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=(1000, few)), random.normal(size=(1000, many))
    found = [s.compare_seeds(dict(enumerate(x)), dict(enumerate(y))) for x, y in zip(a, b, strict=True)]
    assert np.mean([one is not None and one.p < 0.05 for one in found]) < 0.065  # 5 % and two standard errors


def test_differences_that_do_not_vary_are_judged_by_the_number_of_seeds() -> None:
    two = s.compare_seeds({1: 0.7, 2: 0.71}, {1: 0.68, 2: 0.69})
    six = s.compare_seeds(dict.fromkeys(range(6), 0.7), dict.fromkeys(range(6), 0.6))
    assert two is not None
    assert two.p == 0.5
    assert six is not None
    assert six.p == pytest.approx(0.03125)
    assert s.compare_seeds({1: 0.7}, {1: 0.6, 2: 0.6}) is None


def test_seeds_needed_are_those_of_the_tables_of_power() -> None:
    # Cohen (1988), table 2.4.1 for paired differences: d = 0.5 at two-sided .05 and power .80 needs 34; d = 1.0 10
    assert s.seeds_needed(0.5, 1.0) == pytest.approx(34, abs=1)
    assert s.seeds_needed(1.0, 1.0) == pytest.approx(10, abs=1)
    assert s.seeds_needed(0.0, 1.0) is None
    assert s.seeds_needed(0.001, 1.0) is None


def test_effects_of_a_2x2_grid_are_those_of_a_t_test_of_its_contrasts() -> None:
    scores = np.random.default_rng(1).normal(size=(7, 2, 2))
    contrast = scores[:, 0, 0] - scores[:, 0, 1] - scores[:, 1, 0] + scores[:, 1, 1]
    t = contrast.mean() / (contrast.std(ddof=1) / math.sqrt(7))
    assert s.interaction_p_value(scores) == pytest.approx(s.t_p_value(t, 6))
    paired = s.compare_seeds(dict(enumerate(scores[:, 0, 0])), dict(enumerate(scores[:, 0, 1])))
    assert paired is not None
    assert s.effect_p_value(scores[:, 0]) == pytest.approx(paired.p)


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_interactions_of_noise_are_claimed_in_at_most_5_per_cent(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    scale = np.array([[1, 1, 5], [1, 0.2, 1], [1, 1, 1]])  # settings that vary unequally
    p_values = [s.interaction_p_value(scale * random.normal(size=(seeds, 3, 3))) for _ in range(1000)]
    assert np.mean(np.array(p_values) < 0.05) < 0.065  # 5 % and two standard errors


def accuracy(right: np.ndarray) -> s.Scores:
    return s.Scores(right[:, None].astype(np.float32), lambda sums: sums[..., 0] / len(right))


def test_bootstrap_interval_of_an_accuracy_is_nearly_that_of_the_normal_approximation() -> None:
    right = np.arange(2000) < 1198
    low, high = s.bootstrap_interval([accuracy(right)]) or (0, 0)
    assert (low, high) == pytest.approx((0.599 - 0.0215, 0.599 + 0.0215), abs=0.003)
    assert s.bootstrap_interval([accuracy(right)]) == (low, high)  # the same in every report


def test_all_right_is_not_certain() -> None:
    assert s.bootstrap_interval([accuracy(np.ones(18))]) == pytest.approx((0.8241, 1.0), abs=1e-4)


def test_paired_comparison_knows_that_images_are_the_same() -> None:
    a = np.arange(1000) < 600
    b = (np.arange(1000) >= 20) & (np.arange(1000) < 590)  # wrong wherever a is, and in 30 further images
    found = s.compare_images(accuracy(a), accuracy(b), exact=True)
    assert found.difference == pytest.approx(0.03)
    assert found.p == pytest.approx(2 * 0.5**30)
    assert 0.01 < found.low < 0.03 < found.high < 0.045
    bootstrapped = s.compare_images(accuracy(a), accuracy(b), exact=False)
    assert bootstrapped.p < 1e-5
    same = s.compare_images(accuracy(a), accuracy(a), exact=False)
    assert (same.difference, same.p) == (0, 1)
