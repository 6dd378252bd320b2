"""Writes the recipes of configs/ from the tables in recipes/, one module a family; `--check` only
compares.
"""

import importlib
import pkgutil
from pathlib import Path
from typing import Optional, Sequence

import recipes
from generated import write_generated

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
FAMILIES = [
    importlib.import_module(f"recipes.{module.name}")
    for module in pkgutil.iter_modules(recipes.__path__)
]


def all_configs() -> dict[Path, str]:
    """{path: text} of every family's files."""
    return {CONFIGS / name: text for family in FAMILIES for name, text in family.recipes().items()}


def main(argv: Optional[Sequence[str]] = None) -> int:
    return write_generated("scripts/make_configs.py", __doc__.splitlines()[0], all_configs, argv)


if __name__ == "__main__":
    raise SystemExit(main())
