"""Which suite's dialect our YAMLs are written in, a suite's program run with our models registered,
and that nothing which a suite reads is run. Needs none of the suites.
"""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppcls_nextvit.config import ConfigError, dialect_of
from ppcls_nextvit.hosts.__main__ import main
from ppcls_nextvit.hosts.safety import check_suite_yaml, load_checkpoint, safe_checkpoints
from ppcls_nextvit.weights import WeightFileError
from support.hostile_weights import ARRAY, data, dtype, text

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.mark.parametrize(
    "folder, dialect", [("paddledetection", "PaddleDetection"), ("paddleseg", "PaddleSeg")]
)
def test_every_file_is_recognised(folder, dialect):
    paths = list((CONFIGS / folder).glob("*.yml"))
    assert len(paths) == 7 and {dialect_of(path) for path in paths} == {dialect}


def test_a_program_runs_after_registration(tmp_path, monkeypatch, capsys):
    (tmp_path / "tool.py").write_text(
        "import sys\nprint(__name__, registered, sys.argv[1:])\n".replace(
            "registered", "sys.registered"
        )
    )
    monkeypatch.setattr(
        "ppcls_nextvit.hosts.paddleseg.register", lambda: setattr(sys, "registered", "registered")
    )
    monkeypatch.setattr(sys, "registered", "nothing", raising=False)
    monkeypatch.setattr(sys, "argv", ["x"])
    assert main(["paddleseg", str(tmp_path / "tool.py"), "--config", "a.yml", "-o"]) == 0
    assert capsys.readouterr().out == "__main__ registered ['--config', 'a.yml', '-o']\n"
    with pytest.raises(SystemExit) as stop:
        main(["paddleseg", str(tmp_path / "none.py")])
    assert stop.value.code == 2 and "none.py: no such file" in capsys.readouterr().err

    with pytest.raises(SystemExit):
        main(["paddleseg"])
    assert "name a program of the suite" in capsys.readouterr().err

    (tmp_path / "my_parts.py").write_text("import sys\nsys.registered = 'imported first'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ppcls_nextvit.hosts.paddleseg.register", lambda: print(sys.registered))
    assert main(["--import", "my_parts", "paddleseg", "tool.py"]) == 0
    assert capsys.readouterr().out.startswith("imported first\n__main__")

    def missing():
        raise ImportError("PaddleSeg is not installed")

    monkeypatch.setattr("ppcls_nextvit.hosts.paddleseg.register", missing)
    assert main(["paddleseg", str(tmp_path / "tool.py")]) == 1
    assert capsys.readouterr() == ("", "error: PaddleSeg is not installed\n")


