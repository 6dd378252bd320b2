"""test_tipc: its txt files, their generator, running and logging, data, and the chains that
train.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from support.paths import ROOT
from support.programs import program_at
from support.tipc_checkout import bash, make_checkout, outcomes
from test_tipc.chains import benchmark, dy2static, prepare, ptq, run, train
from test_tipc.chains.params import ParamsError, command_options, read_params
from test_tipc.chains.train import Inference, Place, Training, places, trainers

CONFIGS = ROOT / "test_tipc" / "configs" / "NextViT"
SMALL = "NextViT_small_train_infer_python.txt"
generator = program_at("scripts/make_tipc_configs.py")
TRAINING_FILES = sorted(generator.CONFIGS.glob("*/*_train_*infer_python*.txt"))


def written(tmp_path, text):
    path = tmp_path / "x.txt"
    path.write_text(text, encoding="utf-8")
    return path


# Reading: shapes that the suites' files have


def test_values_are_read_by_key_wherever_their_line_is(tmp_path):
    params = read_params(
        written(
            tmp_path,
            """\
===========================train_params===========================
gpu_list:0|0,1
model_name: M
null:null
-o Global.epochs:lite_train_lite_infer=2|whole_train_whole_infer=120
null:null
## a comment: with a colon

pact_train:null
===========================infer_params========================== \n\
-o Global.pretrained_model:
pretrained_model_url:https://host.example/a/b_pretrained.pdparams
infer_quant:Fasle
--batch-size:1|8
===========================infer_benchmark_params==========================
random_infer_input:[{float32,[3,224,224]}]""",
        )
    )
    train, infer = params["train_params"], params["infer_params"]
    assert (
        train.text("model_name") == "M"
        and train.list("gpu_list") == ["0", "0,1"]
        and train.optional("pact_train") is None
    )
    assert train.of_mode("whole_train_whole_infer", "-o Global.epochs") == "120"
    assert train.of_mode("lite_train_whole_infer", "-o Global.epochs") == "2", (
        "the same training as lite_train_lite_infer"
    )
    assert infer.optional("-o Global.pretrained_model") is None and infer.flags("infer_quant") == [
        False
    ]
    assert infer.text("pretrained_model_url") == "https://host.example/a/b_pretrained.pdparams"
    assert infer.numbers("-o Global.batch_size", "--batch-size") == [1, 8]
    assert params["infer_benchmark_params"].text("random_infer_input") == "[{float32,[3,224,224]}]"


def test_lite_s_file_has_no_section(tmp_path):
    (section,) = read_params(
        written(tmp_path, "runtime_device:arm_cpu\nclas_model_file:M\n--num_threads_list:1|2\n")
    ).values()
    assert section.text("clas_model_file") == "M" and section.numbers("--num_threads_list") == [
        1,
        2,
    ]


def test_sections_of_dy2static_repeat_keys(tmp_path):
    params = read_params(
        written(
            tmp_path,
            """\
=========================== base_train ===========================
model_name:A
to_static_train:-o Global.to_static=True
null:null
=========================== amp_train ===========================
model_name:B
""",
        )
    )
    assert [params[name].text("model_name") for name in ("base_train", "amp_train")] == ["A", "B"]


def test_a_key_on_two_lines_is_an_error_for_whoever_asks(tmp_path):
    params = read_params(
        written(tmp_path, "===serving_params===\nmodel_name:M\n--dirname:a\n--dirname:b\n")
    )
    assert params["serving_params"].text("model_name") == "M"
    with pytest.raises(ParamsError, match=r"x.txt, lines 3 and 4: --dirname more than once"):
        params["serving_params"].text("--dirname")


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "===train_params===\nmodel_nam:M\n",
            "x.txt, line 2: unknown key 'model_nam' in train_params. Did you mean 'model_name'?",
        ),
        (
            "===train_parms===\n",
            "x.txt, line 1: unknown section 'train_parms'. Did you mean 'train_params'?",
        ),
        (
            "===train_params===\n\n===train_params===\n",
            "x.txt, line 3: the section train_params a second time",
        ),
        (
            "===train_params===\nmodel_name M\n",
            "x.txt, line 2: 'model_name M' is no `key:value` line",
        ),
        ("model_name:M\n", "x.txt, line 1: unknown key 'model_name'."),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, message):
    with pytest.raises(ParamsError) as error:
        read_params(written(tmp_path, text))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "ask, message",
    [
        (
            lambda params: params["eval_params"],
            "x.txt: no section 'eval_params', which this chain reads; the file has train_params",
        ),
        (
            lambda params: params["train_params"].text("python"),
            "x.txt: section train_params: no line with the key 'python'; write one such as "
            "'python:python'",
        ),
        (
            lambda params: params["train_params"].text("norm_train"),
            "x.txt, line 5: norm_train is null, expected a value, as in "
            "'norm_train:tools/train.py ",
        ),
        (
            lambda params: places(params["train_params"]),
            "x.txt, line 4: -o Global.device is 'cpu|gpu|gpu', expected one device, or one for "
            "each of gpu_list's 2 entries",
        ),
        (
            lambda params: params["train_params"].list("-o Global.device", of=("cpu",)),
            "line 4: -o Global.device is 'cpu|gpu|gpu', expected cpu",
        ),
        (
            lambda params: params["train_params"].numbers("gpu_list"),
            "line 3: gpu_list is '-1|0', expected whole numbers of 1 or more",
        ),
        (
            lambda params: params["train_params"].of_mode(
                "whole_train_whole_infer", "-o Global.epochs"
            ),
            "line 6: -o Global.epochs is 'lite_train_lite_infer=2', expected a value for "
            "whole_train_whole_infer",
        ),
        (
            lambda params: trainers(params["train_params"]),
            "line 7: trainer is 'norm_train', expected a trainer whose own line is not null",
        ),
    ],
)
def test_a_missing_line_or_wrong_value_is_named(tmp_path, ask, message):
    params = read_params(
        written(
            tmp_path,
            """\
