"""The site's API pages: everything public has a docstring and a place, and docstrings become
Markdown. (.ci/run builds the site, strictly.)
"""

import importlib
import inspect

import pytest
from paddle import nn

from ppcls_nextvit.schema import Registry
from support.doc_sandbox import links
from support.paths import ROOT
from support.programs import program_at

pytest.importorskip("griffe", reason="needs the extra 'site'")
docstrings = program_at("scripts/docstrings.py")
api_pages = program_at("scripts/api_pages.py")


def public_objects():
    """(place, object) of everything the pages show, entries of registries too."""
    for module, names in api_pages.public().items():
        for name, value in names.items():
            if isinstance(value, Registry):
                yield from ((f"{module.__name__}.{name}[{key!r}]", value.get(key)) for key in value)
            elif api_pages.is_code(value):
                yield f"{module.__name__}.{name}", value


def public_methods():
    """(place, docstring) of every method that the pages show."""
    for place, value in public_objects():
        if inspect.isclass(value):
            for name in api_pages.methods(value):
                yield f"{place}.{name}", api_pages.docstring(name, value)


def test_every_public_name_stands_in_a_page():
    pages = api_pages.pages()
    text = "".join(pages.values())
    assert set(pages) == {
        "README.md",
        *(f"{module.__name__}.md" for module in api_pages.public()),
    }
    missing = [
        place
        for place, value in public_objects()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and f"::: {value.__module__}.{value.__qualname__}\n" not in text
    ]
    assert not missing
    for name in ("NextViT_small", "RandCropImage", "Cosine", "MaskRCNN"):
        assert f"`{name}`" in text


def test_what_the_pages_of_the_site_link_to_is_in_it(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra 'site'")
    program_at("scripts/make_site.py").stage(tmp_path)
    missing = [
        (page.relative_to(tmp_path).as_posix(), target)
        for page in sorted(tmp_path.rglob("*.md"))
        for target, _ in links(page)
        if not (page.parent / target).exists()
    ]
    assert missing == []


def test_no_entry_is_empty():
    assert [module.__name__ for module in api_pages.modules() if not module.__doc__] == []
    assert [place for place, value in public_objects() if not api_pages.docstring(value)] == []
    assert [place for place, text in public_methods() if not text] == []


def test_the_page_on_extending_tells_where_every_registry_is():
    rows = [
        line
        for line in (ROOT / "docs" / "extending.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    registries = [
        (f"`{module.__name__}`", f"`{name}.register`")
        for module, names in api_pages.public().items()
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
        ("Does.\nx: this\ny, z: that", "Does.  \nx: this  \ny, z: that"),
        ("one,\ntwo: words", "one,\ntwo: words"),
        ("- no list", "\\- no list"),
        ("files\n\n    a/b.txt    *", "files\n\n    a/b.txt    *"),
        ("files\n\na/b.txt    *\nc    [1]", "files\n\n    a/b.txt    *\n    c    [1]"),
        ("Calls.\nload(folder, name) -> x", "Calls.  \nload(folder, name) -> x"),
    ],
)
def test_docstrings_become_markdown(doc, text):
    assert docstrings.markdown(doc) == text


def test_a_dataclass_or_function_without_docstring_is_noticed():
    config = importlib.import_module("ppcls_nextvit.config.sections")
    plain = api_pages.dataclasses.make_dataclass("Plain", ["a"])
    assert api_pages.docstring(plain) == "" and api_pages.docstring(config.EMASection)
    # not Paddle's
    layer = type("Layer", (nn.Layer,), {"forward": lambda self, x: x})
    assert api_pages.docstring("forward", layer) == ""
