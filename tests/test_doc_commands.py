"""Every command of every page runs (doc_sandbox.py says how), and every page keeps to the few rules
that make this possible.
"""

import re
import shutil

import pytest

from support.doc_sandbox import ROOT, blocks, links, make_template, run_page, without_blocks

# test_chinese_pages.py: no command of their own
CHINESE = sorted([*ROOT.glob("README_ch.md"), *ROOT.glob("docs/zh_CN/*.md")])
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("deploy/*/README.md"),
        *ROOT.glob("weight_conversion/*.md"),
        *ROOT.glob("dataset/*/README.md"),
        *ROOT.glob("tests/golden/README.md"),
    }
    - set(CHINESE)
)
# its chains have tests
NAMES = {
    str(page.relative_to(ROOT)): page
    for page in [*PAGES, *CHINESE, ROOT / "test_tipc" / "README.md"]
}
# pages in this form
OURS = sorted({*NAMES} - {"test_tipc/README.md"})
COMMANDS = [
    str(page.relative_to(ROOT))
    for page in PAGES
    if any(
        block.language in ("bash", "python") for block in blocks(page.read_text(encoding="utf-8"))
    )
]


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    yield make_template(folder / "repository")
    shutil.rmtree(folder)


@pytest.mark.chain
@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_of_a_page_run(name, template, tmp_path):
    run_page(NAMES[name], template, tmp_path)


FIRST = [name for name in COMMANDS if name == "README.md" or name.startswith("docs/")]


@pytest.mark.parametrize("name", FIRST)
def test_the_first_commands_of_a_page_are_among_those_that_run(name):
    """They are pasted into a fresh clone: nothing on the page comes before them."""
    found = blocks(NAMES[name].read_text(encoding="utf-8"))
    first = next(block for block in found if block.language in ("bash", "python"))
    assert first.runs or first.note[0] in ("needs", "file"), f"{name}:{first.line}: {first.note}"


@pytest.mark.parametrize("name", OURS)
def test_every_block_says_what_it_is(name):
    for block in blocks(NAMES[name].read_text(encoding="utf-8")):
        assert block.language, (
            f"{name}:{block.line}: a block without a language; commands are bash, output is text"
        )
        assert not block.text.startswith("$ "), f"{name}:{block.line}: no prompt signs"


def anchors(page):
    """What may follow # in a link to the page: GitHub's names of its headings, -1, -2, ... added to
    those that occur again.
    """
    found = []
    for heading in re.findall(r"^#+ +(.+?) *$", without_blocks(page), re.M):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.append(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return {
        f"{slug}-{found[:i].count(slug)}" if slug in found[:i] else slug
        for i, slug in enumerate(found)
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name):
    page = NAMES[name]
    for target, anchor in links(page):
        other = page.parent / target if target else page
        assert not target.startswith("/") and other.exists(), f"{name} links to {target}"
        assert not anchor or anchor in anchors(other), (
            f"{name} links to {target}#{anchor}; there are {sorted(anchors(other))}"
        )


PATH = re.compile(
    r"(?<![\w./-])(?:configs|tools|deploy|docs|weight_conversion|tests|ppcls_nextvit|dataset/(?:fashion_mnist|nuclei))/"
    r"[\w./-]*\w(?![\w{*<])"
)


@pytest.mark.parametrize("name", OURS)
def test_every_file_of_the_repository_that_a_page_names_exists(name):
    text = NAMES[name].read_text(encoding="utf-8")
    made = {block.note[1] for block in blocks(text) if block.note[0] == "file"}
    missing = {
        path for path in PATH.findall(text) if not (ROOT / path).exists() and path not in made
    }
    assert not missing, f"{name}: {missing}"
