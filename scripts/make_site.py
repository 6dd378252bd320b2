"""The site: stages the repository's pages and the API's, and builds them with mkdocs, strictly.

Pages keep their places, so that links between them lead where they lead in a checkout.
"""

import argparse
import logging
import shutil
from pathlib import Path
from typing import Optional, Sequence

from api_pages import pages as api_pages
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from ppcls_nextvit.cli.common import program

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "site" / "pages"  # docs_dir of mkdocs.yml
STAGED = (
    "*.md",
    "docs/**/*.md",
    "docs/**/*.png",
    "docs/**/*.ipynb",
    "deploy/*/README.md",
    "deploy/lite/*/README.md",
    "deploy/training/*",
    "weight_conversion/README.md",
    "dataset/*/README.md",
    "test_tipc/README.md",
    "tests/golden/README.md",
)


def stage(folder: Path) -> None:
    """Write every page of the site into `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in sorted({path for pattern in STAGED for path in ROOT.glob(pattern)}):
        place = folder / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    api = folder / "docs" / "api"
    api.mkdir(parents=True)
    for name, text in api_pages().items():
        (api / name).write_text(text, encoding="utf-8")


@program
def main(argv: Optional[Sequence[str]] = None) -> int:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    PAGES.mkdir(parents=True, exist_ok=True)  # mkdocs asks for it when it reads its file
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True)
    stage(PAGES)
    try:
        build(config)
    except Abort:  # mkdocs has said why
        return 1
    print(f"wrote {Path(config.site_dir).relative_to(ROOT)}/index.html")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
