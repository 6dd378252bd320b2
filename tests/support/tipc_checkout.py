"""A repository in which the chains of test_tipc run: its own test_tipc and deploy, so that nothing
is written to the real one.
"""

import os
import shutil
import subprocess
import sys

from .paths import ROOT

OWN = ("test_tipc", "deploy")
FAMILIES = {
    "TransNeXt": "TransNeXt",
    "MaskRCNN": "detection",
    "SemanticFPN": "segmentation",
}
MADE = ("data", "models", "output", "build", "node_modules", "dist", "__pycache__")


def make_checkout(folder):
    """A copy of OWN in `folder`, without what was made there, and links to all else."""
    folder.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.name in OWN:
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns(*MADE))
        elif not path.name.startswith(".") and path.name not in ("output", "inference"):
            (folder / path.name).symlink_to(path)
    return folder


def bash(checkout, script, config, mode, **environment):
    """The finished process of `bash test_tipc/SCRIPT CONFIG MODE` in `checkout`, by this Python;
    config: a file of test_tipc/configs, NextViT's if it names no other family.
    """
    family = FAMILIES.get(config.partition("_")[0], "NextViT")
    variables = {**os.environ, "TIPC_PYTHON": sys.executable, **environment}
    return subprocess.run(
        ["bash", f"test_tipc/{script}", f"test_tipc/configs/{family}/{config}", mode],
        cwd=checkout,
        env=variables,
        capture_output=True,
        text=True,
    )


def outcomes(checkout, model, mode, chain):
    """The lines of a results log, without their colour."""
    text = (checkout / "test_tipc" / "output" / model / mode / f"results_{chain}.log").read_text(
        encoding="utf-8"
    )
    return [line.removeprefix("\033[33m ").removesuffix(" \033[0m") for line in text.splitlines()]
