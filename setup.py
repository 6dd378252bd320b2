"""Which packages are installed; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["ppcls_nextvit*"]), "ppcls_nextvit.recipes"])
