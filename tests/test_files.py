"""Files are whole or not there."""

import math
from pathlib import Path

import pytest

from cv_lab.files import read_json, replacing, write_csv, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def fill_the_disk() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill_the_disk()
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_null_for_what_is_no_number(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": math.nan, "y": [math.inf, 1.5], "z": (1,)})
    assert read_json(tmp_path / "a.json") == {"x": None, "y": [None, 1.5], "z": [1]}


def test_csv_takes_rows_of_different_keys(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"a": 1}, {"a": 2, "b": 'say "x, y"'}])
    assert (tmp_path / "a.csv").read_text() == 'a,b\n1,\n2,"say ""x, y"""\n'
