"""What the programs in tools/ share: the arguments -c and -o, failure as one line on stderr with
exit status 1, and generated files.
"""

import argparse
import functools
import sys
from pathlib import Path

__all__ = ["config_parser", "program", "write_generated"]


def config_parser(description):
    """An ArgumentParser with `-c / --config FILE` and the repeatable `-o / --override
    section.key=value` (args.override is a list).
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "-c",
        "--config",
        required=True,
        metavar="FILE",
        help="configuration in PaddleClas's YAML dialect",
    )
    parser.add_argument(
        "-o",
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value, e.g. -o Global.epochs=3; may be repeated; list items by index",
    )
    return parser


def program(main):
    """Decorator for `main(argv=None) -> int`: what the library raises on purpose becomes `error:
    ...` and status 1, Ctrl-C status 130.

    On purpose are ValueError (ConfigError, LoadError, ...), OSError (files), ImportError (a missing
    extra) and FloatingPointError (a loss that is not finite). Anything else is a mistake of ours
    and keeps its traceback.
    """

    @functools.wraps(main)
    def guarded(argv=None):
        try:
            return main(argv)
        except (ValueError, OSError, ImportError, FloatingPointError) as error:
            print("error:", _one_line(error), file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return guarded


def _one_line(error):
    # of mkdir, whose words do not say what to do
    if isinstance(error, (FileExistsError, NotADirectoryError)) and error.filename:
        path = Path(error.filename)
        file = next((part for part in (path, *path.parents) if part.is_file()), path)
        return f"{file}: is a file, but a folder is needed there; choose another"
    return " ".join(str(error).split()) or type(error).__name__


def write_generated(tool, description, all_files, argv=None) -> int:
    """The command line of a program that writes generated files: {path: text} = all_files().
    Returns the exit status.

    `--check` writes nothing, names every file that differs from its text, as what `tool` would
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
            print(f"{path.name}: not what {tool} writes; run it", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.name}")
    return int(args.check and bool(stale))
