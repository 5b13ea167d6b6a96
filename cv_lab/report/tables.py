"""The tables of a report, as text with what they are sorted by, and ``trials.csv``."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cv_lab.report.findings import reason
from cv_lab.report.sections import Section, deviation, label, mean, text
from cv_lab.report.wording import clean, figure, seconds, short, spread, whole
from cv_lab.study.trials import Trial, loss_columns, number, seconds_per_percent


@dataclass(frozen=True)
class Cell:
    """A cell's text, and the number that it is sorted by, if any; `shade` in 0..1 tints it, `hint` tells more."""

    text: str
    key: float | None = None
    shade: float | None = None
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: names.
        rows: cells by column.
        best: index of the row to mark, if any.
        caption: below.
    """

    columns: list[str]
    rows: list[list[Cell]]
    best: int | None = None
    caption: str = ""
    numeric: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.columns)
        numbers = [all(cell.key is not None or not cell.text for cell in column) for column in columns]
        object.__setattr__(self, "numeric", numbers)


def trials_table(section: Section) -> Table:
    """All trials, best first: what was varied, how each did, and why it has no figures if it has none."""
    names = [*section.names, *section.implied]
    if any(len(setting.trials) > 1 for setting in section.settings):
        names.append("seed")
    metrics = _metric_columns(section)
    columns = [*names, "status", "best epoch", *metrics, "seconds", "note"]
    rows = []
    for trial in section.trials:
        cells = [_value(trial.parameters.get(name), trial.name) for name in names]
        cells += [Cell(trial.status), _plain(trial.figure("monitor", "epoch"))]
        cells += [Cell(figure(name, value := trial.metric(name)), value) for name in metrics]
        spent = trial.figure("seconds", "fit")
        rows.append([*cells, Cell(seconds(spent), spent), Cell(note(section, trial))])
    if not names:
        columns, rows = (
            ["trial", *columns],
            [
                [Cell(section.label(trial), hint=trial.name), *cells]
                for trial, cells in zip(section.trials, rows, strict=True)
            ],
        )
    return _without_empty(Table(columns, rows, 0 if section.finished else None), keep={"status"})


def settings_table(section: Section) -> Table | None:
    """Mean and standard deviation over seeds of every setting; None where each has one seed."""
    if section.seeds < 2:
        return None
    metrics = _metric_columns(section)
    rows = []
    for setting in section.judged:
        cells = [_value(value) for value in setting.values.values()] or [Cell(setting.label)]
        cells.append(Cell(str(len(setting.scores)), len(setting.scores)))
        for name in (section.monitor, *(name for name in metrics if name != section.monitor)):
            values = [
                value
                for trial in setting.trials
                if (value := trial.best if name == section.monitor else trial.metric(name)) is not None
            ]
            middle = mean(values)
            cells.append(Cell(figure(name, middle) + spread(name, deviation(values)), middle))
        spent = mean([s for trial in setting.trials if (s := trial.figure("seconds", "fit")) is not None])
        rows.append([*cells, Cell(seconds(spent), spent)])
    columns = [*(section.names or ["setting"]), "seeds", section.monitor]
    columns += [*(name for name in metrics if name != section.monitor), "seconds"]
    caption = "Mean ± standard deviation over the seeds, of the best epoch of each trial."
    return _without_empty(Table(columns, rows, 0, caption), keep={"seeds"})


def cost_table(section: Section) -> Table:
    """What every finished trial costs."""
    rows = []
    for trial in section.finished:
        epochs = [n for e in (trial.result or {})["seconds"].get("epochs") or [] if (n := number(e)) is not None]
        extra = trial.figure("seconds", "features")
        figures = (
            (mean(epochs), seconds),
            (trial.figure("seconds", "fit"), seconds),
            (extra, seconds),
            (seconds_per_percent(trial), seconds),
            (None if extra is None else seconds_per_percent(trial, with_shared=True), seconds),
            (trial.figure("images_per_second"), whole),
            (trial.figure("parameters", "trained"), short),
            (trial.figure("parameters", "total"), short),
            (trial.figure("flops_per_image"), short),
            (trial.figure("peak_memory_mb"), whole),
        )
        score = Cell(figure(section.monitor, trial.best), trial.best)
        rows.append([Cell(section.label(trial)), score, *(Cell(write(value), value) for value, write in figures)])
    columns = ["trial", section.monitor, "s per epoch", "s of training", "s of features", "s per 1 %"]
    columns += [
        "s per 1 % with features",
        "images per s",
        "parameters trained",
        "parameters",
        "FLOPs per image",
        "memory in MB",
    ]
    return _without_empty(Table(columns, rows, 0 if rows else None))


def note(section: Section, trial: Trial) -> str:
    """What the table says of a trial beside its figures."""
    if trial.status == "failed":
        return reason(trial)
    if trial.status in ("running", "interrupted", "killed") and trial.epochs:
        last = trial.epochs[-1]
        total = trial.parameters.get("epochs")
        value = last.get(section.monitor)
        so_far = f", {section.monitor} {figure(section.monitor, value)}" if value is not None else ""
        return f"{len(trial.epochs)} of {text(total)} epochs so far{so_far}"
    return "no epoch yet" if trial.status == "running" else ""


def csv_rows(trials: Iterable[Trial]) -> list[dict[str, Any]]:
    """The rows of ``trials.csv``, best first: everything about each trial that is one value."""
    rows = []
    for trial in trials:
        row: dict[str, Any] = {"name": trial.name, "status": trial.status, "identity": trial.record.get("identity")}
        row |= {name: value for name, value in trial.parameters.items() if name not in row}
        if trial.result is not None:
            monitor = trial.result["monitor"]
            row |= {"monitor": monitor["name"], "best": monitor["best"], "best_epoch": monitor.get("epoch")}
            row |= {name: value for name, value in trial.result["metrics"].items() if "/" in name}
            row |= {f"seconds_{name}": trial.figure("seconds", name) for name in ("fit", "features", "test")}
            for name in ("images_per_second", "flops_per_image", "peak_memory_mb"):
                row[name] = trial.figure(name)
            row |= {f"parameters_{name}": trial.figure("parameters", name) for name in ("trained", "total")}
        row |= {name: trial.record.get(name) for name in ("device", "git_commit", "start", "end")}
        row["error"] = reason(trial) if trial.status == "failed" else None
        rows.append({clean(name): clean(v) if isinstance(v, str) else v for name, v in row.items()})
    return rows


def shared(trials: Sequence[Trial]) -> str:
    """The parameters in which all trials agree, in words."""
    first = trials[0].parameters
    same = {n: v for n, v in first.items() if all(str(t.parameters.get(n)) == str(v) for t in trials)}
    return label({name: value for name, value in same.items() if name != "task"})


# Of figures of each class, where their names as metrics are no words.
TITLES = {"iou": "IoU", "mask_ap": "AP of masks", "box_ap": "AP of boxes"}


def per_class_tables(found: dict[str, dict[str, dict[str, float]]]) -> list[tuple[str, Table]]:
    """For each figure a table with a row for each class and a column for each setting.

    The class that does worst in the first setting stands first. What is a count and the same in all settings, such as
    the class's images, becomes a column of every table.

    Args:
        found: values by class, by setting, by name of the figure.
    """
    same = {
        name: next(iter(settings.values()))
        for name, settings in found.items()
        if len({str(sorted(values.items())) for values in settings.values()}) == 1
        and any(value > 1 for values in settings.values() for value in values.values())
    }
    tables = []
    for name, settings in found.items():
        if name in same and len(same) < len(found):
            continue
        first = next(iter(settings.values()))
        classes = list(dict.fromkeys(c for values in settings.values() for c in values))
        classes.sort(key=lambda c: first.get(c, -1.0))
        share = all(0 <= value <= 1 for values in settings.values() for value in values.values())
        extra = {key: values for key, values in same.items() if key != name}
        rows = [
            [
                Cell(c),
                *(Cell(f"{values[c]:,g}" if c in values else "", values.get(c)) for values in extra.values()),
                *(_of_class(values.get(c), share) for values in settings.values()),
            ]
            for c in classes
        ]
        tables.append((TITLES.get(name, name), Table(["class", *extra, *settings], rows)))
    return tables


def _of_class(value: float | None, share: bool) -> Cell:
    if value is None:
        return Cell("")
    return Cell(f"{100 * value:.1f} %", value, shade=value) if share else Cell(f"{value:g}", value)


def _metric_columns(section: Section) -> list[str]:
    wanted = loss_columns(section.trials)
    if section.metric not in ("", "loss"):
        wanted += [f"train/{section.metric}", section.monitor]
    wanted += [f"test/{section.metric}"] if section.metric else []
    return list(dict.fromkeys(wanted))


def _value(value: Any, hint: str = "") -> Cell:
    return Cell(text(value), number(value), hint=hint)


def _plain(value: float | None) -> Cell:
    return Cell("" if value is None else f"{value:g}", value)


def _without_empty(table: Table, keep: Iterable[str] = ()) -> Table:
    """The table without the columns that hold nothing."""
    used = [i for i, name in enumerate(table.columns) if name in keep or any(row[i].text for row in table.rows)]
    rows = [[row[i] for i in used] for row in table.rows]
    return Table([table.columns[i] for i in used], rows, table.best, table.caption)