===train_params===
model_name:M
gpu_list:-1|0
-o Global.device:cpu|gpu|gpu
norm_train:null
-o Global.epochs:lite_train_lite_infer=2
trainer:norm_train
""",
        )
    )
    with pytest.raises(ParamsError) as error:
        ask(params)
    assert message in str(error.value)


def test_options_of_a_command():
    assert command_options("-o Global.epochs", "2") == ["-o", "Global.epochs=2"]
    assert command_options("--threads", 2) == ["--threads=2"] and command_options("--x", None) == []
    assert [command_options("--onednn", value) for value in (True, False)] == [
        ["--onednn"],
        ["--no-onednn"],
    ]


# The committed files


def test_committed_files_are_what_the_generator_writes():
    assert set(generator.all_files()) == set(generator.CONFIGS.rglob("*.txt"))
    assert generator.main(["--check"]) == 0


def test_a_file_that_differs_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generator, "CONFIGS", tmp_path)
    assert generator.main([]) == 0
    path = tmp_path / "NextViT" / SMALL
    path.write_text(path.read_text().replace("gpu_list:-1", "gpu_list:0"))
    assert generator.main(["--check"]) == 1 and capsys.readouterr().err.startswith(SMALL)


def test_a_key_that_no_chain_knows_cannot_be_written():
    with pytest.raises(ValueError, match="gpu_lists"):
        generator.section("train_params", {"gpu_lists": "0"})


def test_every_model_has_the_files_of_every_chain():
    sizes = {
        "NextViT": (
            "small",
            *(f"{name}_{pixels}" for name in ("small", "base", "large") for pixels in (224, 384)),
        ),
        "TransNeXt": ("micro", "micro_224", "tiny_224"),
    }
    folders = {path.name for path in generator.CONFIGS.iterdir()}
    assert folders == {*sizes, "detection", "segmentation"}
    for folder, name in (("detection", "MaskRCNN"), ("segmentation", "SemanticFPN")):
        assert {path.name for path in (generator.CONFIGS / folder).iterdir()} == {
            f"{name}_train_infer_python.txt",
            f"{name}_linux_gpu_normal_normal_infer_cpp_linux_gpu_cpu.txt",
            f"{name}_linux_gpu_normal_normal_serving_python_linux_gpu_cpu.txt",
            f"{name}_linux_gpu_normal_normal_paddle2onnx_python_linux_cpu.txt",
        }
    for family, names in sizes.items():
        files = {
            form.format(model=f"{family}_{name}")
            for form in generator.FILES
            for name in names
            # which has no int8
            if family != "TransNeXt" or "_ptq_" not in form
        }
        assert len(files) == len(names) * (7 if family == "TransNeXt" else 8)
        assert files == {path.name for path in (generator.CONFIGS / family).iterdir()}


def test_training_files_keep_the_suites_line_numbers():
    """Their scripts read by line number, counted from 0 without blank lines."""
    expected = {
        1: "model_name",
        3: "gpu_list",
        6: "-o Global.epochs",
        8: "-o DataLoader.Train.sampler.batch_size",
        10: "train_model_name",
        14: "trainer",
        15: "norm_train",
        18: "distill_train",
        23: "eval",
        27: "-o Global.save_inference_dir",
        28: "-o Global.pretrained_model",
        29: "norm_export",
        33: "kl_quant",
        36: "infer_model",
        39: "inference",
        43: "--batch-size",
        46: "--model",
        47: "--images",
        49: "--repeat",
    }
    assert TRAINING_FILES
    for path in TRAINING_FILES:
        lines = path.read_text().splitlines()
        trainer = "amp_train" if "_amp_" in path.name else "norm_train"
        assert {number: lines[number].partition(":")[0] for number in expected} == {
            **expected,
            15: trainer,
        }, path.name


@pytest.mark.parametrize("path", TRAINING_FILES, ids=lambda path: path.stem)
def test_training_files_are_what_the_chains_read(path, monkeypatch):
    """The configuration with its overrides is valid, 384's without the weights that it fine-tunes,
    and the sizes go together.
    """
    from ppcls_nextvit.tasks import load_config

    monkeypatch.chdir(ROOT)
    params = read_params(path)
    training, inference = (
        Training(params, "whole_train_whole_infer"),
        Inference(params["infer_params"]),
    )
    programs = [
        *training.trainers.values(),
        params["eval_params"].text("eval"),
        inference.exports["norm_export"],
    ]
    for program in programs:
        script, *arguments = shlex.split(program)
        config = load_config(arguments[1], arguments[3::2])
        if path.parent.name in ("detection", "segmentation"):
            assert (ROOT / script).is_file() and config.Arch.name == training.model
            assert config.Infer.infer_imgs == inference.images
            if script == "tools/train.py":
                start = f"Global.pretrained_model=./{prepare.seeded_weights(training.model)}"
                assert start in training.options
                # as many steps as the recipe has
                recipe = load_config(arguments[1])
                steps = [
                    one.Global.epochs * one.DataLoader["Train"]["sampler"]["iterations"]
                    for one in (recipe, load_config(arguments[1], arguments[3::2]))
                ]
                steps[1] *= int(training.epochs) // recipe.Global.epochs
                assert steps[0] == steps[1]
            continue
        small = training.model in ("NextViT_small", "TransNeXt_micro")
        size = 64 if small else int(training.model[-3:])
        assert (ROOT / script).is_file() and config.Arch.name == training.model
        assert config.Global.image_shape == (3, size, size)
        crops = [
            dict(entry for transform in transforms for entry in transform.items())["CropImage"][
                "size"
            ]
            for transforms in (
                config.DataLoader["Eval"]["dataset"]["transform_ops"],
                config.Infer.transforms,
            )
        ]
        assert crops == [size, size]
        if script == "tools/train.py":
            assert (
                config.Global.pretrained_model is None
                and str(config.Global.epochs) == training.epochs
            )


# Running


@pytest.fixture
def chain(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "OUTPUT", tmp_path / "out")
    monkeypatch.setenv("TIPC_PYTHON", sys.executable)
    return run.Chain("train", "M", "lite_train_lite_infer")


def test_outcomes_are_logged_in_the_suites_words(chain, capsys):
    assert chain.run(chain.program("-c 'print(1 + 1)'"), "a")
    assert not chain.run(chain.program("-c", "exit('broken here')"), "b")
    chain.skip("c --device=gpu", "no GPU")
    assert chain.status() == 1
    where = "out/M/lite_train_lite_infer"
    assert chain.results.read_text() == (
        f"\033[33m Run successfully with command - M - {sys.executable} -c 'print(1 + 1)' - "
        f"{where}/a.log ! \033[0m\n"
        f"\033[33m Run failed with command - M - {sys.executable} -c 'exit('\"'\"'broken "
        f"here'\"'\"')' - {where}/b.log ! \033[0m\n"
        "\033[33m Skipped with command - M - c --device=gpu - no GPU ! \033[0m\n"
        "\033[33m Finished - M - 1 succeeded, 1 failed, 1 skipped ! \033[0m\n"
    )
    assert (chain.folder / "a.log").read_text() == "2\n" and "broken here" in (
        chain.folder / "b.log"
    ).read_text()
    shown = capsys.readouterr().out
    assert (
        chain.results.read_text() in shown.replace("broken here\n", "", 1)
        and "broken here" in shown
    ), "the last lines of its log"


def test_a_chain_in_which_nothing_ran_failed(chain):
    chain.skip("all", "no GPU")
    assert chain.status() == 1
    assert chain.run(chain.program("-c pass"), "a") and chain.status() == 0


def test_a_program_that_is_not_there_failed(chain):
    assert (
        not chain.run(["./none", "--x"], "a") and "./none" in (chain.folder / "a.log").read_text()
    )


def test_no_shell_reads_a_command(chain):
    assert chain.run(chain.program("-c 'import sys; print(sys.argv[1:])' '$(echo 1)' ; ls"), "a")
    assert (chain.folder / "a.log").read_text() == "['$(echo 1)', ';', 'ls']\n"


def test_predictions_follow_in_the_log(chain):
    record = {
        "file_name": "photos/a.jpg",
        "class_ids": [3, 1],
        "scores": [0.5, 0.25],
        "label_names": ["x", "y"],
    }
    program = (
        f"import sys; open(sys.argv[1].partition('=')[2], "
        f"'w').write({json.dumps([record])!r}); print('done')"
    )
    assert chain.predict(chain.program("-c", program), "a")
    assert (
        chain.folder / "a.log"
    ).read_text() == 'done\na.jpg\t{"class_ids": [3, 1], "scores": [0.5, 0.25]}\n'


def test_the_results_are_of_one_run(chain):
    chain.run(["./none"], "a")
    assert run.Chain("train", "M", "lite_train_lite_infer").results.read_text() == ""


def test_an_interpreter_that_is_not_there_says_what_to_set(monkeypatch):
    monkeypatch.delenv("TIPC_PYTHON", raising=False)
    with pytest.raises(ParamsError, match="no interpreter python0.7; set TIPC_PYTHON"):
        run.Chain("train", "M", "x", "python0.7")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected CONFIG.txt MODE"),
        (["none.txt", "lite_train_lite_infer"], "none.txt: no such file"),
        (["none.txt"], "none.txt: no such file"),
        ([str(CONFIGS / SMALL), "lite_train_lite_infr"], "did you mean 'lite_train_lite_infer'?"),
        ([str(CONFIGS / SMALL), "lite_train_lite_infer", "more"], "too many positional arguments"),
    ],
)
def test_what_cannot_begin_is_one_line_and_status_2(capsys, arguments, message):
    assert dy2static.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


# Data and models


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "x.txt: no line with the key 'model_name'"),
        (b"===eval_params===\neval:x\n", "x.txt: no line with the key 'model_name'"),
        (b"\xff\xfe", "x.txt: not a text file in UTF-8"),
    ],
)
def test_prepare_says_what_is_no_chain_s_file(tmp_path, capsys, text, message):
    path = tmp_path / "x.txt"
    path.write_bytes(text)
    assert prepare.main([str(path), "cpp_infer"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


@pytest.fixture
def made(tmp_path, monkeypatch):
    """tmp_path, where prepare writes."""
    monkeypatch.setattr(prepare, "DATA", tmp_path / "data")
    return tmp_path


def test_lite_set_is_spread_over_the_repository_s(made):
    prepare.make_data("lite_train_lite_infer")
    folder = made / "data" / "lite"
    assert not (made / "data" / "whole").exists()
    for split, count in (("train", 16), ("val", 8)):
        lines = [line.split() for line in (folder / f"{split}_list.txt").read_text().splitlines()]
        assert (
            len(lines) == count == len(list((folder / split).iterdir()))
            and len({label for _, label in lines}) >= 4
        )
        source = {
            line.split()[0].rpartition("/")[2]: line.split()[1]
            for line in (prepare.SOURCE / f"{dict(train='train', val='test')[split]}_list.txt")
            .read_text()
            .splitlines()
        }
        assert all(
            (folder / name).is_file() and source[name.rpartition("/")[2]] == label
            for name, label in lines
        )
    assert len(list((made / "data" / "images").iterdir())) == 4 + 8


def own_set(folder):
    folder.mkdir(parents=True)
    for name, text in (
        ("train_list.txt", "a.png 0\n"),
        ("val_list.txt", "b.png 1\n"),
        ("labels.txt", "0 cat\n1 dog\n"),
    ):
        (folder / name).write_text(text)
    return folder


def test_an_own_set_is_linked_and_not_written_to(made):
    own = own_set(made / "own")
    before = sorted(own.iterdir())
    for _ in range(2):
        prepare.make_data("whole_train_whole_infer", own)
    assert (made / "data" / "whole").resolve() == own and sorted(own.iterdir()) == before
    prepare.make_data("cpp_infer")
    assert (made / "data" / "whole").resolve() == own, "which no other mode changes"
    (own / "labels.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match="labels.txt: no such file; a set has train_list.txt"
    ):
        prepare.make_data("whole_train_whole_infer", own)


def test_without_an_own_set_the_repository_s_is_back(made, monkeypatch):
    monkeypatch.setattr(prepare, "make_set", lambda folder, **counts: own_set(folder))
    monkeypatch.setattr(prepare, "make_images", lambda folder: folder.mkdir())
    prepare.make_data("whole_train_whole_infer", own_set(made / "own"))
    prepare.make_data("whole_train_whole_infer")
    assert not (made / "data" / "whole").is_symlink() and (made / "own" / "labels.txt").is_file()


def test_a_detector_has_no_set_of_a_user_s(made, capsys):
    path = str(generator.CONFIGS / "detection" / "MaskRCNN_train_infer_python.txt")
    assert prepare.main([path, "whole_train_whole_infer", "--data", str(made)]) == 2
    assert "MaskRCNN has no set of your own here" in capsys.readouterr().err


def test_a_mode_that_reads_no_own_set_refuses_one(made, capsys):
    assert (
        prepare.main(
            [str(CONFIGS / SMALL), "lite_train_lite_infer", f"--data={own_set(made / 'own')}"]
        )
        == 2
    )
    assert (
        "lite_train_lite_infer reads no set of your own; --data and --url are for "
        "lite_train_whole_infer," in capsys.readouterr().err
    )


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_set_in_an_archive(made, suffix):
    own, archive = own_set(made / "a" / "own"), made / f"set.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w") as stream:
            for path in own.iterdir():
                stream.write(path, f"own/{path.name}")
    else:
        with tarfile.open(archive, "w:gz") as stream:
            stream.add(own, "own")
    found = prepare.unpacked(str(archive))
    assert (
        found == made / "data" / "archive" / "own"
        and (found / "labels.txt").read_text() == "0 cat\n1 dog\n"
    )


def test_an_archive_that_is_none_is_refused(made):
    with pytest.raises(ValueError, match="not a .zip or .tar archive"):
        prepare.unpacked(str(written(made, "text")))
    with pytest.raises(FileNotFoundError, match="none.zip: no such file; --url takes"):
        prepare.unpacked(str(made / "none.zip"))


def test_an_archive_cannot_write_elsewhere(made):
    with tarfile.open(made / "set.tar", "w") as stream:
        stream.add(written(made, "x"), "../../outside.txt")
    with pytest.raises(ValueError, match="set.tar: damaged or unsafe: .*outside the destination"):
        prepare.unpacked(str(made / "set.tar"))


def test_an_archive_that_ends_early_is_refused(made):
    written(made, "many different words " * 3 + "".join(map(chr, range(33, 1000))))
    with tarfile.open(made / "set.tar.gz", "w:gz") as stream:
        stream.add(made / "x.txt", "x.txt")
    content = (made / "set.tar.gz").read_bytes()
    (made / "set.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="set.tar.gz: "):
        prepare.unpacked(str(made / "set.tar.gz"))
    assert not (made / "data" / "archive").exists()


def test_programs_get_the_data_of_the_mode(made, monkeypatch):
    monkeypatch.setattr(run, "ROOT", made)
    monkeypatch.setattr(prepare, "ROOT", made)
    params = read_params(CONFIGS / SMALL)
    with pytest.raises(
        FileNotFoundError,
        match=r"data/lite: not there; first run: bash test_tipc/prepare.sh .*python.txt "
        r"lite_train_",
    ):
        prepare.data_options(params, "lite_train_lite_infer")
    for name in ("lite", "whole"):
        own_set(made / "test_tipc" / "data" / name)
    options = prepare.data_options(params, "lite_train_whole_infer")
    assert options[1::2] == [
        "DataLoader.Train.dataset.image_root=test_tipc/data/lite",
        "DataLoader.Train.dataset.cls_label_path=test_tipc/data/lite/train_list.txt",
        "DataLoader.Eval.dataset.image_root=test_tipc/data/whole",
        "DataLoader.Eval.dataset.cls_label_path=test_tipc/data/whole/val_list.txt",
        "Arch.class_num=2",
        "Infer.PostProcess.class_id_map_file=test_tipc/data/lite/labels.txt",
    ]
    (made / "test_tipc" / "data" / "whole" / "labels.txt").write_text("0 cat\n")
    with pytest.raises(ValueError, match="lite/labels.txt has 2 classes, .*whole/labels.txt 1"):
        prepare.data_options(params, "lite_train_whole_infer")


# The chains


def test_a_gpu_may_be_named_after_whole_infer_alone(monkeypatch, capsys):
    monkeypatch.setattr(train, "data_options", lambda *rest: pytest.fail("nothing begins"))
    for mode, gpu, message in (
        ("whole_infer", "all", "expected the number of a GPU"),
        ("lite_train_lite_infer", "0", "gpu_list says"),
    ):
        assert (
            train.main([str(CONFIGS / SMALL), mode, gpu]) == 2
            and message in capsys.readouterr().err
        )


def test_where_an_entry_of_gpu_list_trains(monkeypatch):
    monkeypatch.setattr("test_tipc.chains.train.gpus", lambda: 1)
    assert (
        Place("-1", "cpu").launch("logs") == []
        and Place("-1", "cpu").environment() == {}
        and Place("-1", "cpu").lacking() is None
    )
    assert Place("-1,-1", "cpu").launch("logs") == [
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node=2",
        "--log_dir=logs",
    ]
    assert Place("0,1", "gpu").launch("logs") == [
        "-m",
        "paddle.distributed.launch",
        "--devices=0,1",
        "--log_dir=logs",
    ]
    assert (
        Place("1", "gpu").environment() == {"CUDA_VISIBLE_DEVICES": "1"}
        and Place("0", "gpu").lacking("amp") is None
    )
    assert (
        Place("0,1", "gpu").lacking() == "1 GPU of 2"
        and Place("-1", "cpu").lacking("amp") == "mixed precision needs a GPU"
    )
    assert (
        Place("1", "gpu").lacking() == "1 GPU of 2"
        and Place("0,3", "gpu").lacking() == "1 GPU of 4"
    )
    assert "by hand" in Place("10.0.0.1,10.0.0.2;0,1", "gpu").lacking()


@pytest.mark.parametrize("value", ["null", "cpu", "0,", "0;1;2", "-2"])
def test_what_is_no_place_is_named(tmp_path, value):
    params = read_params(
        written(tmp_path, f"===train_params===\ngpu_list:{value}\n-o Global.device:cpu\n")
    )
    with pytest.raises(
        ParamsError, match="x.txt, line 2: gpu_list is .*, expected numbers, -1 for a CPU"
    ):
        places(params["train_params"])


def test_losses_of_every_step_must_agree():
    same = {1: 2.0, 2: 1.5, 3: 1.0}
    for step, near, far in ((1, 2.00001, 2.00003), (2, 1.50001, 1.50002), (3, 1.0004, 1.0006)):
        assert (
            dy2static.compare(same, {**same, step: near})[0]
            and not dy2static.compare(same, {**same, step: far})[0]
        )
    assert not dy2static.compare(same, {1: 2.0})[0] and not dy2static.compare({}, {})[0]
    assert not dy2static.compare(same, {**same, 2: float("nan")})[0]
    assert "step 2: 1.5 as Python, None static" in dy2static.compare(same, {1: 2.0})[1]


def test_int8_must_predict_as_float32_does():
    exact = {f"{index}.png": ([0, 1], [0.8, 0.1]) for index in range(8)}

    def changed(count, ids, scores):
        return {**exact, **{f"{index}.png": (ids, scores) for index in range(count)}}

    assert ptq.compare(exact, exact)[0] and ptq.compare(exact, changed(2, [1, 0], [0.46, 0.44]))[0]
    assert not ptq.compare(exact, changed(3, [1, 0], [0.46, 0.44]))[0], "5 of 8 images"
    assert not ptq.compare(exact, changed(8, [0, 1], [0.64, 0.3]))[0], "0.16 on average"
    assert not ptq.compare(exact, changed(2, [2, 1], [0.5, 0.4]))[0], (
        "the class is not among the best"
    )


@pytest.mark.parametrize(
    "old, new",
    [("infer_export:False", "infer_export:True"), ("infer_model:", "infer_model:./other|")],
)
def test_int8_is_compared_with_one_export(tmp_path, capsys, old, new):
    text = (CONFIGS / "NextViT_small_train_ptq_infer_python.txt").read_text()
    assert (
        ptq.main([str(written(tmp_path, text.replace(old, new))), "ptq_infer"]) == 2 and old in text
    )
    key = old.partition(":")[0]
    assert (
        f"{key} is '{new.partition(':')[2]}" in (error := capsys.readouterr().err)
        and "expected infer_export:False and one" in error
    )


def test_what_the_benchmark_measures(tmp_path, monkeypatch):
    section = read_params(CONFIGS / SMALL)["train_benchmark_params"]
    assert benchmark.combinations(section, None) == [
        ("norm_train", 8, "fp32", 1),
        ("norm_train", 8, "amp", 1),
        ("to_static_train", 8, "fp32", 1),
        ("to_static_train", 8, "amp", 1),
    ]
    assert benchmark.combinations(section, "dynamicTostatic_bs16_null_DP_N1C2") == [
        ("to_static_train", 16, "fp32", 2)
    ]
    assert benchmark.combinations(section, "dynamicTostatic") == [
        ("to_static_train", 8, "fp32", 1),
        ("to_static_train", 8, "amp", 1),
    ]
    for wrong in (
        "dynamic_bs8_fp32_DP_N2C16",
        "static_bs8_fp32_DP_N1C1",
        "dynamic_bs0_fp32_DP_N1C1",
    ):
        with pytest.raises(ValueError, match="expected MODEL_bsBATCH_PRECISION_DP_N1Cm"):
            benchmark.combinations(section, wrong)
    text = (CONFIGS / SMALL).read_text()
    for flags, expected in (("null", {}), ("FLAGS_a=0.5;B==", {"FLAGS_a": "0.5", "B": "="})):
        assert (
            benchmark.variables(
                read_params(written(tmp_path, text.replace("flags:null", f"flags:{flags}")))[
                    section.name
                ]
            )
            == expected
        )
    with pytest.raises(
        ParamsError,
        match="flags is 'x', expected environment variables, as in 'flags:NAME=VALUE;NAME=VALUE'",
    ):
        benchmark.variables(
            read_params(written(tmp_path, text.replace("flags:null", "flags:x")))[section.name]
        )
    monkeypatch.setattr(benchmark, "ROOT", tmp_path)
    steps = [
        {"kind": "train", "images_per_s": speed, "memory_mb": memory, "loss": loss}
        for speed, memory, loss in ((1, 5, 9), (1, 6, 8), (4, 7, 7), (6, 7, 6), (5, 7, 5))
    ]
    lines = [*steps, {"kind": "eval", "top1": 0.5}]
    written(tmp_path, "").with_name("log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )
    assert benchmark.figures("latest") == {
        "steps": 3,
        "ips": 5,
        "ips_unit": "images/s",
        "memory_mb": 7,
        "loss": 5,
    }
    written(tmp_path, "").with_name("log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in steps[:2])
    )
    assert benchmark.figures("latest") is None


STAND_IN = """\
import os, pathlib, sys, time
name, *arguments = sys.argv[1:]
options = dict(part.split("=", 1) for part in arguments if "=" in part)
if name == os.environ.get("BROKEN"):
    sys.exit("this one is broken")
