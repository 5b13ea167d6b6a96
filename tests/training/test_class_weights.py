"""Class weights from counts."""

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from timm.loss.class_weights import compute_class_weights

from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.voc import Voc
from cv_lab.labels import ClassCounts
from cv_lab.training.class_weights import SCHEMES, class_weights, with_class_weights
from tests.conftest import need

CROSS_ENTROPY = "cv_lab.training.losses.CrossEntropy"
CLASSES = ("background", "cat", "dog")
CAMVID = (
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
)


def one_image(*counts: int) -> ClassCounts:
    """Counts of pixels, all in one image; or of images."""
    return ClassCounts(np.array(counts), np.full(len(counts), sum(counts)))


def test_median_and_inverse_frequency_are_their_formulas() -> None:
    found = one_image(700, 200, 100)
    assert class_weights("median_frequency", found, CLASSES) == pytest.approx([200 / 700, 1, 2])
    inverse = class_weights("inverse_frequency", found, CLASSES)
    assert inverse.mean() == pytest.approx(1)
    assert inverse[2] / inverse[0] == pytest.approx(7)


def test_median_frequency_counts_the_images_that_hold_a_class() -> None:
    """Eigen & Fergus, 2015: the frequency is a share of the pixels of the images where the class is present."""
    masks = torch.zeros(3, 10, 10, dtype=torch.uint8)
    masks[0, :5] = 1  # half of one image
    masks[1, :2], masks[2, :2] = 2, 2  # a fifth of two
    masks[1, 2:4] = 255  # unlabelled pixels belong to their image
    images = InMemoryImages(torch.zeros(3, 3, 10, 10, dtype=torch.uint8), torch.zeros(3).long(), CLASSES, masks=masks)
    found = images.class_counts()
    assert found.counts.tolist() == [50 + 60 + 80, 50, 40]
    assert found.totals.tolist() == [300, 100, 200]
    assert images.to(torch.device("cpu")).class_counts() is found  # counting takes seconds, so it is done once
    # Frequencies 0.633, 0.5 and 0.2, whose median is 0.5.
    expected = [0.5 / (190 / 300), 1, 0.5 / 0.2]
    assert class_weights("median_frequency", found, CLASSES) == pytest.approx(expected)


def test_images_of_one_class_each_count_as_the_pixels_of_one() -> None:
    labels = torch.tensor([0] * 7 + [1] * 2 + [2])
    found = InMemoryImages(torch.zeros(10, 3, 4, 4, dtype=torch.uint8), labels, CLASSES).class_counts()
    assert class_weights("median_frequency", found, CLASSES) == pytest.approx([2 / 7, 1, 2])


def test_median_frequency_gives_the_weights_of_camvid() -> None:
    """By the paper's formula over the 367 training images; the figures are those of the usual 360 x 480 masks."""
    root = need("camvid") / "camvid"
    data = Voc(str(root), classes=CAMVID, download=False, image_size=(360, 480), validation="test")
    data.setup()
    assert data.train is not None
    weights = dict(zip(CAMVID, class_weights("median_frequency", data.train.class_counts(), CAMVID), strict=True))
    assert round(weights["Bicyclist"], 1) == 8.9
    assert round(weights["Fence"], 1) == 2.0
    assert round(weights["Pedestrian"], 1) == 6.4


def test_effective_number_is_its_formula_and_milder_than_inverse_frequency() -> None:
    found = one_image(700, 200, 100)
    weights = class_weights("effective_number", found, CLASSES)
    beta = 1 - 1 / 200
    expected = (1 - beta) / (1 - beta**found.counts)
    assert weights == pytest.approx(expected / expected.mean())
    inverse = class_weights("inverse_frequency", found, CLASSES)
    assert weights[2] / weights[0] < inverse[2] / inverse[0]


