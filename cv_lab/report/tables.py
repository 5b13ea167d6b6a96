"""The tables of a report, as text with what they are sorted by, and ``trials.csv``."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cv_lab.report.claims import baseline_of
from cv_lab.report.sections import Section, Setting, deviation, label, mean, text
from cv_lab.report.statistics import mean_interval
from cv_lab.report.trouble import reason
from cv_lab.report.verdicts import rank
from cv_lab.report.wording import Unit, clean, seconds, short, whole
from cv_lab.study.trials import STOPPED, Trial, number

PER_PERCENT = ("s per 1 %", "s per 1 % with features")


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
        best: indices of the rows to mark.
        caption: below.
        essential: the columns that a narrow terminal shows.
        baselines: further rows below, which are not sorted with the others.
        ties: indices of the rows that equal the best or are not told apart from it.
    """

    columns: list[str]
    rows: list[list[Cell]]
    best: Collection[int] = ()
    caption: str = ""
    essential: Sequence[str] = ()
    baselines: list[list[Cell]] = field(default_factory=list)
    ties: Collection[int] = ()
    numeric: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.columns)
        numbers = [all(cell.key is not None or not cell.text for cell in column) for column in columns]
        object.__setattr__(self, "numeric", numbers)

    def narrow(self) -> "Table":
        """The essential columns alone, and with them the intervals and the number of seeds."""
        wanted = {*self.essential, "seeds"} - {"seconds"}
        kept = [i for i, name in enumerate(self.columns) if name in wanted or name.endswith("over seeds")]
        rows, baselines = ([[row[i] for i in kept] for row in part] for part in (self.rows, self.baselines))
        return replace(self, columns=[self.columns[i] for i in kept], rows=rows, baselines=baselines)


def results_table(section: Section) -> Table:
    """The settings, or the trials where each setting has one seed, the best first, with baselines below."""
    return settings_table(section) or trials_table(section)


def trials_table(section: Section) -> Table:
    """All trials, best setting first: what was varied, how each did, and why it has no figures if it has none."""
    names = [*section.names, *section.implied]
    several = section.seeds > 1
    if len({str(trial.parameters.get("seed")) for trial in section.trials}) > 1:
        names.append("seed")
    first, rest = _metrics(section)
    columns = [*(names or ["trial"]), *first, "seconds", "status", "best epoch", *rest, *PER_PERCENT, "note"]
    rows = []
    for trial in section.trials:
        cells = [_value(trial.parameters.get(name), trial.name) for name in names]
        cells = cells or [Cell(section.label(trial), hint=trial.name)]
        spent = trial.figure("seconds", "fit")
        figures = {name: _figure(section, name, trial.metric(name)) for name in (*first, *rest)}
        figures |= _with_interval(section, [trial] if trial.best is not None else [], figures)
        cells += [figures[name] for name in first]
        cells += [Cell(seconds(spent), spent), Cell(trial.status), _plain(trial.figure("monitor", "epoch"))]
        cells += [figures[name] for name in rest]
        rows.append([*cells, *_per_percent(section, [trial]), Cell(note(section, trial))])
    best = range(len(section.judged[0].finished)) if section.judged else ()
    essential = [*(names or ["trial"]), *first, "seconds"]
    baselines = [] if several else _baselines(section, columns)
    ties = () if several else _ties(section)
    table = Table(columns, rows, best, _intervals_caption(section), essential, baselines, ties)
    return _without_empty(table, keep={"status"})


def settings_table(section: Section) -> Table | None:
    """Mean and standard deviation over seeds of every setting; None where each has one seed."""
    if section.seeds < 2:
        return None
    first, rest = _metrics(section)
    names = [*section.names, *section.implied]
    over_seeds = f"{first[-1]}, 95 % over seeds"
    columns = [*(names or ["setting"]), *first, over_seeds, "seeds", "seconds", *rest, *PER_PERCENT]
    rows = []
    for setting in section.judged:
        cells = [_value(setting.trials[0].parameters.get(name)) for name in names] or [Cell(setting.label)]
        figures = {name: _mean_figure(section, setting, name) for name in (*first, *rest)}
        figures |= _with_interval(section, setting.finished, figures)
        spent = mean([s for trial in setting.finished if (s := trial.figure("seconds", "fit")) is not None])
        interval = mean_interval(_values_of(section, setting, first[-1]))
        cells += [figures[name] for name in first]
        cells += [Cell(section.unit(first[-1]).interval(interval), interval and interval[0])]
        cells += [Cell(str(len(setting.scores)), len(setting.scores)), Cell(seconds(spent), spent)]
        rows.append([*cells, *(figures[name] for name in rest), *_per_percent(section, setting.finished)])
    caption = (
        "Mean ± standard deviation (n - 1) over the seeds, of the best epoch of each trial; the 95 % interval over "
        "seeds is Student's with n - 1 degrees of freedom, and says where the mean of further seeds would lie."
    )
    essential = [*(names or ["setting"]), *first, "seconds"]
    caption += _intervals_caption(section)
    table = Table(columns, rows, (0,), caption, essential, _baselines(section, columns), _ties(section))
    return _without_empty(table, keep={"seeds"})


