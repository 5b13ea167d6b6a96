"""Charts as pictures: confusion matrices, bars and curves of each class.

They are drawn with Pillow: importing matplotlib takes most of a second, longer than a short trial.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cv_lab.pictures.draw import palette
from cv_lab.pictures.text import GROUND, INK, PALE_INK, Color, length, rotated, write

PAPER = (240, 240, 240)  # behind what has no samples
BLUE = (0, 114, 178)
RULE = (226, 226, 226)
SIZE = 15  # pixels of a font's height
MARGIN = 16
MAX_LABELLED = 20  # classes whose cells are labelled
MAX_NAMED = 40  # classes that are named beside a matrix
MAX_NAME = 190  # pixels of a class's name
MAX_COLORED = 10  # maximum number of curves with colours of their own
BLUES = np.array(  # ColorBrewer's, from 0 to 1
    (
        *((247, 251, 255), (222, 235, 247), (198, 219, 239), (158, 202, 225), (107, 174, 214)),
        *((66, 146, 198), (33, 113, 181), (8, 81, 156), (8, 48, 107)),
    )
)


def confusion_matrix(matrix: NDArray[np.integer], classes: Sequence[str], title: str | None = None) -> Image.Image:
    """Draw counts as shares of the true class.

    Up to 20 classes the cells are labelled in per cent; up to 40 the classes are named, beyond that numbered. The row
    of a class without samples is grey. Colours go by the square root of the share: among many classes a mistake is a
    few per cent, which nobody sees on an even scale.

    Args:
        matrix: counts, int (K, K); rows are the truth, columns the prediction.
        classes: K names.
        title: above the matrix.

    Raises:
        ValueError: if the matrix does not fit the classes.
    """
    k = len(classes)
    if k == 0 or matrix.shape != (k, k):
        raise ValueError(f"confusion matrix of shape {matrix.shape} does not fit {k} classes")
    samples = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, samples, where=samples > 0, out=np.full((k, k), np.nan))
    cell = 44 if k <= MAX_LABELLED else 24 if k <= MAX_NAMED else max(4, 1000 // k)
    size = SIZE if k <= MAX_LABELLED else SIZE - 2
    every = 1 if k <= MAX_NAMED else 10
    names = {i: classes[i] if k <= MAX_NAMED else str(i) for i in range(0, k, every)}
    room = round(min(MAX_NAME, max(length(name, size) for name in names.values())))
    left, top = MARGIN + 2 * SIZE + room + 8, MARGIN + (2 * SIZE if title else 0)
    side, below = k * cell, round(0.71 * (room + size)) + 2 * SIZE
    height = max(side + below, 10 * SIZE)
    picture = Image.new("RGB", (left + side + 110 + MARGIN, top + height + MARGIN), GROUND)
    draw = ImageDraw.Draw(picture)
    colors = np.where(np.isfinite(shares)[..., None], _blues(shares), PAPER).astype(np.uint8)
    picture.paste(Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST), (left, top))
    for i, name in names.items():
        middle = round((i + 0.5) * cell)
        write(draw, (left - 8, top + middle), name, size, room, anchor="rm")
        mask = rotated(name, size, 45, room)
        picture.paste(INK, (round(left + middle - mask.width + 0.36 * size), top + side + 6), mask)
    if k <= MAX_LABELLED:
        for row, column in np.argwhere(matrix > 0):
            share = shares[row, column]
            place = (left + (column + 0.5) * cell, top + (row + 0.5) * cell)
            label = f"{100 * share:.0f}" if share >= 0.005 else "<1"
            write(draw, place, label, SIZE - 2, color=GROUND if share > 0.3 else INK, anchor="mm")
    if title:
        write(draw, (left + side / 2, MARGIN + SIZE / 2), title, SIZE + 2, anchor="mm")
    write(draw, (left + side / 2, top + side + below - SIZE / 2), "predicted class", SIZE, anchor="mm")
    mask = rotated("true class", SIZE, 90, MAX_NAME)
    picture.paste(INK, (MARGIN, top + max(0, (side - mask.height) // 2)), mask)
    _scale(picture, left + side + 24, top, max(side, 10 * SIZE))
    return picture


def _blues(shares: NDArray[np.floating]) -> NDArray[np.floating]:
    """Colours (..., 3) of shares in 0..1, by their square roots."""
    places = np.sqrt(np.nan_to_num(shares)) * (len(BLUES) - 1)
    return np.stack([np.interp(places, np.arange(len(BLUES)), BLUES[:, i]) for i in range(3)], -1)


def _scale(picture: Image.Image, x: int, top: int, height: int) -> None:
    """A bar of the colours with the shares that they mean."""
    column = _blues(np.linspace(1, 0, height)[:, None] ** 2).round().astype(np.uint8)
    picture.paste(Image.fromarray(column).resize((14, height)), (x, top))
    draw = ImageDraw.Draw(picture)
    for share in (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1):
        write(draw, (x + 20, top + (1 - share**0.5) * (height - 1)), f"{100 * share:.0f} %", SIZE - 2)


def bar_chart(
    values: NDArray[np.floating] | Sequence[float], names: Sequence[str], title: str, unit: str
) -> Image.Image:
    """Draw one horizontal bar per class, with its value at its end.

    Args:
        values: K numbers, in `unit`; NaN, of a class that does not occur, is called absent.
        names: K names, drawn from top to bottom.
        title: above the bars.
        unit: of the values; for "%" the axis ends at 100, else at the largest value.

    Raises:
        ValueError: if there is not one value for each of at least one name.
    """
    numbers = np.asarray(values, dtype=float)
    if numbers.shape != (len(names),) or not names:
        raise ValueError(f"{len(names)} names need as many values, but got {numbers.shape}")
    largest = float(np.nanmax(np.abs(numbers), initial=0))
    end, decimals = (100.0 if unit == "%" else largest or 1.0), 3 if largest <= 1 else 1
    line, width, top = 26, 560, MARGIN + 2 * SIZE
    room = min(MAX_NAME, max(length(name, SIZE) for name in names))
    left, bottom = MARGIN + round(room) + 10, top + line * len(names)
    picture = Image.new("RGB", (left + width + 70, bottom + 2 * SIZE + MARGIN), GROUND)
    draw = ImageDraw.Draw(picture)
    write(draw, (left + width / 2, MARGIN + SIZE / 2), title, SIZE + 2, anchor="mm")
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1):
        x = left + share * width
        draw.line((x, top, x, bottom), fill=RULE)
        label = f"{share * end:.{0 if end > 5 else 2}f}{' ' + unit if share == 1 else ''}"
        write(draw, (x, bottom + SIZE), label, SIZE - 2, color=PALE_INK, anchor="mm")
    for row, (name, value) in enumerate(zip(names, numbers, strict=True)):
        y = top + (row + 0.5) * line
        write(draw, (left - 8, y), name, SIZE, room, anchor="rm")
        exists = bool(np.isfinite(value))
        x = left + round(value / end * width) if exists else left
        if x > left:
            draw.rectangle((left, y - 9, x - 1, y + 8), fill=BLUE)
        label = f"{value:.{decimals}f}" if exists else "absent"
        write(draw, (x + 6, y), label, SIZE - 2, color=INK if exists else PALE_INK)
    return picture


def precision_recall(precision: NDArray[np.floating], names: Sequence[str], title: str) -> Image.Image:
    """Draw curves of precision by recall, the mean of several in black; up to ten classes have colours of their own.

    Args:
        precision: (R, K), in 0..1, at recalls evenly from 0 to 1; NaN for a class without samples.
        names: K names.
        title: above the curves.
    """
    present = np.flatnonzero(np.isfinite(precision).all(0)).tolist()
    lines: list[tuple[NDArray[np.floating], Color, int, str]] = []
    for color, k in zip(palette(min(len(present), 256)).tolist() * 2, present, strict=False):
        few = len(present) <= MAX_COLORED
        lines.append((precision[:, k], tuple(color) if few else (204, 204, 204), 2, names[k] if few else ""))
    if len(present) > 1:
        mean = precision[:, present].mean(1)
        lines.append((mean, (0, 0, 0), 3, f"mean of {len(present)} classes"))
    width, height, left, top = 560, 420, MARGIN + 4 * SIZE, MARGIN + 2 * SIZE
    picture = Image.new("RGB", (left + width + MAX_NAME + 60, top + height + 3 * SIZE + MARGIN), GROUND)
    draw = ImageDraw.Draw(picture)
    write(draw, (left + width / 2, MARGIN + SIZE / 2), title, SIZE + 2, anchor="mm")
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1):
        x, y = left + share * width, top + (1 - share) * height
        draw.line((left, y, left + width, y), fill=RULE)
        write(draw, (left - 8, y), f"{share:.1f}", SIZE - 2, color=PALE_INK, anchor="rm")
        write(draw, (x, top + height + SIZE), f"{share:.1f}", SIZE - 2, color=PALE_INK, anchor="mm")
    write(draw, (left + width / 2, top + height + 2.4 * SIZE), "recall", SIZE, anchor="mm")
    mask = rotated("precision", SIZE, 90, MAX_NAME)
    picture.paste(INK, (MARGIN, top + (height - mask.height) // 2), mask)
    xs = left + np.linspace(0, 1, len(precision)) * width
    named = [line for line in lines if line[3]]
    for values, color, thickness, name in lines:
        ys = top + (1 - values) * height
        if name:
            _curve(picture, xs, ys, color, thickness)
        else:
            draw.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=color)
    for i, (_, color, thickness, name) in enumerate(named):
        y = top + SIZE / 2 + i * 1.5 * SIZE
        draw.line((left + width + 16, y, left + width + 36, y), fill=color, width=thickness + 1)
        write(draw, (left + width + 44, y), name, SIZE - 1, MAX_NAME)
    return picture


def _curve(
    picture: Image.Image, xs: NDArray[np.floating], ys: NDArray[np.floating], color: Color, thickness: int
) -> None:
    """A smooth line: Pillow's own have steps, so it is drawn large and reduced."""
    scale = 2
    left, top = int(xs.min()) - thickness, int(ys.min()) - thickness
    size = (int(xs.max()) - left + 2 * thickness, int(ys.max()) - top + 2 * thickness)
    mask = Image.new("L", (size[0] * scale, size[1] * scale))
    points = np.stack([(xs - left) * scale, (ys - top) * scale], 1)
    ImageDraw.Draw(mask).line([tuple(point) for point in points.tolist()], 255, thickness * scale, joint="curve")
    picture.paste(color, (left, top), mask.resize(size, Image.Resampling.BOX))
