"""The API page is what the docstrings say, and these say what they should."""

import importlib
import inspect
import re

import pytest
from paddle import nn

from ppcls_nextvit.schema import Registry
from support.paths import ROOT
from support.programs import program_at

make_api_page = program_at("scripts/make_api_page.py")

ARRAYS = {
    "x",
    "image",
    "images",
    "logits",
    "label",
    "maps",
    "boxes",
    "masks",
    "scores",
    "prediction",
    "probabilities",
    "anchors",
    "deltas",
    "originals",
}
# [B, C, H, W], [n, 4], [B, num_classes], [height, width, 3]; the other two have shapes of their own
SHAPE = re.compile(
    r"\[[^\]{}:]*\b([A-Z]|[A-Z]_\w+|n|num_classes|height)\b[^\]{}:]*\]|\bPIL image\b|\bImageSet\b"
)


def public_objects():
    """(place, object) of everything the page shows, entries of registries too."""
    for module, names in make_api_page.public().items():
        for name, value in names.items():
            if isinstance(value, Registry):
                yield from ((f"{module.__name__}.{name}[{key!r}]", value.get(key)) for key in value)
            elif callable(value):
                yield f"{module.__name__}.{name}", value


def public_functions():
    """(place, function, its docstring, that of its class)."""
    for place, value in public_objects():
        if inspect.isclass(value):
            for name in make_api_page.methods(value):
                yield (
                    f"{place}.{name}",
                    make_api_page.function_of(vars(value)[name]),
                    make_api_page.docstring(name, value),
                    value,
                )
        else:
            yield place, value, make_api_page.docstring(value), None


def test_the_page_is_current(capsys):
    assert make_api_page.main(["--check"]) == 0, "run: python scripts/make_api_page.py"


def test_every_module_and_every_public_name_has_a_docstring():
    assert [module.__name__ for module in make_api_page.modules() if not module.__doc__] == []
    assert [place for place, value in public_objects() if not make_api_page.docstring(value)] == []
    assert [place for place, _, text, _ in public_functions() if not text] == []


def test_who_takes_arrays_states_their_shapes():
    lacking = [
        place
        for place, function, text, owner in public_functions()
        if ARRAYS & set(inspect.signature(function).parameters)
        and not SHAPE.search(text + (make_api_page.docstring(owner) if owner else ""))
    ]
    assert lacking == []


def test_who_raises_says_so():
    """What an entry of a registry raises is a ConfigError of the registry's."""
    lacking = [
        place
        for place, function, text, owner in public_functions()
        if not place.endswith("]")
        and re.search(r"^ +raise \w", inspect.getsource(function), re.MULTILINE)
        and "Error" not in text + (make_api_page.docstring(owner) if owner else "")
    ]
    assert lacking == []


def test_every_layer_states_the_shapes_of_what_it_takes_and_gives():
    layers = {
        value
        for module in make_api_page.modules()
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, nn.Layer)
        and value.__module__.startswith("ppcls_nextvit")
        and "forward" in vars(value)
    }
    assert len(layers) > 30
    assert (
        sorted(
            f"{layer.__module__}.{layer.__qualname__}"
            for layer in layers
            if not SHAPE.search(
                make_api_page.docstring("forward", layer) + make_api_page.docstring(layer)
            )
        )
        == []
    )


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
    config = importlib.import_module("ppcls_nextvit.config")
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