@pytest.mark.parametrize("counts", [(700, 200, 100), (5, 4, 1), (100_000, 30, 2)])
@pytest.mark.parametrize("beta", [0.1, 0.9, 0.99, 0.999, 0.9999])
def test_weights_are_those_of_timm(counts: tuple[int, ...], beta: float) -> None:
    _, expected = compute_class_weights(counts, sum(counts), "effective_num", beta=beta)
    weights = class_weights("effective_number", one_image(*counts), CLASSES, beta)
    assert weights == pytest.approx(expected.numpy(), rel=1e-6)
    _, expected = compute_class_weights(counts, sum(counts), "inv_freq")
    assert class_weights("inverse_frequency", one_image(*counts), CLASSES) == pytest.approx(expected.numpy(), rel=1e-6)


def test_a_beta_of_0_weighs_all_classes_alike() -> None:
    assert class_weights("effective_number", one_image(700, 200, 100), CLASSES, 0.0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("counts", [[10**9, 5, 0], [0, 0, 0], [1, 1, 1], [4, 0, 0]])
def test_weights_stay_finite_for_classes_that_never_occur(scheme: str, counts: list[int]) -> None:
    weights = class_weights(scheme, one_image(*counts), CLASSES)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()
    assert all(weight == 1 for weight, count in zip(weights, counts, strict=True) if count == 0)


def test_given_weights_leave_the_others_at_one() -> None:
    assert class_weights({"background": 0.1}, one_image(0, 0, 0), CLASSES).tolist() == [0.1, 1, 1]


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
        class_weights(spec, one_image(1, 2, 3), CLASSES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "beta", "told"),
    [
        ("effective_number", 1.0, "below 1"),
        ("effective_number", -0.1, "at least 0"),
        ("effective_number", float("nan"), "at least 0"),
        ("median_frequency", 0.9, "effective_number"),
        ({"cat": 2.0}, 0.9, "effective_number"),
        (None, 0.9, "effective_number"),
        ("balanced", None, "median_frequency"),
    ],
)
def test_a_loss_refuses_what_has_no_meaning_before_anything_is_counted(spec: object, beta: float, told: str) -> None:
    config = {"_target_": CROSS_ENTROPY, "class_weights": spec, "beta": beta}
    with pytest.raises(ValueError, match=told):
        with_class_weights(config, CLASSES, None)


def test_losses_are_made_with_their_weights_at_any_depth() -> None:
    counted: list[ClassCounts] = []

    def counts() -> ClassCounts:
        counted.append(one_image(700, 200, 100))
        return counted[-1]

    weighted = {"_target_": CROSS_ENTROPY, "class_weights": "median_frequency", "beta": None, "label_smoothing": 0.1}
    plain = {"_target_": CROSS_ENTROPY, "class_weights": None, "beta": None}
    tversky = {"_target_": "cv_lab.training.losses.TverskyLoss", "beta": 0.7}
    total = {
        "_target_": "cv_lab.training.losses.WeightedSum",
        "losses": {"a": weighted, "b": plain, "c": tversky},
        "weights": {"a": 1.0, "b": 1.0, "c": 1.0},
    }
    a, b, c = instantiate(with_class_weights(total, CLASSES, counts)).losses.values()
    assert a.weight.tolist() == pytest.approx([200 / 700, 1, 2])
    assert a.label_smoothing == 0.1
    assert b.weight is None
    assert c.beta == 0.7
    assert len(counted) == 1


def test_torchs_own_loss_gets_weights_too() -> None:
    config = {"_target_": "torch.nn.CrossEntropyLoss", "class_weights": {"cat": 2.0}}
    assert instantiate(with_class_weights(config, CLASSES, lambda: one_image(1, 1, 1))).weight.tolist() == [1, 2, 1]


def test_weights_of_a_checkpoint_have_a_place_to_go() -> None:
    config = {"_target_": CROSS_ENTROPY, "class_weights": "median_frequency", "beta": None}
    loss = instantiate(with_class_weights(config, CLASSES, None))
    loss.load_state_dict({"weight": torch.tensor([1.0, 2.0, 3.0])})
    assert loss.weight.tolist() == [1, 2, 3]
