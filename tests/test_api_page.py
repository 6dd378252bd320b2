"""The API page is what the docstrings say, and none of its entries is empty."""

import importlib
import inspect

import pytest
from paddle import nn

from ppcls_nextvit.schema import Registry
from support.paths import ROOT
from support.programs import program_at

make_api_page = program_at("scripts/make_api_page.py")


def public_objects():
    """(place, object) of everything the page shows, entries of registries too."""
    for module, names in make_api_page.public().items():
        for name, value in names.items():
            if isinstance(value, Registry):
                yield from ((f"{module.__name__}.{name}[{key!r}]", value.get(key)) for key in value)
            elif make_api_page.is_code(value):
                yield f"{module.__name__}.{name}", value


def public_methods():
    """(place, docstring) of every method that the page shows."""
    for place, value in public_objects():
        if inspect.isclass(value):
            for name in make_api_page.methods(value):
                yield f"{place}.{name}", make_api_page.docstring(name, value)


def test_the_page_is_current(capsys):
    assert make_api_page.main(["--check"]) == 0, "run: python scripts/make_api_page.py"


def test_no_entry_is_empty():
    assert [module.__name__ for module in make_api_page.modules() if not module.__doc__] == []
    assert [place for place, value in public_objects() if not make_api_page.docstring(value)] == []
    assert [place for place, text in public_methods() if not text] == []


def test_the_page_on_extending_tells_where_every_registry_is():
    rows = [
        line
        for line in (ROOT / "docs" / "extending.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    registries = [
        (f"`{module.__name__}`", f"`{name}.register`")
        for module, names in make_api_page.public().items()
        for name, value in names.items()
        if isinstance(value, Registry)
    ]
    assert len(registries) > 10
    assert [
        pair for pair in registries if not any(all(text in row for text in pair) for row in rows)
    ] == []


@pytest.mark.parametrize(
    "doc, text",
    [
        ("a [B, C] * `*x*`", r"a \[B, C\] \* `*x*`"),
        ("Does.\nx: this\ny, z: that", "Does.\\\nx: this\\\ny, z: that"),
        ("one,\ntwo: words", "one,\ntwo: words"),
        ("- no list", "\\- no list"),
        ("files\n\n    a/b.txt    *", "files\n\n    a/b.txt    *"),
        ("files\n\na/b.txt    *\nc    [1]", "files\n\n    a/b.txt    *\n    c    [1]"),
        ("Calls.\nload(folder, name) -> x", "Calls.\\\nload(folder, name) -> x"),
    ],
)
def test_docstrings_become_markdown(doc, text):
    assert make_api_page.markdown(doc) == text


def test_a_dataclass_or_function_without_docstring_is_noticed():
    config = importlib.import_module("ppcls_nextvit.config.sections")
    plain = make_api_page.dataclasses.make_dataclass("Plain", ["a"])
    assert make_api_page.docstring(plain) == "" and make_api_page.docstring(config.EMASection)
    # not Paddle's
    assert (
        make_api_page.docstring(
            "forward", type("Layer", (nn.Layer,), {"forward": lambda self, x: x})
        )
        == ""
    )
    assert "- `decay: float = 0.9999`" in make_api_page.entry(
        "###", ["EMASection"], config.EMASection
    )
