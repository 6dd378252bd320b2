"""The README is short, and the commands to install, test and check that it and CONTRIBUTING.md name
are CI's.
(test_doc_commands.py runs their commands and follows their links.)
"""

import re

from support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CI = [
    line.partition(" || ")[0]
    for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
]


def commands(text):
    """The lines of a page's blocks of bash, without comments."""
    return [
        line.split("#")[0].strip()
        for block in re.findall(r"```bash\n(.*?)```", text, re.S)
        for line in block.splitlines()
    ]


def test_the_readme_is_read_in_five_minutes():
    assert len(re.findall(r"[^\s|]+", README)) <= 900


def test_ci_installs_and_tests_as_the_readme_says():
    for command in ("pip install -e '.[train,test]'", "python -m pytest -n 2 --dist loadfile"):
        assert command in commands(README) and command in CI


def test_ci_installs_tests_and_checks_as_contributing_says():
    in_text = " ".join(CONTRIBUTING.split())
    for command in (
        "pip install --no-deps paddleclas==2.6.0 paddledet==2.6.0 paddleseg==2.8.0",
        "npm ci --prefix deploy/web",
        "python -m pytest -n 2 --dist worksteal -m 'chain and not long'",
    ):
        assert command in in_text and command in CI
    for command in (
        "ruff format --check .",
        "ruff check .",
        "mypy ppcls_nextvit",
        "python scripts/make_site.py",
    ):
        assert command in commands(CONTRIBUTING) and command in CI
