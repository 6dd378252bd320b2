"""What the commands share: arguments, the user's own modules, and failure as one line on stderr."""

import argparse
import functools
import io
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Protocol, Sequence

from ..schema import shown_text
from ..startup import threads_text

if TYPE_CHECKING:
    from ..config import Config

__all__ = [
    "Command",
    "LAYOUTS",
    "add_config",
    "add_imports",
    "add_offline",
    "export_of",
    "imported",
    "load",
    "locate",
    "main_of",
    "program",
    "say_threads",
    "sibling",
]


MESSAGE = 4000  # characters of an error
# of data of one's own: the keys of api.layouts.LAYOUTS, which takes long to import
LAYOUTS = ("coco", "voc", "yolo", "labelme", "csv", "pixels", "lists", "folders")
OFFLINE = "PPCLS_NEXTVIT_OFFLINE"  # see hub.transfer
TOOLS = {"export": "export_model"}  # PaddleClas's name


class Main(Protocol):
    """The main of a program: of the words after its name, by default those of the command line;
    returns the exit status.
    """

    def __call__(self, argv: Optional[Sequence[str]] = None) -> int: ...


class Command(Protocol):
    """A module of this folder. Its docstring is what -h shows: one line, then an example.

    What takes long to import is imported inside the functions: `nextvit -h` asks for all
    docstrings.
    """

    __doc__: Optional[str]

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """The command's options."""

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """The work; returns the exit status."""


def add_imports(parser: argparse.ArgumentParser) -> None:
    """`--import MODULE`, repeatable: args.imports is a list."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this module of yours first, e.g. one that registers a model; may be repeated",
    )


def add_config(parser: argparse.ArgumentParser, required: bool = True, model: bool = True) -> None:
    """`-c / --config FILE` or, with `model`, `--model RUN`; the repeatable `-o / --override
    section.key=value` (args.override is a list), and `--import`.
    """
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="configuration in PaddleClas's YAML dialect; a packaged one by its name, see "
        "`nextvit configs list`",
    )
    if model:
        source.add_argument(
            "--model",
            metavar="RUN",
            help="instead of -c: the folder of a training run, with its best weights and its class "
            "names; or a file of weights, or a name of the zoo; for infer and eval an exported "
            "folder, too",
        )
    parser.add_argument(
        "-o",
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value, e.g. -o Global.epochs=3; may be repeated; list items by index",
    )
    add_offline(parser)
    add_imports(parser)


def add_offline(parser: argparse.ArgumentParser) -> None:
    """`--offline`, which counts from the moment it is parsed."""
    parser.add_argument(
        "--offline", action=_Offline, nargs=0, help="fetch no weights; name what is missing"
    )


class _Offline(argparse.Action):
    """Says it to all that may fetch, in this process and those that it starts."""

    def __call__(self, *given: Any) -> None:
        os.environ[OFFLINE] = "1"


def load(args: argparse.Namespace) -> "Config":
    """The checked Config of `add_config`'s arguments."""
    from ..tasks import import_parts, load_config

    if getattr(args, "model", None):
        from ..api.sources import Asked, config_of

        import_parts(args.imports)
        return config_of(Asked(args.model, overrides=args.override))
    locate(args)
    return load_config(args.config, args.override, args.imports)


def export_of(args: argparse.Namespace, option: str, images: Any) -> Any:
    """The export that args.model names, opened; None for another model. ConfigError for settings
    beside it, and where its `images`, which `option` gives, are missing.
    """
    from ..export.opened import is_export, open_export

    if not args.model or not is_export(Path(args.model)):
        return None
    from ..schema import ConfigError
    from ..tasks import import_parts

    if args.override:
        raise ConfigError(f"{args.model}: an export has its settings in it; leave -o out")
    if not images:
        raise ConfigError(f"{args.model}: an export names no images; give {option}")
    import_parts(args.imports)
    return open_export(Path(args.model))


def locate(args: argparse.Namespace) -> None:
    """Where args.config is no file here but the name of a recipe, make it that one, and say so on
    stderr; args.override then begins with the paths that the recipe holds.
    """
    from ..config.recipes import located

    file, overrides = located(args.config)
    if file != args.config:
        print(f"configuration: {file} (no {args.config} here)", file=sys.stderr)
    args.config = file
    args.override = [*overrides, *args.override]


def say_threads() -> None:
    """On stderr, once for all processes, with how many threads a program computes on a CPU."""
    if os.environ.get("PADDLE_TRAINER_ID", "0") == "0":
        print(threads_text(), file=sys.stderr)


def imported(argv: Sequence[str]) -> Sequence[str]:
    """`argv`, after the modules of its `--import` options were imported: what they register may be
    a choice of another option.
    """
    modules = [after for word, after in zip(argv, argv[1:]) if word == "--import"]
    modules += [word.partition("=")[2] for word in argv if word.startswith("--import=")]
    if modules:
        from ..tasks import import_parts

        import_parts(modules)
    return argv


def sibling(parser: argparse.ArgumentParser, command: str) -> str:
    """How the user of `parser` calls another command."""
    if parser.prog.startswith("nextvit "):
        return f"nextvit {command}"
    return f"python tools/{TOOLS.get(command, command)}.py"


def program(main: Callable[[Optional[Sequence[str]]], int]) -> Main:
    """Decorator for `main(argv=None) -> int`: what the library raises on purpose becomes `error:
    ...` and status 1, Ctrl-C status 130.

    On purpose are ValueError (ConfigError, LoadError, ...), OSError (files), ImportError (a missing
    extra) and FloatingPointError (a loss that is not finite). Anything else is a mistake of ours
    and keeps its traceback.
    """

    @functools.wraps(main)
    def guarded(argv: Optional[Sequence[str]] = None) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # a name that the terminal has no letters for costs no results
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            status = main(argv)
            sys.stdout.flush()
            return status
        except BrokenPipeError as error:
            return _cut_off(error)
        except (ValueError, OSError, ImportError, FloatingPointError) as error:
            print("error:", _one_line(error), file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return guarded


def _cut_off(error: BrokenPipeError) -> int:
    """The exit status of a program whose output nobody reads to its end, as with `| head`; of one
    that lost another pipe, which is said.
    """
    try:
        print(flush=True)
    except BrokenPipeError:
        # what is left would be an error when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as of SIGPIPE
    print("error:", _one_line(error), file=sys.stderr)
    return 1


def main_of(command: ModuleType, description: Optional[str], prog: Optional[str] = None) -> Main:
    """`main(argv=None) -> int` of a program that is one command, under a description of its own."""

    @program
    def main(argv: Optional[Sequence[str]] = None) -> int:
        words = imported(sys.argv[1:] if argv is None else argv)
        parser = argparse.ArgumentParser(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(parser)
        return command.run(parser.parse_args(words))

    return main


def _one_line(error: BaseException) -> str:
    # of mkdir, whose words do not say what to do
    if isinstance(error, (FileExistsError, NotADirectoryError)) and error.filename:
        path = Path(error.filename)
        parts: List[Path] = [path, *path.parents]
        file = next((part for part in parts if part.is_file()), path)
        return f"{file}: is a file, but a folder is needed there; choose another"
    return shown_text(" ".join(str(error).split()), MESSAGE) or type(error).__name__
