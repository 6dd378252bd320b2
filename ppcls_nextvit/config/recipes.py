"""The configurations that are installed with the package, by name."""

import json
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

from .reading import read_yaml

__all__ = ["find", "folder", "located", "named_files", "names"]

# where recipes name files of their own folder, relative to a checkout
CHECKOUT = "configs"
KEPT_BY_RECIPES = ("Infer", "PostProcess", "class_id_map_file")


def folder() -> Path:
    """The folder of the recipes: in an installed package `recipes`, in a checkout configs/."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / CHECKOUT


def names(pattern: str = "") -> List[str]:
    """The recipes' names, relative to the folder, that contain `pattern`."""
    files = [*folder().rglob("*.yaml"), *folder().rglob("*.yml")]
    relative = sorted(path.relative_to(folder()).as_posix() for path in files)
    return [name for name in relative if "_base_/" not in name and pattern in name]


def find(name: str) -> Optional[Path]:
    """The recipe `name`: relative to the folder, with or without `configs/` before it, or a file
    name that is there once. None if there is none.
    """
    wanted = Path(name)
    if wanted.is_absolute() or ".." in wanted.parts:
        return None
    parts = wanted.parts[1:] if wanted.parts[:1] == (CHECKOUT,) else wanted.parts
    relative = Path(*parts).as_posix()
    known = names()
    same_name = [path for path in known if Path(path).name == relative]
    if relative in known:
        return folder() / relative
    return folder() / same_name[0] if len(same_name) == 1 else None


def located(config: str) -> Tuple[str, List[str]]:
    """The file that `config` means, and what must be overridden in it: itself if it is there, else
    the recipe of that name with the paths that it holds. What is neither is left to the reader of
    the file to refuse.
    """
    recipe = None if Path(config).exists() else find(config)
    return (config, []) if recipe is None else (str(recipe), list(_packaged_paths(recipe)))


def _packaged_paths(recipe: Path) -> Iterator[str]:
    """An override for the file of class names that a recipe has beside it, if it is not here."""
    value: Any = read_yaml(recipe)
    for key in KEPT_BY_RECIPES:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, str) and not Path(value).exists():
        packaged = _beside(recipe, value)
        if packaged:
            yield f"{'.'.join(KEPT_BY_RECIPES)}={json.dumps(str(packaged))}"


def _beside(recipe: Path, value: str) -> Optional[Path]:
    """The packaged file that `value` in `recipe` names: as seen from a checkout, or from the recipe
    itself.
    """
    parts = Path(value).parts
    options = [recipe.parent / value]
    if parts[:1] == (CHECKOUT,):
        options.append(folder().joinpath(*parts[1:]))
    return next((path for path in options if path.is_file()), None)


def named_files(recipe: Path) -> List[Path]:
    """`recipe` and every packaged file that it names, and they name: its bases, class names."""
    files, left = [], [recipe]
    while left:
        file = left.pop()
        if file in files:
            continue
        files.append(file)
        if file.suffix in (".yaml", ".yml"):
            words = file.read_text(encoding="utf-8").replace(",", " ").split()
            values = [word.strip("[]'\"") for word in words]
            left += [path for value in values if value and (path := _beside(file, value))]
    return files
