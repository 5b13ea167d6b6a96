"""Detected objects as plain values and as YOLO's labels."""

import numpy as np
from pycocotools import mask as rle

from cv_lab.pictures.objects import outline, plain_mask, yolo_line


def test_outlines_have_the_corners_of_the_largest_piece() -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2:6] = 1
    mask[2, 3] = 0  # a hole
    mask[1, 5] = 0  # a corner is missing
    mask[4:, 6:] = 1  # touches the large piece at a corner alone
    corners = [(2, 1), (5, 1), (5, 2), (6, 2), (6, 4), (2, 4)]
    assert sorted(map(tuple, outline(mask).tolist())) == sorted(corners)
    points = outline(mask)
    following = np.roll(points, -1, 0)
    area = (points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]).sum() / 2
    assert area == 11  # clockwise as seen, and with the hole filled
    assert outline(np.zeros((3, 3), np.uint8)).shape == (0, 2)


def test_lines_of_yolo_hold_shares_of_the_image() -> None:
    row = {"bbox": [10.0, 20.0, 30.0, 40.0]}
    assert yolo_line(row, 3, (100, 200)) == "3 0.125000 0.400000 0.150000 0.400000"
    mask = np.zeros((100, 200), np.uint8)
    empty = {**row, "segmentation": plain_mask(rle.encode(np.asfortranarray(mask)))}
    assert yolo_line(empty, 3, (100, 200)) == yolo_line(row, 3, (100, 200))
    mask[20:60, 10:40] = 1
    number, *values = yolo_line(
        {**row, "segmentation": plain_mask(rle.encode(np.asfortranarray(mask)))}, 0, mask.shape
    ).split()
    assert number == "0"
    points = np.array(values, float).reshape(-1, 2)
    assert sorted(points.tolist()) == [[0.05, 0.2], [0.05, 0.6], [0.2, 0.2], [0.2, 0.6]]
