# `make train` and `make test` work on a fresh machine with Python 3.11 to 3.13, pip and make.
PYTHON ?= python3
BIN = .venv/bin
WORKERS = -n 2 --dist loadfile # processes that share the test files; each test uses one thread
PIP = -m pip install --quiet --disable-pip-version-check

# Published studies that need no download, on few embedded scenes: what they say is what the scenes say.
STUDIES = cifar100_learning_rate cifar100_optimizer cifar100_label_smoothing \
	segmentation_epochs segmentation_learning_rate segmentation_class_weights
SMALL = data=shapes data.train_count=2000 data.test_count=300

# Those that need no download and take minutes at most. ROUNDS=1 measures each side once instead of three or five times.
BENCHMARKS = start_up training_loop input_pipeline probe_heads segmentation_metrics instance_metrics instance_pipeline \
	warm_processes

.DEFAULT_GOAL := help
.PHONY: help train studies tensorboard docs check format test test-fast test-lowest test-next benchmarks clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: .venv/lab ## run the main job on embedded data
	$(BIN)/python train.py

studies: .venv/lab ## run the small published studies, each with its report; again, it goes on where it stopped
	status=0; for study in $(STUDIES); do \
		$(BIN)/python train.py experiment=$$study $(SMALL) study=small_$$study || status=1; \
	done; exit $$status

tensorboard: .venv/lab ## open the dashboards of all studies
	$(BIN)/tensorboard --logdir studies

docs: .venv/docs ## build the documentation as a site, site/index.html
	$(BIN)/mkdocs build --strict

check: .venv/tools ## check format, lint and types, without changing a file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent -p cv_lab.study -p cv_lab.report

format: .venv/tools ## format, and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-fast: .venv/tools ## run the quick tests
	$(BIN)/python -m pytest $(WORKERS) -m 'not slow'

test: .venv/tools ## run all tests but those of large networks
	$(BIN)/python -m pytest $(WORKERS)

# On Linux this downloads the oldest accepted torch with its CUDA libraries, gigabytes. So far it has been run with torch
# 2.14 and torchvision 0.29, and the lowest versions of everything else: whether torch 2.6 suffices is not known.
test-lowest: .venv-lowest/tools ## run the tests on the lowest versions that pyproject.toml accepts
	.venv-lowest/bin/python -m pytest

test-next: .venv-next/tools ## run the tests on the release candidate of the next Hydra
	.venv-next/bin/python -m pytest

benchmarks: .venv/lab ## measure both sides of the claims about speed, where no download is needed
	status=0; for script in $(BENCHMARKS); do echo "== $$script"; \
		BENCHMARK_ROUNDS=$(ROUNDS) $(BIN)/python scripts/benchmarks/$$script.py || status=1; \
	done; exit $$status

clean: ## remove environments, caches and the site, but no study
	rm -rf site .venv .venv-lowest .venv-next .mypy_cache .pytest_cache .ruff_cache

# The markers are written last, so a broken installation is tried again. The first is what a trial needs; the second has
# the tools of tests and checks, and the other launchers and sweepers.
.venv/lab: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) --constraint constraints.txt --editable .
	touch $@

.venv/tools: .venv/lab
	$(BIN)/python $(PIP) --constraint constraints.txt --editable '.[dev,engines]'
	touch $@

.venv/docs: .venv/lab
	$(BIN)/python $(PIP) --constraint constraints.txt --editable '.[docs]'
	touch $@

.venv-lowest/tools: pyproject.toml setup.py
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python $(PIP) uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
		--editable '.[dev,engines]'
	.venv-lowest/bin/python $(PIP) pip # tests build a wheel with it
	touch $@

# Hydra's plugins for other launchers and sweepers are not installed, and their tests skipped.
.venv-next/tools: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv .venv-next
	.venv-next/bin/python $(PIP) --constraint constraints.txt --editable '.[dev]'
	.venv-next/bin/python $(PIP) --upgrade --pre 'hydra-core>=1.4.0rc3,<1.5' # beyond what pyproject.toml accepts
	touch $@
