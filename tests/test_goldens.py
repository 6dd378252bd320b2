"""Every golden says where it is from: tests/golden/README.md."""

import re

from support.paths import GOLDEN

PAGE = (GOLDEN / "README.md").read_text(encoding="utf-8")
ROWS = [re.split(r"(?<!\\)\|", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| `")]
FILES = sorted(path.name for path in GOLDEN.iterdir() if path.name != "README.md")


def test_the_page_names_the_files_that_are_there():
    assert FILES == sorted(name for row in ROWS for name in re.findall(r"`([\w.]+)`", row[0]))


def test_every_row_has_an_origin_and_a_content():
    assert [
        row[0] for row in ROWS if len(row) != 3 or not row[1].strip() or not row[2].strip()
    ] == []
