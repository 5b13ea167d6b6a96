"""The report of made-up studies: what it shows, what it leaves out, that nothing stops it, and what it costs."""

import csv
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from rich.console import Console

from cv_lab import files
from cv_lab.files import read_json, write_csv, write_json
from cv_lab.report import figures
from cv_lab.report.answers import mistakes_table
from cv_lab.report.latex import escaped
from cv_lab.report.page import write_report
from cv_lab.report.sections import sections
from cv_lab.report.summary import StudySummary
from cv_lab.report.tables import results_table
from cv_lab.report.terminal import print_table
from cv_lab.report.terminal import to_grid as terminal_grid
from cv_lab.study.read import read_study
from tests.report.folders import add_predictions, add_test, failed, make_trial

ROOT = Path(__file__).parents[2]


def report(study: Path) -> tuple[str, str, list[str]]:
    """Write the report; its page, its Markdown, its notes."""
    notes = write_report(study).notes
    return (study / "report.html").read_text(), (study / "report.md").read_text(), notes


def grid(study: Path) -> None:
    """Two optimizers and two learning rates with two seeds each; one failed, one running."""
    for optimizer, lr, best in (("adam", 0.01, 0.4), ("adam", 0.001, 0.7), ("sgd", 0.01, 0.65), ("sgd", 0.001, 0.5)):
        for seed in (1, 2):
            values = {"optimizer": optimizer, "lr": lr, "seed": seed}
            make_trial(study, f"lr={lr},optimizer={optimizer},seed={seed}", best + seed / 100, parameters=values)
    values = {"optimizer": "rmsprop", "lr": 0.01}
    make_trial(study, "failing", None, "failed", values, error=failed("the loss is nan at step 7"))
    make_trial(study, "running", None, "running", values | {"seed": 2})


