"""The frame of every tool: shared arguments, and one line on stderr for what was raised on
purpose.
"""

import pytest

from ppcls_nextvit.cli.common import config_parser, program
from ppcls_nextvit.schema import ConfigError


def test_arguments():
    args = config_parser("about").parse_args(
        ["-c", "a.yaml", "-o", "Global.epochs=3", "--override", "Arch.class_num=10"]
    )
    assert (args.config, args.override) == ("a.yaml", ["Global.epochs=3", "Arch.class_num=10"])
    assert config_parser("about").parse_args(["--config", "a.yaml"]).override == []
    with pytest.raises(SystemExit):
        config_parser("about").parse_args([])


@pytest.mark.parametrize(
    "error, line",
    [
        (
            ConfigError("a.yaml: Global.epochs: must be 1 or more"),
            "error: a.yaml: Global.epochs: must be 1 or more\n",
        ),
        (
            FileNotFoundError(2, "No such file or directory", "x.png"),
            "error: [Errno 2] No such file or directory: 'x.png'\n",
        ),
        (
            FileExistsError(17, "File exists", "out"),
            "error: out: is a file, but a folder is needed there; choose another\n",
        ),
        (
            NotADirectoryError(20, "Not a directory", f"{__file__}/deeper/out"),
            f"error: {__file__}: is a file, but a folder is needed there; choose another\n",
        ),
        (NotADirectoryError("out: is a file"), "error: out: is a file\n"),
        (
            ImportError("matplotlib is missing;\n  pip install ppcls_nextvit[train]"),
            "error: matplotlib is missing; pip install ppcls_nextvit[train]\n",
        ),
        (FloatingPointError("loss is nan"), "error: loss is nan\n"),
        (ValueError(), "error: ValueError\n"),
    ],
)
def test_errors_on_purpose_are_one_line(capsys, error, line):
    @program
    def main(argv=None):
        raise error

    assert main([]) == 1
    assert capsys.readouterr().err == line


def test_status_and_arguments_pass_through_and_bugs_keep_their_traceback(capsys):
    assert program(lambda argv=None: len(argv))(["a", "b"]) == 2

    @program
    def interrupted(argv=None):
        raise KeyboardInterrupt

    assert interrupted() == 130

    @program
    def broken(argv=None):
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        broken()
