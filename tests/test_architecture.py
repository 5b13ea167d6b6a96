"""The picture of the rooms shows the imports as they are, and they lead one way."""

import re
import subprocess
import sys

import pytest

from scripts import draw_architecture
from tests.conftest import ROOT


def test_the_picture_shows_todays_imports() -> None:
    titles = re.findall(r"<title>(\w+) imports (\w+)</title>", draw_architecture.PICTURE.read_text())
    assert set(titles) == draw_architecture.arrows(), "draw it anew: python scripts/draw_architecture.py"


def test_no_room_imports_one_that_imports_it() -> None:
    assert draw_architecture.circular(draw_architecture.arrows()) == set()


def test_circles_floors_and_shortcuts_of_a_small_house() -> None:
    house = {("roof", "hall"), ("hall", "cellar"), ("roof", "cellar")}
    assert draw_architecture.circular(house) == set()
    assert draw_architecture.floors(house) == {"roof": 2, "hall": 1, "cellar": 0}
    assert draw_architecture.direct(house) == house - {("roof", "cellar")}
    circle = {("roof", "hall"), ("hall", "cellar"), ("cellar", "hall")}
    assert draw_architecture.circular(circle) == {("cellar", "hall")}
    assert draw_architecture.room_of("cv_lab.tasks.base") == "tasks"
    assert draw_architecture.room_of("cv_lab") is draw_architecture.room_of("torch.nn") is None


@pytest.mark.skipif(sys.platform == "win32", reason="there is no make")
def test_make_alone_lists_its_targets() -> None:
    answer = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [line.split()[1] for line in answer.stdout.splitlines()] == targets
    assert {"train", "test", "help"} <= set(targets)
