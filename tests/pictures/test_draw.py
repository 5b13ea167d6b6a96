"""Pictures: what they show is checked by their pixels and sizes, how they look by eye."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cv_lab.pictures import charts, draw
from cv_lab.study.confusion import most_confused

ROOT = Path(__file__).parents[2]


def test_palette_is_distinct_and_stable_by_index() -> None:
    colors = draw.palette(256)
    assert colors.shape == (256, 3)
    assert colors.dtype == np.uint8
    assert len(np.unique(colors, axis=0)) == 256
    assert (draw.palette(7) == colors[:7]).all()
    # Relative luminance, 0 for black and 1 for white: visible on both.
    luminance = ((colors[:40] / 255) ** 2.2) @ [0.2126, 0.7152, 0.0722]
    assert luminance.min() > 0.04
    assert luminance.max() < 0.75


def test_palette_of_a_caller_is_the_caller_s_own() -> None:
    draw.palette(3)[:] = 0
    assert draw.palette(3).any()


def test_palette_names_its_limit() -> None:
    with pytest.raises(ValueError, match="256"):
        draw.palette(257)


def photo(height: int = 40, width: int = 60) -> draw.Pixels:
    return np.full((height, width, 3), (10, 20, 200), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(8, 8), (32, 32, 3), (300, 200, 3), (200, 500)])
def test_tiles_of_one_size_are_equally_large(shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, dtype=np.uint8)
    long = "a very long name that cannot possibly fit"
    wrong = draw.classification_tile(image, long, long + "!", 0.5)
    right = draw.classification_tile(image, "cat", "cat", 1.0)
    assert wrong.size == right.size


def test_tile_shows_image_border_and_mark() -> None:
    right = np.asarray(draw.classification_tile(photo(), "cat", "cat", 0.9, size=64)).astype(int)
    wrong = np.asarray(draw.classification_tile(photo(), "cat", "dog", 0.9, size=64)).astype(int)
    assert tuple(right[34, 34]) == (10, 20, 200)
    assert right[0, 0, 1] > right[0, 0, 0]
    assert wrong[0, 0, 0] > wrong[0, 0, 1]
    # In grey, too, the two captions begin with different marks.
    mark = slice(70, 84), slice(0, 12)
    assert np.abs(right[mark].min(-1) - wrong[mark].min(-1)).max() > 100
    # Only the wrong one names the true class in a second line.
    assert (right[-12:] == 255).all()
    assert not (wrong[-12:] == 255).all()


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (4, 2), (7, 3)])
def test_grid_holds_every_tile(count: int, rows: int) -> None:
    tiles = [Image.new("RGB", (10, 20), (i + 1, 0, 0)) for i in range(count)]
    picture = np.asarray(draw.grid(tiles, columns=3, gap=2))
    columns = min(count, 3)
    assert picture.shape == (rows * 22 + 2, columns * 12 + 2, 3)
    for i in range(count):
        assert (picture == (i + 1, 0, 0)).all(-1).sum() == 200
    assert (picture == 255).all(-1).sum() == picture[..., 0].size - 200 * count


def test_grid_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 tiles"):
        draw.grid([])


@pytest.mark.parametrize("k", [1, 2, 21, 41])
def test_confusion_matrix_of_any_size(k: int) -> None:
    picture = charts.confusion_matrix(np.eye(k, dtype=int) * 5, [f"class {i}" for i in range(k)])
    assert picture.mode == "RGB"
    assert max(picture.size) < 1500


def test_confusion_matrix_row_without_samples_is_grey() -> None:
    grey = (240, 240, 240)
    full, empty = (np.asarray(charts.confusion_matrix(np.diag([4, count]), ["cat", "dog"])) for count in (4, 0))
    assert (full == grey).all(-1).sum() < 100 < 2 * 44 * 44 - 100 < (empty == grey).all(-1).sum()


def test_confusion_matrix_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\).*3 classes"):
        charts.confusion_matrix(np.eye(2, dtype=int), ["a", "b", "c"])


def test_overlay_mixes_and_leaves_ignored_pixels() -> None:
    image = np.full((2, 2, 3), 100, dtype=np.uint8)
    mask = np.array([[0, 1], [255, 1]], dtype=np.uint8)
    colors = np.array([[200, 0, 100], [0, 0, 0]], dtype=np.uint8)
    before = image.copy()
    mixed = draw.overlay(image, mask, colors, alpha=0.25)
    assert mixed.tolist() == [[[125, 75, 100], [75, 75, 75]], [[100, 100, 100], [75, 75, 75]]]
    assert (image == before).all()
    assert (draw.overlay(image[..., 0], mask, colors, alpha=0.25) == mixed).all()


def test_overlay_refuses_what_does_not_fit() -> None:
    colors = draw.palette(2)
    with pytest.raises(ValueError, match="labels 0 to 7"):
        draw.overlay(photo(1, 2), np.array([[0, 7]]), colors)
    with pytest.raises(ValueError, match="does not fit"):
        draw.overlay(photo(1, 2), np.array([[0], [1]]), colors)


def test_legend_wraps_and_shows_every_color() -> None:
    names = [f"class {i}" for i in range(12)]
    colors = draw.palette(12)
    wide, narrow = (draw.legend(names, colors, width) for width in (2000, 200))
    assert wide.width > narrow.width
    assert narrow.width <= 200
    assert narrow.height > wide.height
    for color in colors:
        assert (np.asarray(narrow) == color).all(-1).sum() > 100
    with pytest.raises(ValueError, match="12 classes"):
        draw.legend(names, colors[:3])


def test_bar_chart_draws_absent_classes_without_a_bar() -> None:
    def blue(values: list[float]) -> int:
        picture = np.asarray(charts.bar_chart(values, ["cat", "dog"], "IoU", "%"))
        return int((picture == (0, 114, 178)).all(-1).sum())

    assert blue([50.0, 50.0]) == pytest.approx(2 * blue([50.0, np.nan]), rel=0.02)
    with pytest.raises(ValueError, match="2 names"):
        charts.bar_chart([1.0], ["cat", "dog"], "IoU", "%")


def test_curves_of_one_class_are_not_covered_by_their_mean() -> None:
    def drawn(classes: int, color: tuple[int, int, int]) -> int:
        picture = np.asarray(charts.precision_recall(np.full((101, classes), 0.5), ["cat", "dog"][:classes], "Masks"))
        return int((picture == color).all(-1).sum())

    curve = drawn(1, (0, 114, 178))
    assert curve > 3 * drawn(2, (0, 114, 178)) > 0  # of which the legend alone is left, below the mean
    assert drawn(2, (0, 0, 0)) > 2 * drawn(1, (0, 0, 0))


def test_matplotlib_and_torch_are_not_imported_for_charts() -> None:
    code = "import sys, cv_lab.pictures.charts as c; c.bar_chart([1], ['a'], '', '%')\n"
    code += "sys.exit(bool({'matplotlib', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_most_confused_is_sorted_and_off_diagonal() -> None:
    matrix = np.array([[9, 2, 0], [3, 0, 2], [0, 0, 0]])
    names = ["cat", "dog", "cow"]
    assert most_confused(matrix, names) == [
        ("dog", "cat", 3, 0.6),
        ("dog", "cow", 2, 0.4),
        ("cat", "dog", 2, pytest.approx(2 / 11)),
    ]
    assert len(most_confused(matrix, names, top=1)) == 1
    assert most_confused(np.diag([3, 4]), ["a", "b"]) == []
    with pytest.raises(ValueError, match="3 classes"):
        most_confused(np.diag([3, 4]), names)
