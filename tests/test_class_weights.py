"""Class weights from counts."""

import numpy as np
import pytest

from cv_lab.class_weights import SCHEMES, class_weights

CLASSES = ("background", "cat", "dog")


def test_median_and_inverse_frequency_are_their_formulas() -> None:
    counts = np.array([700, 200, 100])
    assert class_weights("median_frequency", counts, CLASSES) == pytest.approx([200 / 700, 1, 2])
    inverse = class_weights("inverse_frequency", counts, CLASSES)
    assert inverse.mean() == pytest.approx(1)
    assert inverse[2] / inverse[0] == pytest.approx(7)


def test_effective_number_is_its_formula_and_milder_than_inverse_frequency() -> None:
    counts = np.array([700, 200, 100])
    weights = class_weights("effective_number", counts, CLASSES)
    beta = 1 - 1 / 200
    expected = (1 - beta) / (1 - beta**counts)
    assert weights == pytest.approx(expected / expected.mean())
    inverse = class_weights("inverse_frequency", counts, CLASSES)
    assert weights[2] / weights[0] < inverse[2] / inverse[0]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("counts", [[10**9, 5, 0], [0, 0, 0], [1, 1, 1], [4, 0, 0]])
def test_weights_stay_finite_for_classes_that_never_occur(scheme: str, counts: list[int]) -> None:
    weights = class_weights(scheme, np.array(counts), CLASSES)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()
    assert all(weight == 1 for weight, count in zip(weights, counts, strict=True) if count == 0)


def test_given_weights_leave_the_others_at_one() -> None:
    assert class_weights({"background": 0.1}, np.zeros(3, int), CLASSES).tolist() == [0.1, 1, 1]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("balanced", "median_frequency"),
        ({"bird": 1.0}, "bird"),
        ({"cat": -1.0}, "cat: -1"),
        ({"cat": np.inf}, "finite"),
    ],
)
def test_unknown_and_impossible_weights_are_refused(spec: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        class_weights(spec, np.array([1, 2, 3]), CLASSES)  # type: ignore[arg-type]