def cost_table(section: Section) -> Table:
    """What every finished trial costs."""
    rows = []
    trials = [trial for setting in section.judged for trial in setting.finished]
    for trial in trials:
        epochs = [n for e in (trial.result or {})["seconds"].get("epochs") or [] if (n := number(e)) is not None]
        extra = trial.figure("seconds", "features")
        figures = (
            (mean(epochs), seconds),
            (trial.figure("seconds", "fit"), seconds),
            (extra, seconds),
            (trial.figure("images_per_second"), whole),
            (trial.figure("parameters", "trained"), short),
            (trial.figure("parameters", "total"), short),
            (trial.figure("flops_per_image"), short),
            (trial.figure("peak_memory_mb"), whole),
        )
        cells = [Cell(section.label(trial)), _figure(section, section.monitor, trial.best)]
        cells += [Cell(write(value), value) for value, write in figures]
        rows.append([*cells, *_per_percent(section, [trial])])
    columns = ["trial", section.monitor, "s per epoch", "s of training", "s of features"]
    columns += ["images per s", "parameters trained", "parameters", "FLOPs per image", "memory in MB", *PER_PERCENT]
    caption = (
        "Seconds are wall time of one run; trials of equal work differ in them by chance. s per 1 % is the seconds of "
        "training for each percentage point of the metric. A multiplication and an addition count as two FLOPs. Memory "
        "is the highest of the GPU, or of the process where there is none."
    )
    best = range(len(section.judged[0].finished)) if rows else ()
    return _without_empty(Table(columns, rows, best, caption))


def note(section: Section, trial: Trial) -> str:
    """What the table says of a trial beside its figures."""
    if trial.status == "failed":
        return reason(trial)
    if trial.status in ("running", "interrupted", "killed", *STOPPED) and trial.epochs:
        last = trial.epochs[-1]
        total = trial.parameters.get("epochs")
        value = last.get(section.monitor)
        so_far = f", {section.monitor} {section.unit(section.monitor).value(value)}" if value is not None else ""
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
            row["validation"] = monitor.get("validation")
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