def test_paddlex_is_a_command_of_its_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "paddlex.py").write_text("import sys\nprint(__name__, sys.argv)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.setattr("ppcls_nextvit.hosts.paddlex.register", lambda: print("registered"))
    assert main(["paddlex", "--pipeline", "a.yaml", "--input", "b"]) == 0
    assert capsys.readouterr().out == (
        "registered\n__main__ ['paddlex', '--pipeline', 'a.yaml', '--input', 'b']\n"
    )


class Runs:
    """Pickles into a call that makes the folder `witness`."""

    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return os.mkdir, (self.witness,)


def trained():
    """(layer, its optimiser after a step)."""
    layer = paddle.nn.Sequential(paddle.nn.Linear(2, 3), paddle.nn.BatchNorm1D(3))
    rate = paddle.optimizer.lr.PolynomialDecay(0.1, 10)
    optimizer = paddle.optimizer.AdamW(rate, parameters=layer.parameters())
    layer(paddle.ones([4, 2])).sum().backward()
    optimizer.step()
    rate.step()
    return layer, optimizer


def assert_same(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, paddle.Tensor):
        assert ours.dtype == theirs.dtype and np.array_equal(ours.numpy(), theirs.numpy())
    else:
        assert ours == theirs


@pytest.mark.parametrize("numpy", [False, True])
def test_checkpoints_are_what_paddle_load_gives(tmp_path, numpy):
    layer, optimizer = trained()
    state = {**optimizer.state_dict(), "last_epoch": 3}
    for content in (layer.state_dict(), state, {"metric": 0.5, "epoch": 2, "best": {"a": [1]}}):
        path = str(tmp_path / "a.pdparams")
        paddle.save(content, path)
        theirs = paddle.load(path, return_numpy=numpy)
        ours = load_checkpoint(path, return_numpy=numpy)
        if numpy:
            assert list(ours) == list(theirs)
            assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
        else:
            assert_same(ours, theirs)


def test_an_optimiser_resumes_from_what_is_read(tmp_path):
    layer, optimizer = trained()
    path = str(tmp_path / "a.pdopt")
    paddle.save(optimizer.state_dict(), path)
    saved = paddle.load(path)
    optimizer.step()
    optimizer.set_state_dict(load_checkpoint(path))
    assert_same(optimizer.state_dict(), saved)


def test_nothing_of_a_checkpoint_is_run_while_a_suite_works(tmp_path, monkeypatch):
    witness = tmp_path / "witness"
    evil = tmp_path / "model.pdparams"
    evil.write_bytes(pickle.dumps({"x": Runs(witness)}, 4))
    original = paddle.load
    with pytest.raises(WeightFileError, match=f"{evil}: refused: the file names"):
        with safe_checkpoints():
            paddle.load(str(evil))
    assert paddle.load is original and not witness.exists()
    monkeypatch.setattr("ppcls_nextvit.hosts.paddleseg.register", lambda: None)
    monkeypatch.setattr(sys, "argv", ["x"])
    (tmp_path / "tool.py").write_text("import paddle, sys\npaddle.load(sys.argv[1])\n")
    with pytest.raises(WeightFileError, match="refused"):
        main(["paddleseg", str(tmp_path / "tool.py"), str(evil)])
    assert paddle.load is original and not witness.exists()
    original(str(evil))  # what it would have done
    assert witness.exists()


def test_checkpoints_that_ask_for_much(tmp_path):
    shared = ARRAY + b"q\x05(K\x01M\xe8\x03\x85" + dtype() + b"\x89" + data(4000) + b"tb"
    names = b"".join(text(f"k{number}") + b"h\x05" for number in range(5000))
    path = tmp_path / "shared.pdparams"
    path.write_bytes(b"\x80\x02}(" + text("a") + shared + names + b"u.")
    loaded = load_checkpoint(path)
    assert loaded["k1"] is loaded["a"] and loaded["a"].shape == [1000]
    path.write_bytes(b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 3000 + b"N" + b"s" * 3000 + b".")
    with pytest.raises(WeightFileError, match="shared.pdparams: maximum recursion depth"):
        load_checkpoint(path)


CODE = '!!python/object/apply:os.mkdir ["{witness}"]'


@pytest.mark.parametrize(
    "files, place",
    [
        ({"a.yml": f"architecture: {CODE}\n"}, "a.yml, line 1"),
        ({"a.yml": f"architecture: x\nb: [1, {{c: {CODE}}}]\n"}, "a.yml, line 2"),
        ({"a.yml": f"architecture: x\n? {CODE}\n: 1\n"}, "a.yml, line 2"),
        ({"a.yml": "_BASE_: [b.yml]\n", "b.yml": f"x: {CODE}\n"}, "b.yml, line 1"),
        ({"a.yml": "_BASE_: b.yml\n", "b.yml": f"x: {CODE}\n"}, "b.yml, line 1"),
        (
            {"a.yml": "k: &k {_BASE_: [b.yml]}\n<<: *k\n", "b.yml": f"\nx: {CODE}\n"},
            "b.yml, line 2",
        ),
        ({"a.yml": "a: !!python/name:os.system\n"}, "a.yml, line 1"),
        ({"a.yml": "a: !!python/module:os\n"}, "a.yml, line 1"),
        ({"a.yml": "a: !!python/object/new:os.mkdir [x]\n"}, "a.yml, line 1"),
        ({"a.yml": "a: !Callable {full_type: os.getcwd}\n"}, "a.yml, line 1"),
    ],
)
def test_a_suite_s_yaml_names_no_code(tmp_path, files, place):
    for name, content in files.items():
        (tmp_path / name).write_text(content.replace("{witness}", str(tmp_path / "witness")))
    with pytest.raises(ConfigError, match=f"{place}: refused: .* names code to run"):
        check_suite_yaml(tmp_path / "a.yml", "_BASE_")
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        ("a: [", "a.yml: not valid YAML: .*line 1"),
        ("_BASE_: [none.yml]", "none.yml: no such configuration file"),
        ("a: " + "[" * 5000, "more than 60 lists and mappings in each other"),
        ("\0", "a.yml: not valid YAML: unacceptable character"),
    ],
)
def test_what_is_no_yaml_of_a_suite(tmp_path, content, message):
    (tmp_path / "a.yml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        check_suite_yaml(tmp_path / "a.yml", "_BASE_")


@pytest.mark.parametrize("key, folder", [("_BASE_", "paddledetection"), ("_base_", "paddleseg")])
def test_every_file_of_ours_for_a_suite_is_taken(key, folder):
    for path in (CONFIGS / folder).glob("*.yml"):
        check_suite_yaml(path, key)


def test_files_that_build_on_each_other(tmp_path):
    (tmp_path / "a.yml").write_text("_BASE_: [b.yml]\nc: !LinearWarmup {steps: 3}\n")
    (tmp_path / "b.yml").write_text("_BASE_: [a.yml]\nd: !!python/tuple [1, 2]\n")
    check_suite_yaml(tmp_path / "a.yml", "_BASE_")
