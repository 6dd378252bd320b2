"""Files that a program writes and a test compares: `--check` writes nothing and names those that
differ.
"""

import argparse
import sys
from pathlib import Path
from typing import Callable, Optional, Sequence

__all__ = ["write_generated"]


def write_generated(
    program: str,
    description: str,
    all_files: Callable[[], dict[Path, str]],
    argv: Optional[Sequence[str]] = None,
) -> int:
    """The command line of a program that writes generated files: {path: text} = all_files().
    Returns the exit status.

    `--check` writes nothing, names every file that differs from its text, as what `program` would
    write, and then returns 1.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit 1 if a file differs from the table",
    )
    args = parser.parse_args(argv)
    stale = {
        path: text
        for path, text in all_files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        if args.check:
            print(f"{path.name}: not what {program} writes; run it", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.name}")
    return int(args.check and bool(stale))