def per_class_tables(section: Section, found: dict[str, dict[str, dict[str, float]]]) -> list[tuple[str, Table]]:
    """For each figure a table with a row for each class and a column for each setting.

    The class that does worst in the first setting stands first. What is a count and the same in all settings, such as
    the class's images, becomes a column of every table.

    Args:
        section: whose units are used.
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
        unit = section.units.get(f"test/{name}/{classes[0]}") or section.unit(f"test/{name}")
        extra = {key: values for key, values in same.items() if key != name}
        rows = [
            [
                Cell(c),
                *(Cell(f"{values[c]:,g}" if c in values else "", values.get(c)) for values in extra.values()),
                *(_of_class(values.get(c), unit) for values in settings.values()),
            ]
            for c in classes
        ]
        tables.append((TITLES.get(name, name), Table(["class", *extra, *settings], rows)))
    return tables


def _of_class(value: float | None, unit: Unit) -> Cell:
    return Cell(unit.value(value), value, shade=value if unit.is_share else None)


def seconds_per_percent(trial: Trial, with_features: bool = False) -> float | None:
    """Seconds of training for each percentage point of the monitored metric, which is a share.

    Args:
        trial: a completed one.
        with_features: count the pass that computed its features as well, whichever trial ran it.
    """
    spent = [trial.figure("seconds", name) for name in ("fit", *(["features"] if with_features else []))]
    if not trial.best or None in spent:
        return None
    return sum(s for s in spent if s is not None) / (100 * trial.best)


def _per_percent(section: Section, trials: Sequence[Trial]) -> list[Cell]:
    """The cells of :data:`PER_PERCENT`, means over trials; empty where the metric is no share, or there is no pass."""
    cells = []
    for with_features in (False, True):
        known = trials if section.unit(section.monitor).is_share else []
        spent = [s for trial in known if (s := seconds_per_percent(trial, with_features)) is not None]
        cells.append(Cell(seconds(mean(spent)), mean(spent)))
    return cells


def loss_columns(section: Section) -> list[str]:
    """The losses that tables show.

    Plain cross entropy too, where the training's loss on the same images is another. Values of different loss
    functions share no column, so plain cross entropy stands alone where these differ.
    """

    def is_another(trial: Trial) -> bool:
        loss, plain = trial.metric("val/loss"), trial.metric("val/cross_entropy")
        return loss is not None and plain is not None and not math.isclose(loss, plain, rel_tol=0.01)

    if len(section.losses) > 1:
        return ["val/cross_entropy"]
    other = any(is_another(trial) for trial in section.finished)
    return ["train/loss", "val/loss", *(["val/cross_entropy"] if other else [])]


def _metrics(section: Section) -> tuple[list[str], list[str]]:
    """The metrics that answer the question, and those that explain it."""
    if not section.metric:
        return [], ["train/loss", "val/loss"]
    first = [section.monitor, f"test/{section.metric}"]
    rest = [name for name in (f"train/{section.metric}", *loss_columns(section)) if name not in first]
    return first, list(dict.fromkeys(rest))


def _figure(section: Section, name: str, value: float | None) -> Cell:
    return Cell(section.unit(name).value(value), value)


def _mean_figure(section: Section, setting: Setting, name: str) -> Cell:
    """Mean ± deviation over seeds of a metric; of the monitored one, the best."""
    values = _values_of(section, setting, name)
    middle, unit = mean(values), section.unit(name)
    return Cell(unit.value(middle) + unit.spread(deviation(values)), middle)


def _values_of(section: Section, setting: Setting, name: str) -> list[float]:
    """A metric of each finished trial of a setting."""
    values = (trial.best if name == section.monitor else trial.metric(name) for trial in setting.finished)
    return [value for value in values if value is not None]


def _with_interval(section: Section, trials: Sequence[Trial], figures: dict[str, Cell]) -> dict[str, Cell]:
    """The cell of the test's figure with its interval over the images, if there is one."""
    name = f"test/{section.metric}"
    interval = section.interval(trials)
    if interval is None or name not in figures:
        return {}
    return {name: replace(figures[name], text=f"{figures[name].text} {section.unit(name).interval(interval)}")}


def _intervals_caption(section: Section) -> str:
    """What the intervals of test figures cover, and how many images they rest on."""
    sizes = sorted({scores.n for scores in section.tested.values()})
    if not sizes:
        return ""
    images = " or ".join(f"{n:,}" for n in sizes)
    return (
        f" Brackets behind a test figure are its 95 % interval over the n = {images} test images (bootstrap): what "
        "another test set of that size might give for the same trained networks."
    )


def _ties(section: Section) -> list[int]:
    """Indices of the settings that equal the best one or are not told apart from it."""
    ranking = rank(section)
    return [i for i, v in enumerate(ranking.verdicts, 1) if v.equal or v.open] if ranking else []


def _baselines(section: Section, columns: Sequence[str]) -> list[list[Cell]]:
    """Rows of what is reached without training: the largest class for all, and nearest neighbours of features."""
    rows = []
    if (baseline := baseline_of(section, section.metric)) is not None:
        rows.append((f"always “{baseline[0]}”", f"test/{section.metric}", baseline[1]))
    neighbours = mean([v for t in section.finished if (v := t.metric("test/knn_accuracy")) is not None])
    if neighbours is not None:
        rows.append(("nearest neighbours", "test/accuracy", neighbours))
    table = []
    for words, name, value in rows:
        row = [Cell("") for _ in columns]
        row[0] = Cell(words)
        if name in columns:
            row[list(columns).index(name)] = _figure(section, name, value)
            table.append(row)
    return table


def _value(value: Any, hint: str = "") -> Cell:
    return Cell(text(value), number(value), hint=hint)


def _plain(value: float | None) -> Cell:
    return Cell("" if value is None else f"{value:g}", value)


def _without_empty(table: Table, keep: Iterable[str] = ()) -> Table:
    """The table without the columns that hold nothing."""
    used = [i for i, name in enumerate(table.columns) if name in keep or any(row[i].text for row in table.rows)]
    rows, baselines = ([[row[i] for i in used] for row in part] for part in (table.rows, table.baselines))
    return replace(table, columns=[table.columns[i] for i in used], rows=rows, baselines=baselines)
