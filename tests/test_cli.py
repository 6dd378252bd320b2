"""The console program and the frame of every command: shared arguments, help without Paddle,
packaged recipes, and one line on stderr for what was raised on purpose.
"""

import argparse
import json
import subprocess
import sys
from subprocess import PIPE

import paddle
import pytest

from ppcls_nextvit import __version__, list_models
from ppcls_nextvit.cli.common import add_config, locate, program
from ppcls_nextvit.cli.main import COMMANDS, main
from ppcls_nextvit.config import recipes
from ppcls_nextvit.models import MODELS
from ppcls_nextvit.schema import ConfigError
from support.paths import ROOT
from support.programs import program_at
from support.tiny_run import write_config

TOOLS = {"export": "export_model"}  # whose program in tools/ has another name
SCREEN = (24, 80)  # lines, columns


def test_arguments():
    parser = argparse.ArgumentParser()
    add_config(parser)
    args = parser.parse_args(
        ["-c", "a.yaml", "-o", "Global.epochs=3", "--override", "Arch.class_num=10"]
    )
    assert (args.config, args.override) == ("a.yaml", ["Global.epochs=3", "Arch.class_num=10"])
    args = parser.parse_args(["--config", "a.yaml", "--import", "a", "--import", "b.c"])
    assert (args.override, args.imports) == ([], ["a", "b.c"])
    with pytest.raises(SystemExit):
        parser.parse_args([])


@pytest.mark.parametrize(
    "error, line",
    [
        (
            ConfigError("a.yaml: Global.epochs: must be 1 or more"),
            "error: a.yaml: Global.epochs: must be 1 or more\n",
        ),
        (
            FileNotFoundError(2, "No such file or directory", "x.png"),
            "error: [Errno 2] No such file or directory: 'x.png'\n",
        ),
        (
            FileExistsError(17, "File exists", "out"),
            "error: out: is a file, but a folder is needed there; choose another\n",
        ),
        (
            NotADirectoryError(20, "Not a directory", f"{__file__}/deeper/out"),
            f"error: {__file__}: is a file, but a folder is needed there; choose another\n",
        ),
        (NotADirectoryError("out: is a file"), "error: out: is a file\n"),
        (
            ImportError("matplotlib is missing;\n  pip install ppcls_nextvit[train]"),
            "error: matplotlib is missing; pip install ppcls_nextvit[train]\n",
        ),
        (FloatingPointError("loss is nan"), "error: loss is nan\n"),
        (ValueError(), "error: ValueError\n"),
    ],
)
def test_errors_on_purpose_are_one_line(capsys, error, line):
    @program
    def main(argv=None):
        raise error

    assert main([]) == 1
    assert capsys.readouterr().err == line


def test_status_and_arguments_pass_through_and_bugs_keep_their_traceback(capsys):
    assert program(lambda argv=None: len(argv))(["a", "b"]) == 2

    @program
    def interrupted(argv=None):
        raise KeyboardInterrupt

    assert interrupted() == 130

    @program
    def broken(argv=None):
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        broken()


