"""What the README promises exists: its commands are CI's, its files are there, its options are the tools'."""
import re
import subprocess
import sys

import pytest
from tiny import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.split("#")[0].strip() for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.splitlines()]


def test_ci_installs_and_tests_as_the_readme_says():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    suites = next(command for command in COMMANDS if "--no-deps paddleclas" in command).split(" && ")[1]
    for command in ("pip install -e '.[train,test]'", "python -m pytest -n 2 --dist loadfile"):
        assert command in COMMANDS and command in ci
    for command in (suites, "npm ci --prefix deploy/web", "python -m pytest -n 2 --dist loadfile -m chain"):
        assert command in README and command in ci


PATHS = re.findall(r"(?:configs|tools|deploy|dataset|docs|weight_conversion)/[\w./-]*\w(?![\w{])", README)
TOOLS = {word for command in COMMANDS for word in command.split() if word.startswith(("tools/", "deploy/"))}


@pytest.mark.parametrize("path", sorted(set(PATHS)))
def test_every_path_of_the_readme_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_every_option_of_the_readme_exists(tool):
    text = subprocess.run([sys.executable, str(ROOT / tool), "--help"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    for command in COMMANDS:
        if tool in command.split():
            for option in re.findall(r"(?<=\s)--?[a-z][\w-]*", command.split(tool, 1)[1]):
                assert re.search(rf"{option}\b", text), f"{tool} has no option {option}"


def test_every_link_within_the_repository_leads_somewhere():
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md"), *ROOT.glob("weight_conversion/*.md")]
    for page in (page for page in pages if "node_modules" not in page.parts):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
