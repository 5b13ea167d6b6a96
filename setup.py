"""Packages of the wheel; everything else stands in pyproject.toml, which cannot map one folder and find the others."""

from setuptools import find_packages, setup

setup(
    # hydra_plugins is a namespace package, in which Hydra looks for the launcher.
    packages=[*find_packages(include=["cv_lab", "cv_lab.*"]), "cv_lab.conf", "hydra_plugins"],
    package_dir={"cv_lab.conf": "conf"},
)
