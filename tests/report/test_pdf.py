"""Charts become PDFs that LaTeX can include."""

import base64
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from cv_lab.report.chart import Axis, Key, Series, plot, sheet
from cv_lab.report.page import write_report
from cv_lab.report.pdf import to_pdf
from tests.report.folders import make_trial


def drawn(pdf: str) -> str:
    """The operators of a page."""
    (packed,) = re.findall(r"stream\n(.*)~>", pdf, re.DOTALL)
    return zlib.decompress(base64.a85decode(packed)).decode("cp1252")


def text(words: str, anchor: str) -> str:
    return to_pdf(
        '<svg xmlns="http://www.w3.org/2000/svg" width="200" height="100">'
        f'<text x="100" y="50" text-anchor="{anchor}" font-size="10">{words}</text></svg>'
    )


@pytest.mark.parametrize("anchor", ["start", "middle", "end"])
def test_text_stands_where_its_anchor_says(anchor: str) -> None:
    # Helvetica: A 667, M 833, i 222, parenthesis 333, hyphen 333 and 7 556 thousandths of the size
    width = 10 * (667 + 833 + 222 + 333 + 333 + 556) / 1000
    x = 100 - {"start": 0, "middle": width / 2, "end": width}[anchor]
    assert f"1 0 0 -1 {x:.1f} 50 Tm (AMi\\)-7) Tj" in drawn(text("AMi)-7", anchor))


def test_names_of_any_letters_are_kept_or_marked() -> None:
    assert "(é ± ?)" in drawn(text("é ± 猫", "start"))


@pytest.mark.parametrize(("name", "told"), [("réseau", False), ("сеть", True)])
def test_letters_that_a_pdf_lacks_are_told(name: str, told: bool, tmp_path: Path) -> None:
    for lr in (0.1, 0.01):
        make_trial(tmp_path, f"lr={lr}", 0.5 + lr, parameters={"lr": lr, "model": f"{name}{lr}"})
    report = write_report(tmp_path)
    assert any("*.pdf show “?”" in note for note in report.notes) == told
    assert ("*.pdf show “?”" in (tmp_path / "report.md").read_text()) == told


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no poppler is installed")
def test_a_reader_finds_page_and_words(tmp_path: Path) -> None:
    series = [
        Series([(1, 0.5), (2, 0.7)], "#0072b2", "one", dash="7 3", dots=3, bars=[0.1, 0.1], band=[(0.4, 0.6)] * 2)
    ]
    chart = sheet([plot(series, "loss (a_b 50 % <c>)", Axis("epoch"), Axis(""))], [Key("#0072b2", "lr 0.1", "")])
    (tmp_path / "a.pdf").write_text(to_pdf(chart.svg(standalone=True)))
    read = subprocess.run(["pdftotext", tmp_path / "a.pdf", "-"], check=True, capture_output=True, text=True)
    assert read.stderr == ""
    assert {"loss (a_b 50 % <c>)", "epoch", "lr 0.1"} <= set(read.stdout.split("\n"))
