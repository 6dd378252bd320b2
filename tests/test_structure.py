"""The structure that docs/design.md states: no circle of imports, no import against the order of
rooms, nothing that leans on the tests. Imports inside functions, `import_module` and package
`__init__` files count; the graph is read from the syntax trees.
"""

import ast
import re

import pytest

from support.paths import ROOT

PACKAGE = "ppcls_nextvit"
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
ORDER = re.search(r"^`startup`(?: < `\w+`)+$", DESIGN, re.MULTILINE)


def modules(root):
    """{dotted name: path} of the package below `root`."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(tree, module, is_package):
    """The dotted names that a module's code imports, wherever it stands."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and "import_module" in ast.dump(node.func):
            text = ast.unparse(node.args[0])
            yield from re.findall(rf"{PACKAGE}[\w.]*", text)


def import_graph(root):
    """{module: modules of the package that it imports}."""
    known, graph = modules(root), {}
    for module, path in known.items():
        graph[module] = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name in imported_names(tree, module, path.name == "__init__.py"):
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name and name != module and not module.startswith(f"{name}."):
                graph[module].add(name)
    return graph


def circle(graph):
    """The modules of one circle, in order; [] if there is none."""
    done, trail = set(), []

    def visit(module):
        if module in trail:
            return trail[trail.index(module) :]
        if module in done:
            return []
        trail.append(module)
        for other in sorted(graph[module]):
            if found := visit(other):
                return found
        trail.pop()
        done.add(module)
        return []

    return next((found for module in graph if (found := visit(module))), [])


def room(module):
    """`models` of ppcls_nextvit.models.registry; '' of the package itself. Programs are the command
    line's.
    """
    return "cli" if module.endswith(".__main__") else module.partition(".")[2].partition(".")[0]


GRAPH = import_graph(ROOT)
ROOMS = re.findall(r"`(\w+)`", ORDER[0]) if ORDER else []


def test_no_circle():
    assert circle(GRAPH) == []


def test_every_room_has_a_place_in_the_order():
    assert len(ROOMS) == len(set(ROOMS)) > 10
    assert {room(module) for module in GRAPH} - {""} <= set(ROOMS)


def test_imports_go_to_earlier_rooms():
    against = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in others
        if room(module) and room(other) and ROOMS.index(room(other)) > ROOMS.index(room(module))
    ]
    assert against == []


def test_the_three_tasks_do_not_import_each_other():
    folders = ("classification", "detection", "segmentation")
    crossing = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in others
        for folder in folders
        if module.startswith(f"{PACKAGE}.tasks.{folder}")
        and any(other.startswith(f"{PACKAGE}.tasks.{f}") for f in folders if f != folder)
    ]
    assert crossing == []


TASKS = {"classification", "detection", "segmentation"}


def task_switches(tree):
    """The comparisons of something with a task's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            constants = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
            attributes = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
            if constants & TASKS and "task" in attributes:
                yield ast.unparse(node)


def test_nobody_asks_for_a_task_by_its_name():
    """Outside the registry of models, which knows that backbones are classifiers."""
    found = {
        module: switches
        for module, path in modules(ROOT).items()
        if (switches := list(task_switches(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert set(found) == {f"{PACKAGE}.models.registry"}


@pytest.mark.parametrize("folder", [PACKAGE, "tools", "test_tipc", "deploy", "benchmarks"])
def test_nothing_leans_on_the_tests(folder):
    own = {"support", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    files = [p for p in (ROOT / folder).rglob("*.py") if "node_modules" not in p.parts]
    assert files
    leaning = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imported_names(ast.parse(path.read_text(encoding="utf-8")), path.stem, False)
        if name.partition(".")[0] in own
        and not (path.parent / f"{name.partition('.')[0]}.py").exists()
    ]
    assert leaning == []
    paths = [p for p in files if re.search(r"""["']tests["'/]""", p.read_text(encoding="utf-8"))]
    assert paths == []


def test_a_circle_and_an_arrow_up_are_noticed(tmp_path):
    files = {
        "schema.py": "def late():\n    from .models import a\n",
        "models/__init__.py": "",
        "models/a.py": "from . import b\n",
        "models/b.py": "import importlib\nimportlib.import_module('ppcls_nextvit.models.a')\n",
    }
    for name, text in files.items():
        path = tmp_path / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    graph = import_graph(tmp_path)
    assert set(circle(graph)) == {f"{PACKAGE}.models.a", f"{PACKAGE}.models.b"}
    assert graph[f"{PACKAGE}.schema"] == {f"{PACKAGE}.models.a"}
