"""The page of several studies."""

from pathlib import Path

import pytest

from cv_lab.report.__main__ import main
from cv_lab.report.index import studies_in
from tests.report.folders import make_trial


def two(folder: Path) -> None:
    make_trial(folder / "rates & <b>", "t", 0.7)
    make_trial(folder / "masks", "t", 0.4, monitor="val/mean_iou", parameters={"task": "semantic_segmentation"})
    (folder / "cache").mkdir()  # which is no study


def test_folder_of_studies_gets_a_page_of_all(tmp_path: Path) -> None:
    two(tmp_path)
    main([str(tmp_path)])
    page = (tmp_path / "index.html").read_text()
    assert 'href="masks/report.html"' in page
    assert 'href="rates%20%26%20%3Cb%3E/report.html">rates &amp; &lt;b&gt;</a>' in page
    assert "70.00 %" in page
    assert "40.00 %" in page
    assert (tmp_path / "masks" / "report.html").exists()
    assert not (tmp_path / "report.html").exists()
    main([str(tmp_path)])  # its own page is written anew


def test_two_studies_get_one_page_beside_them(tmp_path: Path) -> None:
    two(tmp_path)
    main([str(tmp_path / "masks"), str(tmp_path / "rates & <b>")])
    assert (tmp_path / "index.html").read_text().count("<section") == 2


def test_page_of_others_is_not_overwritten(tmp_path: Path) -> None:
    two(tmp_path)
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(SystemExit, match="is another file"):
        main([str(tmp_path)])
    assert (tmp_path / "index.html").read_text() == "mine"
    main([str(tmp_path), "--out", str(tmp_path / "all.html")])
    assert (tmp_path / "all.html").exists()


def test_study_and_trial_are_no_folders_of_studies(tmp_path: Path) -> None:
    trial = make_trial(tmp_path, "t")
    assert studies_in(tmp_path) == studies_in(trial) == []
    main([str(tmp_path)])
    assert not (tmp_path / "index.html").exists()
