"""YAML files in another suite's dialect: which of hosts/ trains and evaluates them."""

import argparse
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Optional, Sequence

from .common import locate

__all__ = ["HOSTS", "Suite", "suite_of"]

HOSTS = {"PaddleDetection": "paddledet", "PaddleSeg": "paddleseg"}  # dialect: module of hosts/


@dataclass(frozen=True)
class Suite:
    """A file in a suite's dialect, and the adapter that hands it to the suite."""

    host: ModuleType
    path: str
    overrides: Sequence[str]

    def train(self) -> int:
        """Train by the suite's own trainer; returns the exit status."""
        return self.host.train(self.path, self.overrides)

    def evaluate(self) -> Any:
        """What the suite's own evaluation gives."""
        return self.host.evaluate(self.path, overrides=self.overrides)


def suite_of(args: argparse.Namespace) -> Optional[Suite]:
    """The suite in whose dialect the file args.config is; None for PaddleClas's, which is ours."""
    from ..config import dialect_of

    if args.config is None:
        return None
    locate(args)
    host = HOSTS.get(dialect_of(args.config))
    if host is None:
        return None
    module = importlib.import_module(f"ppcls_nextvit.hosts.{host}")
    return Suite(module, args.config, args.override)
