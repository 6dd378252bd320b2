"""The README's commands to install and test are CI's. (test_doc_commands.py runs its commands and
follows its links.)
"""

import re

from tiny import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
]


def test_ci_installs_and_tests_as_the_readme_says():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    suites = next(command for command in COMMANDS if "--no-deps paddleclas" in command).split(
        " && "
    )[1]
    for command in ("pip install -e '.[train,test]'", "python -m pytest -n 2 --dist loadfile"):
        assert command in COMMANDS and command in ci
    for command in (
        suites,
        "npm ci --prefix deploy/web",
        "python -m pytest -n 2 --dist worksteal -m chain",
    ):
        assert command in README and command in ci
