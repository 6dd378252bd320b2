"""The package `my_parts` that docs/extending.md builds: a family of backbones, a detector, a
segmentor, a transform and a target, none of which the project knows.
"""

import importlib.util
import re
from pathlib import Path

from ppcls_nextvit.models import MODELS

from .paths import ROOT

PAGE = ROOT / "docs" / "extending.md"
FILES = re.compile(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.M | re.S)


def write_my_parts(folder):
    """Write the page's files below `folder`, as a reader would."""
    found = FILES.findall(PAGE.read_text(encoding="utf-8"))
    assert found, f"{PAGE} has no files"
    for name, text in found:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def register_models(folder):
    """Write the page's files below `folder` and enter its backbone, its detector and its segmentor
    into MODELS; their names.
    """
    write_my_parts(folder)
    names = []
    for part in ("backbone", "detector", "segmentor"):
        spec = importlib.util.spec_from_file_location(
            f"extending_{part}", Path(folder, "my_parts", f"{part}.py")
        )
        before = set(MODELS)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        names += [name for name in MODELS if name not in before]
    return names
