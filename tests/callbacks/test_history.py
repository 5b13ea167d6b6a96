"""What TensorBoard holds of each epoch is what the table of epochs holds."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cv_lab.files import read_json
from tests.conftest import TINY

Train = Callable[..., Path]
PROBE = ("task=linear_probing", "model=timm", "model.name=test_resnet", "model.image_size=32", "weights=none")


@pytest.mark.parametrize(
    "overrides",
    [("-m", "lr=1e-2,1e-3", *PROBE), ("lr=1e-2", *PROBE), ("lr=1e-2", "trainer.accumulate_grad_batches=2")],
    ids=["heads together", "head alone", "network"],
)
def test_every_curve_has_one_point_an_epoch_at_its_step(train: Train, overrides: tuple[str, ...]) -> None:
    options = ("epochs=3", "pictures=none", "cache_dir=${studies_dir}/cache")
    for path in train(*TINY, *options, *overrides).glob("*/result.json"):
        events = EventAccumulator(str(path.parent))
        events.Reload()
        with open(path.parent / "metrics.csv") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        steps = [row.pop("step") for row in rows]
        assert steps == sorted(set(steps))
        assert len(steps) == 3
        tags = set(events.Tags()["scalars"])
        assert {tag for tag in tags if not tag.startswith("best/")} == set(rows[0])
        for name in rows[0]:
            assert [event.step for event in events.Scalars(name)] == steps
            assert [event.value for event in events.Scalars(name)] == pytest.approx([row[name] for row in rows])
        metrics = read_json(path)["metrics"]
        assert "test/accuracy" in metrics
        finals = {name: value for name, value in metrics.items() if "/" in name}
        assert {tag for tag in tags if tag.startswith("best/")} == {f"best/{name}" for name in finals}
        for name, value in finals.items():
            (event,) = events.Scalars(f"best/{name}")
            assert event.value == pytest.approx(value)
