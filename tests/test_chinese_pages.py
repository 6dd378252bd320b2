"""The Chinese pages say nothing that the English ones do not: commands (which run there), numbers,
names and tables' cells.
"""

import re

import pytest

from support.doc_sandbox import ROOT, blocks
from test_doc_commands import CHINESE, PAGES

README = ROOT / "README.md"
# of a page's tables and numbers
SOURCES = {page.name: [README] if page.name == "README_ch.md" else PAGES for page in CHINESE}
NUMBER = r"\d[\d,]*(?:\.\d+)*(?:e-?\d+)?"


def read(paths):
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def commands(text):
    """The lines of all blocks but output, without comments and extra spaces; lines that a backslash
    joins are one.
    """
    joined = (
        re.sub(r"\\\n", " ", block.text) for block in blocks(text) if block.language != "text"
    )
    return {
        " ".join(re.sub(r"(^|\s)#.*", "", line).split())
        for text in joined
        for line in text.splitlines()
    } - {""}


def prose(text):
    """`text` without blocks, headings and links within the page, whose numbers are the
    chapters'.
    """
    return re.sub(r"(?ms)^```.*?^```|^#.*?$|\[[^]]*\]\(#[^)]*\)", "", text)


def facts(text):
    """What a translation keeps, sorted: code, numbers outside code and links, and that something
    was not measured.
    """
    rest = re.sub(r"`[^`]+`|\]\([^)]*\)", " ", text).replace("未复现", "not yet")
    return sorted(
        [
            *re.findall("`[^`]+`", text),
            *(number.rstrip(",") for number in re.findall(NUMBER, rest)),
            *re.findall("not yet", rest),
        ]
    )


def tables(text):
    """Every table as its rows' cells' facts."""
    return [
        [
            [facts(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in table.splitlines()
            if not line.startswith("|--")
        ]
        for table in re.findall(r"(?m)(?:^\|.*\n)+", text)
    ]


@pytest.fixture(params=CHINESE, ids=lambda page: page.name)
def page(request):
    """(text of a Chinese page, text of what it is a translation of)."""
    return read([request.param]), read(SOURCES[request.param.name])


def test_every_command_is_run_by_an_english_page(page):
    missing = commands(page[0]) - commands(read(PAGES))
    assert commands(page[0]) and not missing, missing


def test_every_table_is_an_english_one(page):
    chinese, english = (tables(text) for text in page)
    assert chinese and not [table for table in chinese if table not in english]


def test_every_number_and_name_is_in_english(page):
    chinese, english = (set(facts(prose(text))) for text in page)
    names = {fact for fact in chinese if fact.startswith("`") and fact[1:-1] in read(PAGES)}
    assert chinese and not chinese - english - names, chinese - english - names


def test_the_readmes_have_the_same_sections():
    chinese, english = (
        re.findall("(?m)^#+ ", re.sub("(?ms)^```.*?^```", "", read([path])))
        for path in (ROOT / "README_ch.md", README)
    )
    assert chinese == english


def test_what_is_compared():
    assert commands(
        "```bash\n# why\npip  install x \\\n  -e '.[a]'   # why\n```\n```text\nout\n```\n"
    ) == {"pip install x -e '.[a]'"}
    assert (
        facts("45.9, 41.8（`--to onnx`：7.7e-7，1,000 张，[a](b/2.md)，未复现）")
        == facts("1,000 at 41.8 and 45.9: 7.7e-7, `--to onnx`, [x](c/3), not yet")
        == ["1,000", "41.8", "45.9", "7.7e-7", "`--to onnx`", "not yet"]
    )
    assert tables("| a | 1 |\n|---|---|\n| 2, `x\\|y` | 3 |\n") == [
        [[[], ["1"]], [["2", "`x\\|y`"], ["3"]]]
    ]
    assert prose("# 1. a\n[2 b](#2-b) 3 `c`\n```bash\n4\n```\n").split() == ["3", "`c`"]
