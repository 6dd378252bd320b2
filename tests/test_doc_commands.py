"""Every command of every page runs (doc_sandbox.py says how), and every page keeps to the few rules that make this possible."""
import shutil

import pytest
from doc_sandbox import ROOT, blocks, make_template, run_page

CHINESE = sorted([*ROOT.glob("README_ch.md"), *ROOT.glob("docs/zh_CN/*.md")])
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*/README.md"), *ROOT.glob("weight_conversion/*.md"),
                *ROOT.glob("dataset/*/README.md")} - set(CHINESE))
NAMES = {str(page.relative_to(ROOT)): page for page in PAGES}
COMMANDS = [name for name, page in NAMES.items() if any(block.language in ("bash", "python") for block in blocks(page.read_text("utf-8")))]


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    yield make_template(folder / "repository")
    shutil.rmtree(folder)


@pytest.mark.chain
@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_of_a_page_run(name, template, tmp_path):
    run_page(NAMES[name], template, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_every_block_says_what_it_is(name):
    for block in blocks(NAMES[name].read_text("utf-8")):
        assert block.language, f"{name}:{block.line}: a block without a language; commands are bash, output is text"
        assert not block.text.startswith(("$ ", "# pip")), f"{name}:{block.line}: no prompt signs"
