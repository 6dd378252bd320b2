"""What holds for all tests: the fast subset, and draws that do not depend on the order of tests."""

import os
import random

os.environ.setdefault("OMP_NUM_THREADS", "1")  # on any machine, also in what a test starts

import numpy as np
import paddle
import pytest

from ppcls_nextvit.models import MODELS


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """What is marked long is of the chain, and that is slow: `-m "not slow"` leaves the fast
    tests.
    """
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("chain")
        if item.get_closest_marker("chain"):
            item.add_marker("slow")


def pytest_terminal_summary(terminalreporter):
    """By which number the made-up inputs were drawn, if not by the default: support/faults.py."""
    if "FAULTS_SEED" in os.environ:
        terminalreporter.write_line(f"FAULTS_SEED={os.environ['FAULTS_SEED']}")


def seed():
    """The generators that a test may draw from without a word."""
    random.seed(0)
    np.random.seed(0)
    paddle.seed(0)


@pytest.fixture(scope="module", autouse=True)
def seeded_module():
    """The fixtures of a module begin with the same draws in any order of the tests."""
    seed()


@pytest.fixture(autouse=True)
def seeded_test(seeded_module):
    """So does every test."""
    seed()


@pytest.fixture
def own_models(monkeypatch):
    """What a test enters into MODELS is gone after it."""
    monkeypatch.setattr(MODELS, "_items", dict(MODELS._items))
