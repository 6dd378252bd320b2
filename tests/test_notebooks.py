"""The notebooks run from top to bottom, with small numbers where a cell is tagged `parameters`, and
are kept without outputs.
"""

import shutil
import subprocess
import sys

import pytest

from support.paths import ROOT

nbformat = pytest.importorskip("nbformat", reason="needs nbformat, see the extra 'test'")
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SMALL = {
    "classification": {"Global.epochs": 1, "Global.iter_per_epoch": 2},
    "detection": {"Global.epochs": 1, "DataLoader.Train.sampler.iterations": 2},
    "segmentation": {"Global.epochs": 1, "DataLoader.Train.sampler.iterations": 2},
}


def read(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    return book


def parameters(book):
    """The one cell whose numbers are smaller here."""
    [cell] = [c for c in book.cells if "parameters" in c.metadata.get("tags", ())]
    return cell


def test_each_notebook_has_small_numbers():
    assert [path.stem for path in NOTEBOOKS] == list(SMALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_says_what_it_needs(path):
    book = read(path)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert "pip install" in book.cells[0].source
    # what the small numbers take the place of
    assert parameters(book).source.splitlines()[-1].startswith("options = {")


@pytest.mark.chain
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for folder in ("configs", "dataset"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    book = read(path)
    parameters(book).source = f"options = {SMALL[path.stem]!r}"
    nbformat.write(book, tmp_path / path.name)
    # in a process of its own: nbclient takes the signals of the one that it runs in
    program = [sys.executable, "-c", "from nbclient.cli import main; main()"]
    options = ["--inplace", "--timeout=300", "--kernel_name=python3", path.name]
    done = subprocess.run([*program, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    book = read(tmp_path / path.name)
    assert list((tmp_path / "output").rglob("best_model.pdparams"))
    assert any("image/png" in o.get("data", {}) for c in book.cells for o in c.get("outputs", ()))
