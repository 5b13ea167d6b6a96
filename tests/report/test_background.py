"""What a report says beside its results: data, machine, commands, seeds and metrics."""

from pathlib import Path

from cv_lab.files import read_json, write_json
from cv_lab.report.page import write_report
from tests.report.folders import add_predictions, add_test, make_trial


def page_of(study: Path) -> str:
    write_report(study)
    return (study / "report.html").read_text()


def extend(folder: Path, file: str, **fields: object) -> None:
    write_json(folder / file, read_json(folder / file) | fields)


def test_data_names_sizes_classes_and_what_was_dropped(tmp_path: Path) -> None:
    folder = make_trial(tmp_path, "a", images={"train": 1340, "val": 60, "test": 200})
    add_test(folder, [0] * 150 + [1] * 50, [0])
    dropped = {"what": "dropped", "kind": "damaged image files", "count": 3, "examples": ["x<y.png"]}
    extend(folder, "trial.json", problems=[dropped], config={"data.image_size": 48})
    page = page_of(tmp_path)
    for text in ("1,340", "2: cat and dog", "48 pixels", "dropped: 3 damaged image files (such as x&lt;y.png)"):
        assert f"<td>{text}</td>" in page
    assert "cat: 150 (75.0 %)" in page
    assert (tmp_path / "figures" / "1_classification_classes.svg").exists()


def test_environment_shows_values_in_which_trials_differ(tmp_path: Path) -> None:
    for name, torch in (("a", "2.14.1"), ("b", "2.15.0")):
        folder = make_trial(tmp_path, name, parameters={"lr": len(name) + float(torch[:4])})
        extend(folder, "trial.json", versions={"torch": torch}, git_dirty=True)
    page = page_of(tmp_path)
    assert "2.14.1 and 2.15.0" in page
    assert "commit 0123456789abcdef with uncommitted changes" in page


def test_commands_repeat_study_and_trials_and_are_quoted_for_the_shell(tmp_path: Path) -> None:
    extend(make_trial(tmp_path, "a"), "trial.json", overrides=["lr=0.01", "data.root=/a b"])
    config = (
        "hydra:\n  overrides:\n    hydra: [hydra.mode=MULTIRUN, hydra/sweeper=optuna]\n    task: ['lr=1e-2,1e-3']\n"
    )
    (tmp_path / "multirun.yaml").write_text(config)
    page = page_of(tmp_path)
    assert "python train.py lr=0.01 &#39;data.root=/a b&#39;</code>" in page
    assert "python train.py -m lr=1e-2,1e-3 hydra/sweeper=optuna</code>" in page


def test_damaged_multirun_file_costs_the_command_alone(tmp_path: Path) -> None:
    make_trial(tmp_path, "a")
    for content in ("hydra: [", "3", "hydra: {overrides: null}"):
        (tmp_path / "multirun.yaml").write_text(content)
        page = page_of(tmp_path)
        assert "The study was run by" not in page
        assert "Results" in page


def test_seed_holds_out_nothing_where_the_test_set_validates(tmp_path: Path) -> None:
    make_trial(tmp_path / "own", "a")
    assert "which images are held out" in page_of(tmp_path / "own")
    monitor = {"name": "val/accuracy", "mode": "max", "best": 0.5, "epoch": 5, "validation": "test"}
    make_trial(tmp_path / "test", "a")
    extend(tmp_path / "test" / "a", "result.json", monitor=monitor)
    page = page_of(tmp_path / "test")
    assert "which images are held out" not in page
    assert "<td>the test images</td>" in page


def test_only_metrics_of_the_trials_are_explained(tmp_path: Path) -> None:
    make_trial(tmp_path, "a", metrics={"test/f1": 0.3})
    page = page_of(tmp_path)
    assert "<dt>f1</dt>" in page
    assert "<dt>mean_iou</dt>" not in page


def test_latex_has_the_methods_and_markdown_the_pictures(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        folder = make_trial(
            tmp_path, f"lr={lr} (a)", lr, parameters={"lr": lr}, images={"train": 9, "val": 5, "test": 7}
        )
        add_predictions(folder, [[9, 1], [4, 6]], ["cat", "dog"])
    write_report(tmp_path)
    latex = (tmp_path / "report.tex").read_text()
    assert "Data set shapes (training images 9; validation images 5; test images 7; classes 2: cat and dog)." in latex
    assert "Varied were lr. The epoch of each trial was chosen by val/accuracy" in latex
    assert "](lr%3D0.2%20%28a%29/predictions/gallery.png)" in (tmp_path / "report.md").read_text()
