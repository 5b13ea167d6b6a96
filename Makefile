# `make train` and `make test` work on a fresh machine with Python 3.11 to 3.13, pip and make.
PYTHON ?= python3
BIN = .venv/bin

# Published studies that need no download, on few embedded scenes: what they say is what the scenes say.
STUDIES = cifar100_learning_rate cifar100_optimizer cifar100_label_smoothing \
	segmentation_epochs segmentation_learning_rate segmentation_class_weights
SMALL = data=shapes data.train_count=2000 data.test_count=300

.PHONY: train test studies check format tensorboard clean

train: .venv/installed ## run the main job on embedded data
	$(BIN)/python train.py

test: .venv/installed ## run the tests
	$(BIN)/python -m pytest

check: .venv/installed ## format, lint and types, without changing a file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --strict -p cv_lab.study -p cv_lab.report

format: .venv/installed ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

studies: .venv/installed ## run the small published studies, each with its report; again, it goes on where it stopped
	status=0; for study in $(STUDIES); do \
		$(BIN)/python train.py experiment=$$study $(SMALL) study=small_$$study || status=1; \
	done; exit $$status

tensorboard: .venv/installed ## open the dashboards of all studies
	$(BIN)/tensorboard --logdir studies

clean: ## remove the environment and caches, but no study
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache

# The marker is written last, so a broken installation is tried again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,engines]'
	touch $@