class Tags(HTMLParser):
    """Collects the tags of a page, and checks that they are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_needs_no_other_file(tmp_path: Path) -> None:
    grid(tmp_path)
    add_predictions(tmp_path / "lr=0.001,optimizer=adam,seed=2", [[9, 1], [4, 6]], ["cat", "dog"])
    page, _, notes = report(tmp_path)
    assert notes == []
    tags = Tags(page).seen
    assert not [a for t, a in tags if t == "link" or (t == "script" and a)]
    assert all((a["src"] or "").startswith("data:image/") for t, a in tags if t == "img")
    anchors = {a["id"] for _, a in tags if a.get("id")}
    assert {(a["href"] or "")[1:] for t, a in tags if t == "a"} <= anchors
    assert "<b>dog</b> taken for <b>cat</b>: 40.0 % of its samples (4)" in page


def test_table_marks_the_best_and_tells_why_others_failed(tmp_path: Path) -> None:
    grid(tmp_path)
    page, markdown, _ = report(tmp_path)
    assert "the loss is nan at step 7" in page
    assert "Traceback (most recent call last)" in page
    assert "5 of 5 epochs so far" in page
    assert "**best** 0.001 | adam | 1 | 71.00 %" in markdown
    assert "**best** 0.001 | adam | 2 | 72.00 %" in markdown
    assert markdown.count("**best** 0.001 | adam | 1 |") == 1
    assert "| 0.001 | adam | 71.50 % ± 0.71 |".replace("| 0.001", "**best** 0.001") in markdown


def test_weight_decay_of_the_optimizers_own_is_shown_but_judged_with_its_optimizer(tmp_path: Path) -> None:
    for optimizer, decay, best in (("adam", 0.0, 0.5), ("adamw", 0.01, 0.7)):
        values = {"optimizer": optimizer, "weight_decay": decay}
        folder = make_trial(tmp_path, optimizer, best, parameters=values)
        record = read_json(folder / "trial.json")
        write_json(folder / "trial.json", record | {"overrides": [f"optimizer={optimizer}"]})
    _, markdown, _ = report(tmp_path)
    assert r"| optimizer | weight\_decay | val/accuracy |" in markdown
    assert "**best** adamw | 0.01 | 70.00 % |" in markdown
    assert "Values of weight" not in markdown
    assert not list((tmp_path / "figures").glob("*weight_decay*"))


def test_plain_cross_entropy_stands_beside_a_loss_that_is_another(tmp_path: Path) -> None:
    for rate, entropy in ((0.0, 0.7), (0.1, 0.456)):
        metrics = {"val/loss": 0.7 + rate, "val/cross_entropy": entropy}
        make_trial(tmp_path, f"{rate}", 0.5, parameters={"lr": rate}, metrics=metrics)
    _, markdown, _ = report(tmp_path)
    assert r"| val/loss | val/cross\_entropy |" in markdown
    assert "| 0.8 | 0.456 |" in markdown


def test_csv_holds_every_trial_with_its_parameters_and_figures(tmp_path: Path) -> None:
    grid(tmp_path)
    write_report(tmp_path)
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert rows[0]["optimizer"] == "adam"
    assert float(rows[0]["best"]) == pytest.approx(0.72)
    assert float(rows[0]["test/accuracy"]) == pytest.approx(0.71)
    assert {row["status"] for row in rows} == {"completed", "failed", "running"}
    assert [row["error"] for row in rows if row["status"] == "failed"] == ["the loss is nan at step 7."]


def test_same_folder_gives_the_same_report(tmp_path: Path) -> None:
    grid(tmp_path)
    first, second = report(tmp_path), report(tmp_path)
    assert first == second


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ([{"optimizer": o, "lr": lr} for o in ("adam", "sgd") for lr in (0.1, 0.01)], "heat_map_optimizer_x_lr"),
        ([{"lr": lr} for lr in (0.1, 0.01, 0.001)], "by_lr"),
        ([{"model": model} for model in ("a", "b", "c")], "by_model"),
    ],
)
def test_chart_suits_what_was_varied(tmp_path: Path, parameters: list[dict], expected: str) -> None:
    for i, values in enumerate(parameters):
        make_trial(tmp_path, f"t{i}", 0.3 + i / 10, parameters=values)
    _, markdown, _ = report(tmp_path)
    assert (tmp_path / "figures" / f"1_classification_{expected}.svg").exists()
    assert f"figures/1_classification_{expected}.svg" in markdown


def test_learning_rates_stand_on_a_logarithmic_axis(tmp_path: Path) -> None:
    for i in range(1, 5):
        make_trial(tmp_path, f"t{i}", 0.1 * i, parameters={"lr": 10.0**-i})
    write_report(tmp_path)
    picture = (tmp_path / "figures" / "1_classification_by_lr.svg").read_text()
    places = sorted(float(x) for x in re.findall(r'<circle cx="([\d.]+)"', picture))
    steps = [b - a for a, b in zip(places[::2], places[2::2], strict=False)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)


def test_many_trials_become_small_multiples(tmp_path: Path) -> None:
    for i in range(30):
        make_trial(tmp_path, f"t{i}", 0.3 + i / 100, parameters={"lr": 0.001 * (i + 1)})
    page, _, _ = report(tmp_path)
    assert "One chart for the best 12 of 30 settings" in page


def test_studies_of_one_trial_and_of_none_finished(tmp_path: Path) -> None:
    make_trial(tmp_path / "one", "only", 0.5)
    make_trial(tmp_path / "none", "first", None, "running", values=[0.1])
    page, _, _ = report(tmp_path / "one")
    assert "The one setting reaches val/accuracy 50.00 %" in page
    assert ">the only trial</td>" in page.replace("</span> ", ">")  # its folder's name, which may be long, says no more
    page, _, _ = report(tmp_path / "none")
    assert "1 of 5 epochs so far" in page


def test_running_trial_whose_process_is_gone_was_killed(tmp_path: Path) -> None:
    folder = make_trial(tmp_path, "a", None, "running")
    record = json.loads((folder / "trial.json").read_text())
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    record |= {"host": socket.gethostname(), "pid": child.pid, "pid_start": 1}
    (folder / "trial.json").write_text(json.dumps(record))
    _, markdown, _ = report(tmp_path)
    assert "1 trial: 1 killed" in markdown


def test_tasks_get_sections_of_their_own(tmp_path: Path) -> None:
    make_trial(tmp_path, "a", 0.5)
    for name, best in (("b", 0.4), ("c", 0.3)):
        values = {"task": "semantic_segmentation", "loss": name}
        iou = {"test/iou/sky": best, "test/iou/road <1>": 0.1}
        make_trial(tmp_path, name, best, parameters=values, monitor="val/mean_iou", metrics=iou)
    make_trial(tmp_path, "d", None, "failed", {"task": "semantic_segmentation"}, error=failed("no mask for 1.png"))
    page, markdown, _ = report(tmp_path)
    assert "classification, judged by val/accuracy" in page
    assert "semantic\\_segmentation, judged by val/mean\\_iou" in markdown
    assert "Highest of 2 settings is loss b: val/mean_iou 40.00 %" in page
    assert "| road \\<1\\> | 10.00 % | 10.00 % |" in markdown
    assert "no mask for 1.png" in page


def test_tables_of_classes_are_shown_whatever_their_figures(tmp_path: Path) -> None:
    folder = make_trial(tmp_path, "a", 0.5, metrics={"test/AP": 0.5})  # which says that it is a share
    write_csv(
        folder / "predictions" / "classes.csv",
        [{"class": "cat", "images": 9, "AP": 0.25}, {"class": "dog", "images": 8, "AP": 0.75}],
    )
    _, markdown, _ = report(tmp_path)
    assert "### AP of each class" in markdown
    assert markdown.index("| cat | 9 | 25.00 % |") < markdown.index("| dog | 8 | 75.00 % |")
    assert "images of each class" not in markdown


def test_cost_counts_the_pass_of_the_features(tmp_path: Path) -> None:
    seconds = {"fit": 10.0, "epochs": [5.0, 5.0], "test": 1.0, "features": 30.0}
    make_trial(tmp_path, "a", 0.5, seconds=10.0)
    folder = make_trial(tmp_path, "b", 0.5, parameters={"lr": 0.1})
    result = json.loads((folder / "result.json").read_text()) | {"seconds": seconds}
    (folder / "result.json").write_text(json.dumps(result))
    _, markdown, _ = report(tmp_path)
    assert "s per 1 % with features" in markdown
    assert "| 0.2 | 0.8 |" in markdown


HOSTILE = "<script>alert(1)</script>|*_`[x](javascript:alert(1))&\"'"


def test_names_and_messages_are_escaped(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "-")
    error = failed(HOSTILE, HOSTILE)
    make_trial(
        tmp_path, name, 0.5, parameters={"optimizer": HOSTILE, HOSTILE: HOSTILE}, metrics={f"test/iou/{HOSTILE}": 0.5}
    )
    make_trial(tmp_path, "b", 0.4, device=HOSTILE)
    make_trial(tmp_path, "c", None, "failed", {"task": HOSTILE}, error=error)
    make_trial(tmp_path, "..%2f..", 0.3, parameters={"task": "../../escaped"})
    add_predictions(tmp_path / name, [[1, 2], [3, 4]], [HOSTILE, "dog"])
    page, markdown, notes = report(tmp_path)
    assert notes == []
    assert len([tag for tag, _ in Tags(page).seen if tag == "script"]) == 1
    assert "<script>" not in markdown
    assert "[x](java" not in markdown
    for picture in (tmp_path / "figures").iterdir():
        assert "<script>" not in picture.read_text()
    assert not (tmp_path.parent / "escaped").exists()
    words = (tmp_path / "report.tex").read_text()
    assert r"\textless{}script\textgreater{}" in words
    assert "<script>" not in words


def test_names_of_any_bytes(tmp_path: Path) -> None:
    make_trial(tmp_path, os.fsdecode(b"caf\xe9\x01"), 0.5)
    page, _, _ = report(tmp_path)
    assert "caf" in page


def damage(folder: Path, file: str, text: str | None) -> None:
    (folder / file).unlink() if text is None else (folder / file).write_text(text)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("trial.json", '{"schema": 1,', "bad is left out: trial.json is damaged"),
        ("trial.json", "[]", "bad is left out: trial.json is damaged (it holds no JSON object)"),
        ("trial.json", None, "bad is left out: it holds no trial.json"),
        (
            "trial.json",
            '{"schema": 7}',
            "bad is left out: trial.json was written by another version of the lab (schema 7,",
        ),
        ("trial.json", '{"schema": 1}', "bad is left out: trial.json lacks its parameters or its status"),
        ("result.json", "\x00\x01", "bad is shown without its figures: result.json is damaged"),
        (
            "result.json",
            '{"schema": 7}',
            "bad is shown without its figures: result.json was written by another version",
        ),
        ("result.json", '{"schema": 1}', "bad is shown without its figures: result.json lacks its monitor"),
        ("result.json", None, "bad is completed, but has no result.json"),
        ("metrics.csv", "epoch,val/loss\n1,2,3\n", "bad is shown without its curves: metrics.csv is damaged"),
        ("metrics.csv", "epoch,val/loss\n1,x\n", "bad is shown without its curves: metrics.csv is damaged (could not"),
        ("predictions/gallery.png", "no picture", "gallery.png of bad is left out"),
        ("predictions/confusion_matrix.csv", "truth,cat\ncat,many\n", "bad is shown without its confusion matrix"),
        ("predictions/confusion_matrix.csv", "truth,cat\ndog,1\n", "bad is shown without its confusion matrix"),
        ("predictions/iou.csv", "class,iou\ncat,\x00\n", "bad is shown without iou.csv"),
    ],
)
def test_damaged_files_are_told_and_left_out(tmp_path: Path, file: str, text: str | None, told: str) -> None:
    make_trial(tmp_path, "good", 0.5)
    bad = make_trial(tmp_path, "bad", 0.6, parameters={"lr": 0.1})
    add_predictions(bad, [[1, 2], [3, 4]], ["cat", "dog"])
    damage(bad, file, text)
    page, markdown, notes = report(tmp_path)
    assert [note for note in notes if note.startswith(told)]
    assert "50.00 %" in page
    assert "Nothing: all trials" not in page
    assert "Nothing: all trials" not in markdown


def test_unexpected_values_inside_good_json_leave_the_rest_standing(tmp_path: Path) -> None:
    make_trial(tmp_path, "good", 0.5)
    values = {"lr": [1, {"a": None}], "seed": None}
    odd = make_trial(tmp_path, "odd", 0.6, parameters=values, metrics={"test/x/y": float("nan")})
    result = json.loads((odd / "result.json").read_text())
    result |= {"findings": [None, {"kind": 3}], "flops_per_image": "?", "parameters": None}
    result["seconds"]["epochs"] = "x"
    (odd / "result.json").write_text(json.dumps(result))
    page, _, _ = report(tmp_path)
    assert "50.00 %" in page
    assert "60.00 %" in page


def test_full_disk_is_told_and_does_not_stop_the_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid(tmp_path)
    report(tmp_path)
    before = (tmp_path / "report.html").read_text()
    make_trial(tmp_path, "new", 0.9)
    # A limit on the size of files is the nearest to a full disk that a test can have without being root.
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, old[1]))
    try:
        written = write_report(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "report.html could not be written: File too large." in written.notes
    assert {"trials.csv", "report.md"} <= {path.name for path in written.files}
    assert (tmp_path / "report.html").read_text() == before  # the old one is whole
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_text", full)
    assert "trials.csv could not be written: No space left on device." in write_report(tmp_path).notes


@pytest.mark.parametrize("kind", ["absent", "empty", "trial"])
def test_what_is_no_study_is_refused(tmp_path: Path, kind: str) -> None:
    folder = make_trial(tmp_path / "s", "t") if kind == "trial" else tmp_path / kind
    if kind == "empty":
        folder.mkdir()
    with pytest.raises(FileNotFoundError, match="give the folder"):
        write_report(folder)


def test_command_names_what_is_no_study_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cv_lab.report", tmp_path / "absent"]
    answer = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1


def run(study: Path) -> tuple[float, str]:
    """Seconds of processor time that the command takes, and the heavy modules that it imported."""
    code = (
        "import sys, runpy; sys.argv = ['report', sys.argv[1]]; runpy.run_module('cv_lab.report', run_name='__main__');"
        "print({'torch', 'pytorch_lightning', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run([sys.executable, "-c", code, study], cwd=ROOT, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, answer.stdout.splitlines()[-1]


def test_fifty_trials_take_two_seconds_and_nothing_heavy(tmp_path: Path) -> None:
    for i in range(50):
        make_trial(tmp_path, f"t{i}", 0.3 + i / 100, parameters={"lr": 0.001 * (i + 1)})
    spent, heavy = run(tmp_path)
    assert heavy == "set()"
    assert spent < 2


def test_thousand_trials_take_less_than_twenty_seconds(tmp_path: Path) -> None:
    for i in range(1000):
        make_trial(tmp_path, f"t{i}", 0.3 + i / 2000, parameters={"lr": 0.001 * (i + 1), "optimizer": "abc"[i % 3]})
    spent, _ = run(tmp_path)
    assert spent < 20


def test_multirun_ends_with_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid(tmp_path)
    with pytest.raises(SystemExit):  # since a trial failed
        StudySummary().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert {"report.html", "report.md", "trials.csv"} <= {path.name for path in tmp_path.iterdir()}
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    damage(tmp_path / "failing", "trial.json", "{")
    StudySummary().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert "failing is left out" in (tmp_path / "report.md").read_text()


def test_answer_comes_first_and_findings_are_kept_for_programs(tmp_path: Path) -> None:
    grid(tmp_path)
    page, markdown, _ = report(tmp_path)
    assert page.index('<p class="answer">') < page.index("<table") < page.index("<svg")
    found = json.loads((tmp_path / "findings.json").read_text())
    assert found[0]["sentence"].startswith("Highest of 4 settings is ")
    assert found[0].keys() == {"section", "kind", "sentence", "numbers", "test", "trials"}
    assert found[0]["numbers"]["mean"] == pytest.approx(0.715)
    assert all(one["trials"] for one in found)
    assert "Highest of 4 settings is" in markdown


def test_equal_failures_share_one_box(tmp_path: Path) -> None:
    for i in range(60):
        make_trial(tmp_path, f"t{i}", None, "failed", {"lr": float(i)}, error=failed("no such file"))
    page, _, _ = report(tmp_path)
    assert page.count('class="failure"') == 1
    assert "60 trials: no such file." in page


def test_same_figure_has_the_same_value_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, wrong in enumerate((30, 50)):
        folder = make_trial(tmp_path, f"t{i}", 0.7 - i / 10, parameters={"lr": 0.1 * (i + 1)})
        add_test(folder, [0, 1] * 100, range(wrong))
    page, markdown, notes = report(tmp_path)
    print_table(read_study(tmp_path).trials)
    printed = capsys.readouterr().out
    assert notes == []
    for text in (page, printed, markdown.replace("\\", "")):
        assert "85.00 % [80.0, 89.5]" in text  # 170 of 200: about 85 -+ 1.96 * 2.52
        assert "75.00 % [69.0, 81.0]" in text
        assert "50.00 %" in text  # of always answering one class
    with (tmp_path / "trials.csv").open() as file:
        assert [float(row["test/accuracy"]) for row in csv.DictReader(file)] == [0.85, 0.75]


def test_validation_on_the_test_set_is_said_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monitor = {"name": "val/accuracy", "mode": "max", "best": 0.5, "epoch": 5, "validation": "test"}
    make_trial(tmp_path, "a", 0.5, monitor="val/accuracy")
    result = read_json(tmp_path / "a" / "result.json")
    write_json(tmp_path / "a" / "result.json", result | {"monitor": monitor})
    page, markdown, _ = report(tmp_path)
    print_table(read_study(tmp_path).trials)
    for text in (page, markdown, capsys.readouterr().out, (tmp_path / "findings.json").read_text()):
        assert "validated on the test set" in text
    assert "test" in (tmp_path / "trials.csv").read_text().splitlines()[1].split(",")


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        (None, "a is shown without intervals from its images: test.npz is damaged ("),
        ({"truth": [0, 1]}, "test.npz is damaged (it lacks prediction)"),
        ({"truth": [0, 1], "prediction": [0]}, "test.npz is damaged (its arrays have the shapes"),
        ({"truth": [0, -1], "prediction": [0, 0]}, "test.npz is damaged (it holds no counts)"),
        ({"truth": [0, 1], "prediction": [0, 0]}, "gives a test/accuracy of 0.5, result.json says 0.49"),
        ({"truth": np.array([{}, 0]), "prediction": [0, 0]}, "test.npz is damaged (Object arrays cannot be loaded"),
    ],
)
def test_figures_without_an_interval_say_why(tmp_path: Path, arrays: dict | None, told: str) -> None:
    folder = make_trial(tmp_path, "a", 0.5, metrics={"test/accuracy": 0.49})
    if arrays is None:
        (folder / "test.npz").write_bytes(b"PK and more")
    else:
        np.savez(folder / "test.npz", **{name: np.array(values) for name, values in arrays.items()})
    page, _, notes = report(tmp_path)
    assert any(told.replace("gives", "give") in note for note in notes), notes
    assert "49.00 %" in page


def test_intervals_of_segmentation_are_those_of_its_images(tmp_path: Path) -> None:
    folder = make_trial(tmp_path, "a", 0.5, monitor="val/mean_iou", metrics={"test/mean_iou": 0.375})
    # Two classes with intersections over unions of 6 / 12 and 2 / 8, summed over images that all are alike.
    intersection, union = np.tile([3, 1], (2, 1)), np.tile([6, 4], (2, 1))
    np.savez(folder / "test.npz", intersection=intersection, union=union, support=union)
    _, markdown, notes = report(tmp_path)
    assert notes == []
    assert "37.50 %" in markdown
    assert "always “cat” |" in markdown.replace("\\", "")
    assert "| 30.00 % |" in markdown  # 12 of 20 pixels are of the first class, and the other class has an IoU of 0


def test_values_of_different_losses_share_neither_column_nor_axis(tmp_path: Path) -> None:
    for loss, value in (("focal", 0.1), ("cross_entropy", 3.0)):
        metrics = {"val/cross_entropy": value}
        make_trial(tmp_path, loss, 0.5, parameters={"loss": loss}, metrics=metrics, val_loss=[value] * 5)
    page, markdown, _ = report(tmp_path)
    assert "train/loss" not in markdown
    assert r"val/cross\_entropy |" in markdown
    assert page.count("loss, validation, loss focal") == page.count("loss, validation, loss cross_entropy") > 0


def test_best_means_the_best_mean_over_seeds_everywhere(tmp_path: Path) -> None:
    for optimizer, scores in (("steady", (0.60, 0.61)), ("lucky", (0.9, 0.1))):
        for seed, best in enumerate(scores, 1):
            values = {"optimizer": optimizer, "seed": seed}
            make_trial(tmp_path, f"{optimizer}{seed}", best, parameters=values)
            add_predictions(tmp_path / f"{optimizer}{seed}", [[9, 1], [4, 6]], ["cat", "dog"])
    page, markdown, _ = report(tmp_path)
    assert "Highest of 2 settings is optimizer steady" in page
    assert "<summary>optimizer steady, seed 1 (best setting)</summary>" in page
    assert "**best** lucky" not in markdown
    assert markdown.count("**best** optimizer steady") == 2  # in the table of costs


def test_terminal_fits_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid(tmp_path)
    (section,) = sections(read_study(tmp_path).trials, [])
    console = Console(width=80, force_terminal=True, color_system=None)
    console.print(terminal_grid(results_table(section), 80))
    lines = capsys.readouterr().out.splitlines()
    columns = ["lr", "optimizer", "val/accuracy", "test/accuracy", "seeds", "seconds", "s per 1 %"]
    assert re.split(" {2,}", lines[0].strip()) == columns
    assert re.split(" {2,}", lines[1].strip())[2:] == ["71.50 % ± 0.71", "70.50 % ± 0.71", "2", "10", "0.14"]
    assert max(map(len, lines)) <= 80


def test_latex_has_the_table_with_ties_in_bold(tmp_path: Path) -> None:
    for name, scores in (("a_1", (0.70, 0.72, 0.71)), ("b%", (0.69, 0.73, 0.70)), ("c&", (0.30, 0.31, 0.29))):
        for seed, best in enumerate(scores, 1):
            make_trial(tmp_path, f"{name}{seed}", best, parameters={"model": name, "seed": seed})
    write_report(tmp_path)
    words = (tmp_path / "report.tex").read_text()
    rows = [line for line in words.splitlines() if line.endswith(r"\\")]
    assert rows[0] == r"model & val/accuracy & test/accuracy & test/accuracy, 95 \% over seeds & seeds \\"
    assert rows[1].startswith(r"\textbf{a\_1} & \textbf{71.00 \% $\pm$ 1.00} & \textbf{70.00 \% $\pm$ 1.00} & ")
    assert rows[2].startswith(r"\textbf{b\%} & ")
    assert rows[3].startswith(r"c\& & 30.00 \% $\pm$ 1.00 & ")


def test_latex_escapes_every_special_character() -> None:
    assert escaped(r"_%&<#$~^\{}") == (r"\_\%\&\textless{}\#\$\textasciitilde{}\textasciicircum{}\textbackslash{}\{\}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX is installed")
def test_latex_compiles(tmp_path: Path) -> None:
    for i, name in enumerate((r"_%&<#$~^\\{}[x]", "café 北 “q”")):
        make_trial(tmp_path, f"t{i}", 0.5 + i / 10, parameters={"model": name})
    write_report(tmp_path)
    command = ["pdflatex", "-halt-on-error", "-interaction=batchmode", "report.tex"]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0


def test_curves_of_seeds_are_a_mean_with_the_band_of_all_seeds(tmp_path: Path) -> None:
    for seed, values in ((1, [0.1, 0.3, 0.5]), (2, [0.3, 0.5, 0.7, 0.9])):
        for lr in (0.1, 0.01):
            name = f"lr={lr},seed={seed}"
            make_trial(tmp_path, name, max(values), parameters={"lr": lr, "seed": seed}, values=values)
    (section,) = sections(read_study(tmp_path).trials, [])
    mean, rest = figures._curve_of(section, section.settings[0], "val/accuracy")
    assert mean.points == [(1, pytest.approx(0.2)), (2, pytest.approx(0.4)), (3, pytest.approx(0.6))]
    assert mean.band == [(0.1, 0.3), (0.3, 0.5), (0.5, 0.7)]
    assert rest.points == [(3, 0.7), (4, 0.9)]  # the seed that trained longer
    page, _, _ = report(tmp_path)
    assert "mean of 2 seeds" in page
    assert page.count("<polygon") == 2 * 4


def test_study_of_failures_alone_has_a_page_without_notes(tmp_path: Path) -> None:
    for i in range(60):
        make_trial(tmp_path, f"lr={i}", None, "failed", {"lr": i}, error=failed("loss is nan"))
    page, _, notes = report(tmp_path)
    assert notes == []
    assert page.count('<details class="failure">') == 1


@pytest.mark.parametrize(
    ("task", "arrays", "told"),
    [
        (
            "multilabel",
            {
                "labels": np.array([[1, 0], [1, 1]]),
                "probabilities": np.array([[0.9, 0.2], [0.1, 0.6]], np.float32),
                "loss": np.array([0.1, 2.0], np.float32),
            },
            ["b.png", "cat, dog", "dog", "2"],
        ),
        (
            "instance_segmentation",
            {"objects": np.array([1, 3]), "found": np.array([1, 2]), "quality": np.array([0.9, 0.25], np.float32)},
            ["b.png", "3", "2", "25.00 %"],
        ),
        (
            "semantic_segmentation",
            {
                "intersection": np.array([[4, 4], [1, 0]]),
                "union": np.array([[4, 4], [4, 3]]),
                "support": np.array([[4, 4], [4, 0]]),
            },
            ["b.png", "12.50 %", "dog (0.00 %)"],
        ),
    ],
)
def test_worst_images_of_every_task_are_named(
    tmp_path: Path, task: str, arrays: dict[str, np.ndarray], told: list[str]
) -> None:
    folder = make_trial(tmp_path, "a", 0.5, parameters={"task": task}, monitor="val/mAP")
    np.savez(folder / "test.npz", index=np.arange(2), files=np.array(["a.png", "b.png"]), **arrays)
    notes: list[str] = []
    (section,) = sections(read_study(tmp_path).trials, notes)
    table = mistakes_table(section)
    assert notes == []
    assert table is not None
    assert [cell.text for cell in table.rows[0]] == told
    assert report(tmp_path)[2] == []
