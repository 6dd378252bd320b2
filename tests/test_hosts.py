"""Which suite's dialect our YAMLs are written in, and a suite's program run with our
models registered. Needs none of the suites.
"""

import sys
from pathlib import Path

import pytest

from ppcls_nextvit.config import dialect_of
from ppcls_nextvit.hosts.__main__ import main

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