def help_of(capsys, call):
    with pytest.raises(SystemExit) as stop:
        call(["-h"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_the_help_fits_a_screen_and_names_every_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(SCREEN[1]))
    lines = help_of(capsys, main).splitlines()
    assert len(lines) <= SCREEN[0] and max(map(len, lines)) <= SCREEN[1]
    named = [line.split()[0] for line in lines if line.startswith("  ") and line[2].isalpha()]
    assert named == list(COMMANDS)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_is_not_read_to_its_end_is_no_error(unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = [sys.executable, "-m", "ppcls_nextvit", "configs", "list"]
    with subprocess.Popen(command, cwd=ROOT, stdout=PIPE, stderr=PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_without_a_command_all_are_listed(capsys):
    assert main([]) == 2
    said = capsys.readouterr().err
    assert all(f"\n  {command} " in said for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_that_it_takes(capsys, command):
    text = help_of(capsys, lambda argv: main([command, *argv]))
    assert text.startswith(f"usage: nextvit {command} ")
    assert f"\n    nextvit {command} " in text


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "tools").glob("*.py")))
def test_the_help_of_a_tool_names_the_tool_and_has_the_command_s_options(capsys, name):
    command = {tool: command for command, tool in TOOLS.items()}.get(name[:-3], name[:-3])
    own = help_of(capsys, program_at(f"tools/{name}").main)
    assert f"python tools/{name}" in " ".join(own.split())
    words = help_of(capsys, lambda argv: main([command, *argv])).split()
    options = {word.strip("[],") for word in words if word.strip("[],").startswith("--")}
    assert {"--import"} < options <= {word.strip("[],") for word in own.split()}


def test_the_help_does_not_wait_for_paddle():
    code = "import sys\nsys.modules['paddle'] = None\n"
    code += "from ppcls_nextvit.cli.main import main\nmain(sys.argv[1:])"
    for arguments in (["-h"], ["--version"], ["train", "-h"], ["configs", "list"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_version_and_unknown_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n"
    with pytest.raises(SystemExit) as stop:
        main(["trian"])
    assert stop.value.code == 2 and "invalid choice: 'trian'" in capsys.readouterr().err


# The user's own modules.


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A folder, made the current one, with a module that registers a model; its name."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from ppcls_nextvit.models import MODELS, create_model\n"
        "\n"
        "def make(*, num_classes: int = 10):\n"
        "    return create_model('NextViT_small', num_classes=num_classes, depths=(1, 1, 5, 1))\n"
        "\n"
        "make.task = 'classification'\n"
        f"MODELS.register(make, name='{name}_model')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    monkeypatch.setattr(MODELS, "_items", dict(MODELS._items))  # what it registers goes again
    return name


@pytest.mark.slow
def test_a_module_of_the_user_s_is_imported_from_the_current_folder(own_module, tmp_path, capsys):
    config = write_config(tmp_path, train=8, test=4, Arch={"name": f"{own_module}_model"})
    content = config.read_text().replace("  depths:\n  - 1\n  - 1\n  - 5\n  - 1\n", "")
    config.write_text(content)
    arguments = ["train", "-c", str(config), "-o", "Global.epochs=1"]
    assert main(arguments) == 1
    assert f"unknown model '{own_module}_model'" in capsys.readouterr().err
    assert main([*arguments, "--import", own_module]) == 0
    assert f"{own_module}_model" in list_models("classification")
    weights = tmp_path / "output" / f"{own_module}_model" / "latest.pdparams"
    assert paddle.load(str(weights))


def test_a_module_that_is_not_there_is_one_line(capsys):
    assert main(["models", "--import", "no_such_module"]) == 1
    assert "no module 'no_such_module'" in capsys.readouterr().err


# Recipes.


def test_configs_are_listed_shown_and_copied(tmp_path, capsys):
    assert main(["configs", "list", "mask_rcnn_nextvit_small_1x"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    yaml = "detection/mask_rcnn_nextvit_small_1x_coco.yaml"
    assert yaml in names
    assert main(["configs", "show", yaml]) == 0
    assert capsys.readouterr().out == (ROOT / "configs" / yaml).read_text(encoding="utf-8")
    assert main(["configs", "copy", yaml, "--to", str(tmp_path)]) == 0
    copied = tmp_path / "configs" / "detection"
    assert sorted(path.name for path in copied.iterdir()) == [
        "coco_labels.txt",
        "mask_rcnn_nextvit_small_1x_coco.yaml",
    ]
    capsys.readouterr()
    assert main(["configs", "copy", yaml, "--to", str(tmp_path)]) == 1
    assert "is there, and is not overwritten" in capsys.readouterr().err


def test_a_copy_brings_the_bases_that_it_names(tmp_path, capsys):
    assert (
        main(["configs", "copy", "semfpn_80k_nextvit_small_ade20k.yml", "--to", str(tmp_path)]) == 0
    )
    copied = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.yml")}
    assert copied == {
        "configs/paddleseg/semfpn_80k_nextvit_small_ade20k.yml",
        "configs/paddleseg/_base_/semfpn_80k.yml",
        "configs/paddleseg/_base_/ade20k.yml",
    }


def test_an_unknown_configuration_names_its_neighbour(capsys):
    assert main(["configs", "show", "NextViT_smal_224.yaml"]) == 1
    assert "Did you mean 'NextViT_small_224.yaml'?" in capsys.readouterr().err
    assert main(["configs", "list", "swin"]) == 1


@pytest.mark.parametrize(
    "name, found",
    [
        ("NextViT_small_224.yaml", "NextViT_small_224.yaml"),
        ("configs/NextViT_small_224.yaml", "NextViT_small_224.yaml"),
        ("./configs/quickstart/fashion_mnist.yaml", "quickstart/fashion_mnist.yaml"),
        ("fashion_mnist.yaml", "quickstart/fashion_mnist.yaml"),
        ("/configs/NextViT_small_224.yaml", None),
        ("../NextViT_small_224.yaml", None),
        ("fashion.yaml", None),
    ],
)
def test_recipes_are_found_by_name(name, found):
    assert recipes.find(name) == (found and recipes.folder() / found)


def test_a_file_goes_before_the_recipe_of_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    args = argparse.Namespace(config="NextViT_small_224.yaml", override=["Global.epochs=1"])
    locate(args)
    recipe = recipes.folder() / "NextViT_small_224.yaml"
    assert (args.config, args.override) == (str(recipe), ["Global.epochs=1"])
    assert str(recipe) in capsys.readouterr().err
    (tmp_path / "NextViT_small_224.yaml").write_text("Global:\n")
    args = argparse.Namespace(config="NextViT_small_224.yaml", override=[])
    locate(args)
    assert args.config == "NextViT_small_224.yaml" and capsys.readouterr().err == ""


def test_a_recipe_s_class_names_are_found_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = argparse.Namespace(config="mask_rcnn_nextvit_small_1x_coco.yaml", override=[])
    locate(args)
    labels = recipes.folder() / "detection" / "coco_labels.txt"
    assert args.override == [f"Infer.PostProcess.class_id_map_file={json.dumps(str(labels))}"]


# Models.


def test_models(capsys, monkeypatch):
    monkeypatch.setattr("ppcls_nextvit.models.registry.backbone_names", lambda: ["NextViT_small"])
    assert main(["models", "--size", "64"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == ["NextViT_small", "31,763,368", "0.47", "G", "0.47", "G"]
    assert (
        "detection: DINO, MaskRCNN\n" in out
        and "segmentation: Mask2Former, SemanticFPN, UPerNet\n" in out
    )


def test_one_model(capsys):
    assert main(["models", "NextViT_small", "--size", "64"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("NextViT_small, classification\n")
    assert "maps: 96x16x16 256x8x8 512x4x4 1024x2x2\n" in out
    assert "weights: nextvit_small.in1k_224.official: imagenet/top1 82.5\n" in out
    assert main(["models", "MaskRCNN"]) == 0
    assert "backbone" in capsys.readouterr().out
    assert main(["models", "NextViT_smal"]) == 1
    assert "Did you mean 'NextViT_small'?" in capsys.readouterr().err


# Speed.


@pytest.mark.parametrize("arguments, part", [([], "network"), (["--train"], "step")])
def test_benchmark_of_a_model(tmp_path, capsys, arguments, part):
    config = write_config(tmp_path)
    assert main(["benchmark", "-c", str(config), "--device", "cpu", "--runs", "1", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NextViT_small on cpu, 1 run"
    assert lines[1].startswith(f"{part}: median ") and lines[2].startswith("peak memory: ")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give the name of a model, or -c"),
        (["NextViT_small", "-c", "a.yaml"], "and not both"),
        (["MaskRCNN"], "MaskRCNN needs a backbone: --backbone NextViT_small"),
        (["NextViT_small", "--backbone", "NextViT_small"], "takes no backbone"),
        (["NextViT_smal"], "Did you mean 'NextViT_small'?"),
    ],
)
def test_what_cannot_be_measured(capsys, arguments, message):
    assert main(["benchmark", "--device", "cpu", *arguments]) == 1
    assert message in capsys.readouterr().err
