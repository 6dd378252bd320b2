"""The commands to install, test and check that the README and CONTRIBUTING.md name are CI's.
(test_doc_commands.py runs their commands and follows their links.)
"""

import re

from support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def commands(text):
    """The lines of a page's blocks of bash, without comments."""
    return [
        line.split("#")[0].strip()
        for block in re.findall(r"```bash\n(.*?)```", text, re.S)
        for line in block.splitlines()
    ]


def test_ci_installs_and_tests_as_the_readme_says():
    in_blocks = commands(README)
    suites = next(command for command in in_blocks if "--no-deps paddleclas" in command)
    suites = suites.split(" && ")[1]
    for command in ("pip install -e '.[train,test]'", "python -m pytest -n 2 --dist loadfile"):
        assert command in in_blocks and command in CI
    for command in (
        suites,
        "npm ci --prefix deploy/web",
        "python -m pytest -n 2 --dist worksteal -m chain",
    ):
        assert command in README and command in CI


def test_ci_checks_as_contributing_says():
    contributing = commands((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    for command in ("ruff format --check .", "ruff check .", "mypy ppcls_nextvit"):
        assert command in contributing and command in CI