if name == os.environ.get("HANGING"):
    pathlib.Path("hanging").write_text(str(os.getpid()))
    time.sleep(60)
if name == "train":
    folder = pathlib.Path(options["Global.output_dir"], "M")
    folder.mkdir(parents=True)
    (folder / "latest.pdparams").write_text(options["Global.epochs"])
if name in ("eval", "export"):
    assert pathlib.Path(options["Global.pretrained_model"].removesuffix(".pdparams") + ".pdparams").read_text() == "2"
if name == "predict":
    pathlib.Path(options["--json"]).write_text('[{"file_name": "a.png", "class_ids": [1], "scores": [1.0]}]')
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with the data of lite_train_lite_infer, and a txt file stand_in.txt whose programs
    take no time.
    """
    folder = make_checkout(tmp_path_factory.mktemp("tipc") / "checkout")
    done = bash(folder, "prepare.sh", SMALL, "lite_train_lite_infer")
    assert done.returncode == 0 and "prepared for NextViT_small" in done.stdout, done.stderr
    (folder / "stand_in.py").write_text(STAND_IN)
    values = {
        "norm_train": "stand_in.py train",
        "eval": "stand_in.py eval",
        "norm_export": "stand_in.py export",
        "model_name": "M",
        "inference": "stand_in.py predict",
        "--threads": "1",
    }
    lines = (CONFIGS / SMALL).read_text().splitlines()
    text = "\n".join(
        f"{key}:{values[key]}" if (key := line.partition(":")[0]) in values else line
        for line in lines
    )
    (folder / "test_tipc" / "configs" / "NextViT" / "stand_in.txt").write_text(text)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken, status, succeeded, failed",
    [
        (None, 0, 7, 0),
        ("train", 1, 0, 1),
        ("eval", 1, 6, 1),
        ("export", 1, 2, 1),
        ("predict", 1, 3, 4),
    ],
)
def test_a_broken_command_turns_the_chain_red(checkout, broken, status, succeeded, failed):
    """What follows a broken command and needs it does not run; the rest does."""
    done = bash(
        checkout,
        "test_train_inference_python.sh",
        "stand_in.txt",
        "lite_train_lite_infer",
        BROKEN=broken or "",
    )
    lines = outcomes(checkout, "M", "lite_train_lite_infer", "python")
    counts = [
        sum(line.startswith(f"Run {word} with command - M - ") for line in lines)
        for word in ("successfully", "failed")
    ]
    assert (done.returncode, counts) == (status, [succeeded, failed]), done.stdout + done.stderr
    assert ("this one is broken" in done.stdout) == bool(broken)
    predictions = [line.split() for line in lines if " stand_in.py predict " in line]
    if broken is None:
        varied = {f"--batch-size={batch}": batch for batch in (1, 8)} | {
            f"--{no}onednn": not no for no in ("", "no-")
        }
        assert sorted(
            [varied[word] for word in words if word in varied]
            for words in predictions
            if "--device=cpu" in words
        ) == [[1, False], [1, True], [8, False], [8, True]]
        assert (
            sum(
                line.startswith("Skipped with command - M - ") and " - no GPU !" in line
                for line in lines
            )
            == 2 + 1
        )
    folder = (
        checkout
        / "test_tipc"
        / "output"
        / "M"
        / "lite_train_lite_infer"
        / "norm_train_gpus_-1_autocast_null_nodes_1"
    )
    assert folder.exists() == (broken in ("eval", "export", "predict")), (
        "what was trained is kept where something failed after it"
    )


@pytest.mark.chain
def test_whole_infer_compares_with_the_stored_predictions(checkout):
    tipc = checkout / "test_tipc"
    (tipc / "data" / "whole").symlink_to("lite")
    (tipc / "models").mkdir()
    (tipc / "models" / "M.pdparams").write_text("2")
    stored = tipc / "results" / "python_M_results_fp32.txt"
    runs = []
    for score in (1.0, 0.998):
        stored.write_text(f'a.png\t{{"class_ids": [1], "scores": [{score}]}}\n')
        done = bash(checkout, "test_train_inference_python.sh", "stand_in.txt", "whole_infer")
        runs.append((done, outcomes(checkout, "M", "whole_infer", "python")))
    stored.unlink()
    (tipc / "data" / "whole").unlink()
    (tipc / "data" / "whole").symlink_to(own_set(tipc / "own"))
    done = bash(checkout, "test_train_inference_python.sh", "stand_in.txt", "whole_infer")
    assert (
        done.returncode == 2
        and "whole/labels.txt 2 or others; a set of your own goes with weights trained on it"
        in done.stderr
    )
    (tipc / "data" / "whole").unlink()
    for status, (done, (*lines, last, _)) in enumerate(runs):
        assert (
            done.returncode == status
            and "compare_results.py" in last
            and last.startswith(("Run successfully", "Run failed")[status])
        )
        assert sum(line.startswith("Run successfully") for line in lines) == 2 + 4


def test_a_chain_without_its_data_says_to_prepare_it(checkout):
    done = bash(
        checkout, "test_train_inference_python.sh", "stand_in.txt", "whole_train_whole_infer"
    )
    assert done.returncode == 2 and done.stderr.startswith(
        "error: test_tipc/data/whole: not there; first run: bash test_tipc/prepare.sh "
    )
    assert done.stderr.count("\n") == 1


def test_a_signal_to_the_script_ends_its_command_too(checkout):
    command = [
        "bash",
        "test_tipc/test_train_inference_python.sh",
        "test_tipc/configs/NextViT/stand_in.txt",
        "lite_train_lite_infer",
    ]
    pid = checkout / "hanging"
    with subprocess.Popen(
        command, cwd=checkout, env={**os.environ, "TIPC_PYTHON": sys.executable, "HANGING": "train"}
    ) as script:
        while not (pid.exists() and pid.read_text()):
            assert script.poll() is None
            time.sleep(0.1)
        script.terminate()
        assert script.wait() == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_scripts_say_what_python_is_missing(checkout):
    done = bash(checkout, "prepare.sh", SMALL, "lite_train_lite_infer", TIPC_PYTHON="python0.7")
    assert done.returncode == 2 and done.stderr == (
        "error: no interpreter python0.7; activate the environment, or set TIPC_PYTHON to its "
        "Python\n"
    )


@pytest.mark.chain
@pytest.mark.parametrize("model", ["MaskRCNN", pytest.param("SemanticFPN", marks=pytest.mark.long)])
def test_a_detector_and_a_segmentor(checkout, model):
    """Training, evaluation, export and prediction with and without oneDNN, of the recipes' own
    images.
    """
    name, mode = f"{model}_train_infer_python.txt", "lite_train_lite_infer"
    (path,) = (checkout / "test_tipc" / "configs").glob(f"*/{name}")
    path.write_text(path.read_text().replace("--threads:1|2", "--threads:1"))
    pytest.importorskip("pycocotools", reason="the extra det")
    done = bash(checkout, "prepare.sh", name, mode)
    assert done.returncode == 0, done.stdout + done.stderr
    done = bash(checkout, "test_train_inference_python.sh", name, mode)
    lines = outcomes(checkout, model, mode, "python")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        sum(line.startswith(f"Run successfully with command - {model} - ") for line in lines) == 5
    )
    logs = (checkout / "test_tipc" / "output" / model / mode).glob("*_infer_cpu_*.log")
    first, second = (path.read_text().splitlines()[-4:] for path in logs)
    for ours, theirs in zip(first, second, strict=True):
        ours, theirs = (json.loads(line.partition("\t")[2]) for line in (ours, theirs))
        assert (
            ours.keys()
            == theirs.keys()
            == {{"MaskRCNN": "objects", "SemanticFPN": "classes"}[model]}
        )
        for one, other in zip(ours.get("classes", []), theirs.get("classes", []), strict=True):
            assert one["share"] == pytest.approx(other["share"], abs=1e-3)


@pytest.mark.chain
@pytest.mark.parametrize(
    "model", ["NextViT_small", pytest.param("TransNeXt_micro", marks=pytest.mark.long)]
)
def test_lite_train_lite_infer(checkout, model):
    """Training, evaluation, export and 8 predictions of the real model."""
    config, mode = f"{model}_train_infer_python.txt", "lite_train_lite_infer"
    done = bash(checkout, "test_train_inference_python.sh", config, mode)
    lines = outcomes(checkout, model, mode, "python")
    assert done.returncode == 0, done.stdout + done.stderr
    succeeded = f"Run successfully with command - {model} - "
    assert sum(line.startswith(succeeded) for line in lines) == 3 + 8
    predictions = [
        path.read_text().splitlines()[-12:]
        for path in (checkout / "test_tipc" / "output" / model / mode).glob("*_infer_cpu_*.log")
    ]
    found = [[json.loads(line.partition("\t")[2]) for line in lines] for lines in predictions]
    assert len(found) == 8
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            assert theirs["scores"] == pytest.approx(ours["scores"], rel=1e-3, abs=1e-5)
