"""What is installed has no known holes: the lower bounds of pyproject.toml and of deploy's
requirements, and, where a version cannot move, that what is affected is not called.

The table is what the advisories of the packages said in November 2026. Where a network allows it,
pip-audit says what came since.
"""

import ast
import re
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from support.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="needs tomli before Python 3.11")

# {package: (the first version without known holes, what its last ones were)}
SAFE = {
    "pillow": (
        "12.3",
        "writes beyond images, bombs that are let pass; JPEG 2000 that fills memory",
    ),
    "python-multipart": ("0.0.31", "bodies that take seconds or all memory, files outside"),
    "starlette": ("1.3.1", "limits of forms ignored, paths from the header Host, ranges"),
    "fastapi": ("0.133", "the first that takes such a starlette"),
    "uvicorn": ("0.11.7", "line breaks in headers"),
    "httptools": ("0.5", "requests within requests"),
    "setuptools": ("78.1.1", "files outside of the folder that a package is unpacked to"),
    "pyyaml": ("5.4", "code in a file"),
    "tqdm": ("4.66.3", "code in a command line's option"),
    "requests": ("2.33", "passwords for other hosts, files in a shared folder"),
    "scikit-learn": ("1.5", "texts kept in a model"),
    "aiohttp": ("3.13.3", "bodies that fill memory, requests within requests"),
    "orjson": ("3.11.6", "lists in lists without end"),
    "ujson": ("5.12.1", "memory lost, numbers that overflow"),
    "torch": ("2.6", "code in a checkpoint, with weights_only too"),
    "pytest": ("9.0.3", "a shared folder under a name that others can guess"),
    "opencv-python-headless": ("4.8.1.78", "WebP that overflows"),
    "numpy": ("1.22", "texts that overflow"),
    "paddlepaddle": ("2.6", "code in names of files, indices beyond arrays"),
    "onnxruntime": ("1.16", "none by itself; older ones carry an older protobuf"),
}
# ... and those that stay below it, since something else holds them: see docs/deployment.md
HELD = {"onnx": ("1.21", "==1.17.0")}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements():
    """(where, Requirement) of everything that the repository's files have pip install."""
    data = project()
    extras = data["project"]["optional-dependencies"]
    named = {"build-system": data["build-system"]["requires"]}
    named["dependencies"] = data["project"]["dependencies"]
    for where, texts in {**named, **extras}.items():
        for text in texts:
            yield f"pyproject.toml, {where}", Requirement(text)
    for path in sorted((ROOT / "deploy").rglob("requirements.txt")):
        if "node_modules" not in path.parts:
            for line in path.read_text(encoding="utf-8").splitlines():
                if text := line.partition("#")[0].strip():
                    yield str(path.relative_to(ROOT)), Requirement(text)
    for path in dockerfiles():
        for text in re.findall(r'"([A-Za-z][\w.-]*[<>=][^"]*)"', path.read_text(encoding="utf-8")):
            yield str(path.relative_to(ROOT)), Requirement(text)


def dockerfiles():
    found = [
        path
        for path in sorted((ROOT / "deploy").rglob("Dockerfile*"))
        if "node_modules" not in path.parts
    ]
    assert len(found) == 2
    return found


def least(requirement):
    """The lowest version that a requirement allows; None if any."""
    bounds = [bound.version for bound in requirement.specifier if bound.operator in (">=", "==")]
    return max((Version(bound.removesuffix(".*")) for bound in bounds), default=None)


LISTED = list(requirements())


def test_lower_bounds_have_no_known_holes():
    seen = set()
    for where, requirement in LISTED:
        name = requirement.name.lower().replace("_", "-")
        if name in SAFE:
            seen.add(name)
            bound = least(requirement)
            assert bound and bound >= Version(SAFE[name][0]), f"{where}: {requirement}"
    assert seen == set(SAFE), "each of the table is required somewhere"


def test_a_bound_that_is_too_low_is_noticed():
    assert least(Requirement("Pillow>=10.1,<14")) < Version(SAFE["pillow"][0])
    assert least(Requirement("ruff==0.17.*")) == Version("0.17")
    assert least(Requirement("requests")) is None


def test_what_cannot_move_is_where_it_says():
    for name, (safe, held) in HELD.items():
        (found,) = {str(r.specifier) for _, r in LISTED if r.name == name}
        assert found == held and least(Requirement(name + held)) < Version(safe)
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert "paddle2onnx` does not work with an `onnx` later than 1.17" in page


def test_what_is_affected_in_onnx_is_not_called():
    loaded = []
    for folder in ("ppcls_nextvit", "deploy", "tools", "scripts", "benchmarks", "test_tipc"):
        for path in (ROOT / folder).rglob("*.py"):
            if "node_modules" in path.parts:
                continue
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"onnx\.hub|version_converter|convert_version", text), path
            assert not re.search(r"external_data\w*\(|save_as_external_data", text), path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                    "onnx.load",
                    "onnx.load_model",
                ):
                    loaded.append((path.name, {k.arg: k.value for k in node.keywords}))
    assert len(loaded) >= 4
    for name, keywords in loaded:
        assert ast.unparse(keywords["load_external_data"]) == "False", name


@pytest.mark.parametrize("path", dockerfiles(), ids=lambda path: path.parent.name)
def test_no_image_runs_as_root(path):
    """The last USER, before which everything is installed, is a number that Kubernetes can see to
    be another than root's; what base it has, who builds can say by digest.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    commands = [line.partition(" ") for line in lines if line and line[0] not in "# "]
    names = [name for name, _, _ in commands]
    (user,) = (value for name, _, value in commands if name == "USER")
    assert int(user) > 0
    assert not set(names[names.index("USER") :]) & {"RUN", "COPY", "ADD"}
    assert ("FROM", " ", "${BASE}") in commands and "digest" in path.read_text()


def test_installed_versions_are_within_the_bounds():
    """Those of this environment, of all that the table names and that is installed."""
    checked = 0
    for name, (safe, why) in SAFE.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        checked += 1
        assert Version(version) >= Version(safe), f"{name} {version}: {why}"
    assert checked >= 8
