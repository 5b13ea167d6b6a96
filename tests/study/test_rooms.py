"""What the rooms of studies and reports import."""

import subprocess
import sys

from tests.conftest import ROOT

IMPORT_ALL = """
import importlib, pkgutil, sys
import cv_lab.report, cv_lab.study
for package in (cv_lab.study, cv_lab.report):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(*sorted(sys.modules))
"""
GROUND_FLOOR = {"colours", "config", "files", "labels", "text"}


def test_studies_and_reports_know_neither_torch_nor_other_rooms() -> None:
    answer = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = answer.stdout.split()
    assert {"cv_lab.study.plan", "cv_lab.report.page"} <= set(modules)
    rooms = {module.split(".")[1] for module in modules if module.startswith("cv_lab.")}
    assert rooms <= GROUND_FLOOR | {"study", "report"}
    heavy = ("torch", "torchvision", "pytorch_lightning", "lightning_fabric", "timm", "torchmetrics", "matplotlib")
    assert not {module.partition(".")[0] for module in modules} & set(heavy)
