"""test_tipc's deployment chains, the comparison with stored predictions, and the record of what
ran.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import cpp_programs
from support.paths import ROOT
from support.programs import program_at
from support.tipc_checkout import bash, make_checkout, outcomes
from test_tipc.chains import client, cpp, lite, paddle2onnx, serving, status
from test_tipc.chains.params import ParamsError, read_params

compare_results = program_at("test_tipc/compare_results.py")
CONFIGS, RESULTS = ROOT / "test_tipc" / "configs" / "NextViT", ROOT / "test_tipc" / "results"
# the others go the same way as the first
DENSE = [
    status.DENSE[0],
    *(pytest.param(name, marks=pytest.mark.long) for name in status.DENSE[1:]),
]
FILES = {
    cpp: "{}_linux_gpu_normal_normal_infer_cpp_linux_gpu_cpu.txt",
    serving: "{}_linux_gpu_normal_normal_serving_python_linux_gpu_cpu.txt",
    paddle2onnx: "{}_linux_gpu_normal_normal_paddle2onnx_python_linux_cpu.txt",
    lite: "{}_lite_arm_cpu_cpp.txt",
}
MODES = {
    cpp: "cpp_infer",
    serving: "serving_infer",
    paddle2onnx: "paddle2onnx_infer",
    lite: "lite_infer",
}
DEFAULT = {"a.jpg": ([3, 1, 2], [0.7, 0.2, 0.01]), "b.png": ([1, 3, 0], [0.9, 0.05, 0.02])}


# Comparison with stored predictions


def lines(predictions):
    return "".join(
        f"{image}\t{json.dumps({'class_ids': ids, 'scores': scores})}\n"
        for image, (ids, scores) in predictions.items()
    )


@pytest.fixture
def place(tmp_path):
    """write(predictions or text, precision) -> arguments of compare_results for that log and stored
    DEFAULT.
    """
    folder = tmp_path / "output" / "M" / "cpp_infer"
    folder.mkdir(parents=True)

    def write(
        log,
        precision="fp32",
        stored=("python_M_results_fp32", "python_N_results_fp32", "lite_M_results_int8"),
    ):
        for name in stored:
            (tmp_path / f"{name}.txt").write_text(lines(DEFAULT))
        (folder / f"x_precision_{precision}_batchsize_1.log").write_text(
            log if isinstance(log, str) else "started\n" + lines(log)
        )
        return [f"--gt_file={tmp_path}/*.txt", f"--log_file={folder}/*.log"]

    return write


def changed(image, ids=None, scores=None):
    """DEFAULT with other classes or scores for `image`."""
    return {**DEFAULT, image: (ids or DEFAULT[image][0], scores or DEFAULT[image][1])}


@pytest.mark.parametrize(
    "log, precision",
    [
        (DEFAULT, "fp32"),
        (changed("a.jpg", scores=[0.7005, 0.2001, 0.010005]), "fp32"),
        (changed("a.jpg", scores=[0.713, 0.203, 0.0102]), "int8"),
        ({f"photos/{image}": values for image, values in DEFAULT.items()}, "fp32"),
        ({**DEFAULT, "c.png": ([0], [1.0])}, "fp32"),
        (changed("a.jpg", ids=[3, 1, 2, 4], scores=[0.7, 0.2, 0.01, 0.009]), "fp32"),
    ],
)
def test_equal_predictions(place, capsys, log, precision):
    assert compare_results.main(place(log, precision)) == 0
    stored = {"fp32": "python_M_results_fp32", "int8": "lite_M_results_int8"}[precision]
    assert (
        capsys.readouterr().out
        == f"x_precision_{precision}_batchsize_1.log: equals, on 2 images, {stored}.txt\n"
    )


@pytest.mark.parametrize(
    "log, precision, message",
    [
        (
            changed("a.jpg", scores=[0.7, 0.2004, 0.01]),
            "fp32",
            "a.jpg: score 0.2004 of class 1, expected 0.2 within 1e-05 + 0.001 of it",
        ),
        (changed("b.png", scores=[0.9, 0.05, float("nan")]), "fp32", "b.png: score nan of class 0"),
        (
            changed("b.png", scores=[0.93, 0.05, 0.02]),
            "int8",
            "b.png: score 0.93 of class 1, expected 0.9 within 0.0001 + 0.02 of it",
        ),
        (changed("b.png", ids=[1, 0, 3]), "fp32", "b.png: classes [1, 0, 3], expected [1, 3, 0]"),
        (
            changed("b.png", ids=[1, 3], scores=[0.9, 0.05]),
            "fp32",
            "b.png: classes [1, 3], expected [1, 3, 0]",
        ),
        ({"a.jpg": DEFAULT["a.jpg"]}, "fp32", "b.png: no prediction"),
    ],
)
def test_differing_predictions_are_named(place, capsys, log, precision, message):
    assert compare_results.main(place(log, precision)) == 1
    out = capsys.readouterr().out
    assert message in out and "differs from" in out and out.count("\n") == 2


@pytest.mark.parametrize(
    "log, precision, message",
    [
        ("", "fp32", "no predictions"),
        ("a.jpg: shirt 0.7\n", "fp32", "no predictions"),
        ('a.jpg\t{"class_ids": [1', "fp32", "line 1: "),
        ('a.jpg\t{"class_ids": [1]}', "fp32", 'expected {"class_ids": [...], "scores": [...]}'),
        ('a.jpg\t{"class_ids": [1], "scores": []}', "fp32", "1 classes and 0 scores"),
        (lines(DEFAULT) + lines(DEFAULT), "fp32", "4 predictions for 2 images"),
        (DEFAULT, "fp16", "none of the stored files is for it"),
        (DEFAULT, "bf16", "no name says precision_fp32"),
    ],
)
def test_what_cannot_be_compared_is_one_line(place, capsys, log, precision, message):
    assert compare_results.main(place(log, precision)) == 1
    output = capsys.readouterr()
    assert (
        output.err.startswith("error: ")
        and output.err.count("\n") == 1
        and message in output.err
        and "equals" not in output.out
    )


@pytest.mark.parametrize(
    "content", ["{}", "[1]", '[{"class_ids": [1]}]', "[", '{"file_name": "a.jpg"}']
)
def test_what_is_no_list_of_predictions_is_not_stored(tmp_path, capsys, content):
    (tmp_path / "x.json").write_text(content)
    assert (
        compare_results.main(
            ["--write", f"--gt_file={tmp_path}/stored.txt", f"--log_file={tmp_path}/x.json"]
        )
        == 1
    )
    assert capsys.readouterr().err.startswith("error: ") and not (tmp_path / "stored.txt").exists()


OBJECTS = [
    {
        "class_id": 1,
        "score": round(0.9 - i / 100, 2),
        "box": [i, 2.0, 30.5 + i, 40.0],
        "pixels": 200,
    }
    for i in range(10)
]
CLASSES = [{"class_id": 3, "share": 0.75}, {"class_id": 0, "share": 0.25}]


def dense_log(record):
    return f"started\na.png\t{json.dumps(record)}\n"


def with_first(**changes):
    """OBJECTS in another order, the first of them changed."""
    return {"objects": [*OBJECTS[1:], {**OBJECTS[0], **changes}]}


@pytest.mark.parametrize(
    "stored, log, differ",
    [
        ({"objects": OBJECTS}, with_first(), None),
        (
            {"objects": OBJECTS},
            with_first(score=0.9005, box=[0.05, 2.0, 30.5, 40], pixels=204),
            None,
        ),
        ({"objects": OBJECTS[:9]}, with_first(class_id=0), "no object of class 1, score 0.9, box"),
        ({"objects": OBJECTS[:9]}, with_first(score=0.91), "no object of class 1, score 0.9, box"),
        ({"objects": OBJECTS[:9]}, with_first(box=[0, 2.2, 30.5, 40]), "no object of class 1"),
        ({"objects": OBJECTS[:9]}, with_first(pixels=220), "no object of class 1, score 0.9, box"),
        # one of ten
        ({"objects": OBJECTS}, with_first(class_id=0), None),
        ({"objects": OBJECTS}, {"objects": []}, "no object of class 1, score 0.81"),
        ({"objects": OBJECTS}, {"classes": CLASSES}, "a.png: classes, expected objects"),
        ({"classes": CLASSES[:1]}, {"classes": CLASSES}, None),
        ({"classes": CLASSES[:1]}, {"classes": [{"class_id": 3, "share": 0.7515}]}, None),
        ({"classes": CLASSES[:1]}, {"classes": [{"class_id": 3, "share": 0.7525}]}, "score 0.7525"),
        ({"classes": CLASSES[:1]}, {"classes": CLASSES[::-1]}, "classes [0, 3], expected [3]"),
    ],
)
def test_objects_and_label_maps(place, capsys, stored, log, differ):
    arguments = place(dense_log(log), stored=())
    folder = Path(arguments[0].partition("=")[2]).parent
    (folder / "python_M_results_fp32.txt").write_text(dense_log(stored))
    assert compare_results.main(arguments) == (differ is not None)
    assert (differ or "equals, on 1 images") in capsys.readouterr().out


def test_objects_and_label_maps_are_stored(tmp_path, capsys):
    """The best objects with the sizes of their masks; the largest classes but the last."""
    pytest.importorskip("pycocotools", reason="the extra det")
    mask = {"size": [4, 3], "counts": "125ON"}  # three pixels
    objects = [{**one, "mask": mask} for one in OBJECTS * 4]
    for one in objects:
        del one["pixels"]
    for record, expected in (
        ({"objects": objects}, {"objects": [{**one, "pixels": 3} for one in (OBJECTS * 4)[:30]]}),
        ({"classes": CLASSES}, {"classes": CLASSES[:1]}),
    ):
        log = tmp_path / "x.log"
        log.write_text("".join(dense_log(record).replace("a.png", f"{i}.png") for i in range(4)))
        gt = tmp_path / "gt.txt"
        assert compare_results.main(["--write", f"--gt_file={gt}", f"--log_file={log}"]) == 0
        lines = gt.read_text().splitlines()
        assert len(lines) == 4 and json.loads(lines[0].partition("\t")[2]) == expected


def test_files_that_are_not_there_or_ambiguous(place, tmp_path, capsys):
    gt, logs = place(DEFAULT)
    assert (
        compare_results.main([gt, f"--log_file={tmp_path}/none*.log"]) == 1
        and "none*.log: no such file" in capsys.readouterr().err
    )
    assert (
        compare_results.main([f"--gt_file={tmp_path}/none", logs]) == 1
        and "none: no such file" in capsys.readouterr().err
    )
    gt, logs = place(DEFAULT, stored=("paddle_M_results_fp32",))
    assert (
        compare_results.main([gt, logs]) == 1
        and "2 of the stored files is for it" in capsys.readouterr().err
    )


def test_tolerances_can_be_given(place):
    log = place(changed("a.jpg", scores=[0.72, 0.2, 0.01]))
    assert compare_results.main(log) == 1
    assert compare_results.main([*log, "--rtol=0.03"]) == 0
    assert compare_results.main([*log, "--atol=0.021", "--rtol=0"]) == 0
    assert compare_results.main([*place(DEFAULT), "--atol=0", "--rtol=0"]) == 0


def test_logs_of_one_precision(place, capsys):
    place(changed("b.png", ids=[1, 0, 3]), "int8")
    logs = place(DEFAULT, "fp32")
    assert compare_results.main(logs) == 1
    assert (
        compare_results.main([*logs, "--precision=fp32"]) == 0
        and compare_results.main([*logs, "--precision=int8"]) == 1
    )
    assert (
        compare_results.main([*logs, "--precision=fp16"]) == 1
        and "no name says precision_fp16" in capsys.readouterr().err
    )


def test_what_is_stored_has_no_ties_and_one_class_less(tmp_path, capsys):
    """The order of two classes with almost the same score may differ from engine to engine."""
    predictions = {f"{index}.png": ([1, 2, 3], [0.5, 0.3, 0.1]) for index in range(4)}
    predictions["tie.png"] = [1, 2, 3], [0.5, 0.302, 0.3]
    log = tmp_path / "x.log"
    log.write_text(lines(predictions))
    arguments = ["--write", f"--gt_file={tmp_path / 'stored.txt'}", f"--log_file={log}"]
    assert compare_results.main(arguments) == 0 and "4 of 5 images" in capsys.readouterr().out
    assert compare_results.read_predictions(tmp_path / "stored.txt") == {
        f"{index}.png": ("class_ids", [1, 2], [0.5, 0.3], (), ()) for index in range(4)
    }
    del predictions["0.png"]
    log.write_text(lines(predictions))
    assert (
        compare_results.main(arguments) == 1
        and "3 of 4 images have classes that do not nearly tie" in capsys.readouterr().err
    )


def test_every_variant_has_stored_predictions():
    """Paddle Lite's of those with which its chain was shown to run."""
    lite = {record["model"] for record in status.read_records() if record["chain"] == "lite"}
    assert set(status.FAMILIES["Next-ViT"]) <= lite
    for model in status.VARIANTS:
        for engine, precision in (("python", "fp32"), ("lite", "int8"))[: 1 + (model in lite)]:
            found = compare_results.read_predictions(
                RESULTS / f"{engine}_{model}_results_{precision}.txt"
            )
            assert len(found) >= compare_results.FEWEST
            for a, b in itertools.permutations(found, 2):
                swapped = compare_results.differences(
                    {b: found[b]}, {b: found[a]}, *compare_results.TOLERANCES[precision]
                )
                assert swapped, f"{model}: {a} for {b} would not be noticed"


# The chains' own errors


def edited(tmp_path, chain, *changes):
    """A txt file of the chain for NextViT_small with text replaced."""
    text = (CONFIGS / FILES[chain].format("NextViT_small")).read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "x.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "chain, change, message",
    [
        (
            cpp,
            ("precision:fp32", "precision:fp16"),
            "x.txt, line 13: precision is 'fp16', expected fp32",
        ),
        (
            cpp,
            ("use_tensorrt:False", "use_tensorrt:True"),
            "x.txt, line 12: use_tensorrt is 'True', expected False",
        ),
        (
            cpp,
            ("_dir:./test_tipc/models/NextViT_small", "_dir:./none"),
            "./none: not there; first run: bash test_tipc/prepare.sh",
        ),
        (
            serving,
            ("_dir:./test_tipc/models/NextViT_small", "_dir:./none"),
            "./none: not there; first run: bash test_tipc/prepare.sh",
        ),
        (serving, ("--device:cpu|gpu", "--device:tpu"), "--device is 'tpu', expected cpu or gpu"),
        (
            paddle2onnx,
            ("--images:./test_tipc/data/images", "--images:./none"),
            "./none: not there; first run: bash test_tipc/prepare.sh",
        ),
        (
            lite,
            ("image_dir:./test_tipc/data/images", "image_dir:./none"),
            "./none: not there; first run: bash test_tipc/prepare.sh",
        ),
        (lite, ("FP32|INT8", "FP16"), "--precision_list is 'FP16', expected FP32 or INT8"),
    ],
)
def test_what_cannot_begin_is_one_line(tmp_path, capsys, monkeypatch, chain, change, message):
    # all that prepare.sh makes is there, but for ./none
    original = chain.prepared
    monkeypatch.setattr(
        chain, "prepared", lambda path, *rest: original(path, *rest) if path == "./none" else path
    )
    monkeypatch.setattr(chain, "Chain", None)  # nothing is begun
    assert chain.main([edited(tmp_path, chain, change), MODES[chain]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


@pytest.mark.parametrize("chain", [cpp, serving])
def test_a_gpu_may_be_named_after_the_mode(tmp_path, capsys, monkeypatch, chain):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    path = edited(tmp_path, chain, ("_dir:./test_tipc/models/NextViT_small", "_dir:./none"))
    assert (
        chain.main([path, MODES[chain], "all"]) == 2
        and "'all', expected the number of a GPU" in capsys.readouterr().err
    )
    assert (
        chain.main([path, MODES[chain], "1"]) == 2
        and "./none: not there" in capsys.readouterr().err
    )
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1", "what its commands see"


def test_modes_are_the_chain_s_own(tmp_path, capsys):
    for chain, mode in MODES.items():
        assert chain.main([edited(tmp_path, chain), mode.replace("infer", "infre")]) == 2
        assert f"did you mean {mode!r}?" in capsys.readouterr().err


class Recorder:
    """A chain that keeps what it is told."""

    def __init__(self):
        self.skipped, self.commands = [], []

    def skip(self, what, why):
        self.skipped.append(f"{what}: {why}")

    def run(self, command, log, env=None):
        self.commands.append(command)
        return True


def test_converter_of_paddle_lite(tmp_path, monkeypatch):
    """The one given; else that of an environment made for it; else the chain says what is
    missing.
    """
    monkeypatch.setattr(lite, "MODELS", tmp_path)
    monkeypatch.setattr(lite, "python37", lambda: None)
    monkeypatch.delenv("PADDLE_LITE_OPT", raising=False)
    chain = Recorder()
    assert lite.converter(chain) is None
    assert (
        chain.skipped
        == ["the conversion for Paddle Lite: its wheel needs Python 3.7, and there is none"]
        and not chain.commands
    )
    monkeypatch.setattr(lite, "python37", lambda: "/python3.7")
    assert lite.converter(chain) == tmp_path / "paddlelite" / "bin" / "paddle_lite_opt"
    assert [str(command[0]) for command in chain.commands] == [
        "/python3.7",
        str(tmp_path / "paddlelite" / "bin" / "pip"),
    ]
    monkeypatch.setenv("PADDLE_LITE_OPT", "/bin/sh")
    assert (
        str(lite.converter(chain)) == "/bin/sh"
        and len(chain.commands) == 2
        and len(chain.skipped) == 1
    )
    monkeypatch.setenv("PADDLE_LITE_OPT", "/none")
    with pytest.raises(FileNotFoundError, match="PADDLE_LITE_OPT is /none: no such program"):
        lite.converter(chain)


def test_what_a_phone_needs(tmp_path, monkeypatch):
    for name in ("NDK", "LITE", "DEPS", "ADB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lite.missing_for_a_phone() == "no NDK, LITE, DEPS, adb"
    for name in ("NDK", "LITE", "DEPS"):
        monkeypatch.setenv(name, "/x")
    (tmp_path / "adb").write_text("#!/bin/sh\n")
    (tmp_path / "adb").chmod(0o755)
    assert lite.missing_for_a_phone() == ""
    monkeypatch.setenv("ADB", "ssh phone adb")
    assert lite.missing_for_a_phone() == "no ssh"


# The client

SERVER = """
import http.server, json, signal, sys, urllib.parse
kind, port = sys.argv[1], int(sys.argv[2].removeprefix("--port="))
signal.signal(signal.SIGTERM, lambda *rest: sys.exit(3 if kind == "bad end" else 0))
if kind == "no start":
    sys.exit(5)

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404, "ok")
    def do_POST(self):
        size = len(self.rfile.read(int(self.headers["Content-Length"])))
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        topk = int(query.get("topk", ["5"])[0])
        best = [{"class_id": size + i, "label": f"c{i}", "score": 0.5 - i / 10} for i in range(topk)]
        told = {"predictions": best, "batch_size": 1}
        if kind in ("objects", "classes"):
            told = {"height": 2, "width": 3, kind: [{"class_id": size}], **query}
        self.answer(500 if kind == "error" else 200, json.dumps(told))
    def log_message(self, *rest):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for name, content in (("b.png", "12"), ("a.jpg", "1"), ("labels.txt", "1234")):
        (tmp_path / "images" / name).write_text(content)
    (tmp_path / "server.py").write_text(SERVER)
    return tmp_path / "images"


def ask(images, kind, *options):
    server = images.parent / "server.py"
    return client.main(
        [
            f"--server={server} '{kind}'",
            f"--images={images}",
            f"--json={images.parent / 'p.json'}",
            *options,
        ]
    )


def test_client_asks_for_every_image(images, capfd):
    assert ask(images, "good", "--topk=2", "--clients=2") == 0
    found = json.loads((images.parent / "p.json").read_text())
    assert [
        (os.path.basename(one["file_name"]), one["class_ids"], one["scores"]) for one in found
    ] == [("a.jpg", [1, 2], [0.5, 0.4]), ("b.png", [2, 3], [0.5, 0.4])]
    assert (
        "2 answers, at most 1 images at once; the server ended with exit status 0"
        in capfd.readouterr().out
    )


@pytest.mark.parametrize("kind", ["objects", "classes"])
def test_client_of_a_detector_or_a_segmentor(images, capfd, kind):
    assert ask(images, kind) == 0
    found = json.loads((images.parent / "p.json").read_text())
    names = [str(images / name) for name in ("a.jpg", "b.png")]
    assert found == [
        {"file_name": name, "height": 2, "width": 3, kind: [{"class_id": size}]}
        for name, size in zip(names, (1, 2), strict=True)
    ]
    assert f"a.jpg: 1 {kind}\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    "kind, message",
    [
        ("error", "a.jpg: status 500"),
        ("no start", "exit status 5 before it was ready"),
        ("bad end", "ended with exit status 3"),
    ],
)
def test_client_fails_with_its_server(images, capfd, kind, message):
    assert ask(images, kind) == 1
    output = capfd.readouterr()
    assert message in output.err + output.out


def test_a_signal_to_the_client_ends_its_server_too(images):
    pid = images.parent / "pid"
    (images.parent / "server.py").write_text(
        "import os, sys, time\n"
        "print(os.getpid(), file=open(sys.argv[1], 'w'), flush=True)\ntime.sleep(99)\n"
    )
    command = [
        sys.executable,
        "-m",
        "test_tipc.chains.client",
        f"--server={images.parent / 'server.py'} {pid}",
        f"--images={images}",
    ]
    with subprocess.Popen(command, cwd=ROOT) as asks:
        while not (pid.exists() and pid.read_text().endswith("\n")):
            assert asks.poll() is None
            time.sleep(0.1)
        asks.terminate()
        assert asks.wait() == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


# The record of what ran


@pytest.fixture
def output(tmp_path, monkeypatch):
    """log(model, mode, chain, outcomes, last line) writes a results log below the folder that it
    returns; status.json is a new one.
    """
    monkeypatch.setattr(status, "RECORDS", tmp_path / "status.json")

    def log(model, mode, chain, words, finished=None):
        folder = tmp_path / "output" / model / mode
        folder.mkdir(parents=True, exist_ok=True)
        counts = [words.count(kind) for kind in ("Run successfully", "Run failed", "Skipped")]
        last = (
            "Finished - {} - {} succeeded, {} failed, {} skipped !".format(model, *counts)
            if finished is None
            else finished
        )
        found = [f"{word} with command - {model} - do - x.log !" for word in words] + [last]
        (folder / f"results_{chain}.log").write_text(
            "".join(f"\033[33m {line} \033[0m\n" for line in found)
        )
        return tmp_path / "output"

    return log


OK, BAD, SKIP = "Run successfully", "Run failed", "Skipped"


def test_only_what_ran_without_failure_is_recorded(output, capsys):
    output("M", "cpp_infer", "cpp", [OK, OK, SKIP])
    output("N", "cpp_infer", "cpp", [OK, BAD])
    folder = output("M", "lite_infer", "serving", [SKIP])
    assert status.main(["--record", str(folder)]) == 1
    (record,) = status.read_records()
    assert status.identity(record) == ("M", "cpp", "cpp_infer") and (
        record["succeeded"],
        record["skipped"],
    ) == (2, 1)
    assert set(record["versions"]) == {"python", "paddlepaddle"} and len(record["date"]) == 10
    assert "1 failed, 1 succeeded; not recorded" in capsys.readouterr().err


def test_a_newer_run_replaces_the_record(output):
    folder = output("M", "cpp_infer", "cpp", [OK])
    assert status.main(["--record", str(folder)]) == 0
    output("M", "cpp_infer", "cpp", [OK, OK])
    output("M", "whole_infer", "train", [OK])
    assert status.main(["--record", str(folder)]) == 0
    assert [(record["chain"], record["succeeded"]) for record in status.read_records()] == [
        ("cpp", 2),
        ("train", 1),
    ]


@pytest.mark.parametrize("last", ["", "Finished - M - 1 succeeded, 0 failed, 0 skipped !"])
def test_an_interrupted_chain_is_not_recorded(output, capsys, last):
    output("N", "cpp_infer", "cpp", [OK])
    assert status.main(["--record", str(output("M", "cpp_infer", "cpp", [OK, OK], last))]) == 1
    assert "did not come to its end; not recorded" in capsys.readouterr().err
    assert [record["model"] for record in status.read_records()] == ["N"]


def test_table_ticks_what_is_recorded():
    record = {
        "model": "NextViT_base_224",
        "chain": "cpp",
        "mode": "cpp_infer",
        "date": "2026-01-02",
        "succeeded": 9,
        "skipped": 2,
        "versions": {"python": "3.11.7"},
    }
    new = {**record, "model": "NextViT_small", "chain": "new", "date": "2026-01-03"}
    others = {**record, "model": "TransNeXt_micro", "chain": "another"}
    table = status.table([record, new, others], status.FAMILIES["Next-ViT"])
    assert table.count("✓") == 2
    assert (
        "| C++ | `cpp_infer` |  |  | ✓ |  |  |  |  | 9 | 2 | 2026-01-02 | python 3.11.7 |\n"
        in table
    )
    assert table.endswith(
        "| new | `cpp_infer` | ✓ |  |  |  |  |  |  | 9 | 2 | 2026-01-03 | python 3.11.7 |\n"
    )


def test_readme_has_the_table_of_what_is_recorded():
    assert status.main(["--check"]) == 0
    records = status.read_records()
    assert {record["model"] for record in records} <= set(status.VARIANTS)
    assert len({status.identity(record) for record in records}) == len(records)


def test_a_table_of_something_else_is_refused(tmp_path, monkeypatch, capsys):
    text = status.README.read_text(encoding="utf-8")
    monkeypatch.setattr(status, "README", tmp_path / "README.md")
    status.README.write_text(text.replace(status.START, status.START + "| ✓ |\n"), encoding="utf-8")
    assert status.main(["--check"]) == 1 and "--write" in capsys.readouterr().err
    assert status.main(["--write"]) == 0 and status.README.read_text(encoding="utf-8") == text
    status.README.write_text("nothing", encoding="utf-8")
    assert status.main(["--check"]) == 1


@pytest.mark.parametrize(
    "task, right", [("detection", "det"), ("segmentation", "seg"), ("classification", "cls")]
)
def test_a_file_for_c_says_the_model_s_task(tmp_path, task, right):
    (tmp_path / "export.json").write_text(json.dumps({"Model": {"task": task}}))
    for kind in cpp.TYPES.values():
        path = tmp_path / "M.txt"
        text = (CONFIGS / FILES[cpp].format("NextViT_small")).read_text(encoding="utf-8")
        path.write_text(text.replace("cpp_infer_type:cls", f"cpp_infer_type:{kind}"))
        section = read_params(path)["cpp_infer_params"]
        if kind == right:
            cpp.check_type(section, tmp_path)
            continue
        message = f"cpp_infer_type is '{kind}', expected {right}, as the model's task is {task}"
        with pytest.raises(ParamsError, match=message):
            cpp.check_type(section, tmp_path)
    for damaged in ("{", "[]", '{"Model": {"task": "other"}}'):
        (tmp_path / "export.json").write_text(damaged)
        with pytest.raises(ParamsError, match="export.json: "):
            cpp.check_type(section, tmp_path)


# Whole chains, for NextViT_small, by the shell files


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with what prepare.sh makes for the deployment chains."""
    folder = make_checkout(tmp_path_factory.mktemp("tipc") / "checkout")
    done = bash(folder, "prepare.sh", FILES[cpp].format("NextViT_small"), "cpp_infer")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def files_of(checkout):
    """The files that are no output of a chain."""
    made = {"data", "models", "output", "build", "__pycache__"}
    paths = (
        path.relative_to(checkout)
        for folder in ("test_tipc", "deploy")
        for path in (checkout / folder).rglob("*")
    )
    return {path for path in paths if not made & set(path.parts)}


def assert_runs(checkout, script, chain, expected, skipped, model="NextViT_small"):
    """The chain succeeds, with so many commands and such a skip, and writes nothing but output."""
    before = files_of(checkout)
    done = bash(checkout, script, FILES[chain].format(model), MODES[chain])
    assert done.returncode == 0, done.stdout + done.stderr
    found = outcomes(checkout, model, MODES[chain], chain.__name__.rpartition(".")[2])
    successes = [
        line for line in found if line.startswith(f"Run successfully with command - {model} - ")
    ]
    assert (
        len(successes) == expected and sum("compare_results.py" in line for line in successes) >= 1
    )
    rest = [line for line in found[:-1] if line not in successes]
    assert all(
        line.startswith(f"Skipped with command - {model} - ") and skipped in line for line in rest
    )
    assert files_of(checkout) == before != set()


def variant_of_cpp(checkout, *changes):
    """Run the C++ chain with an edited txt file; (exit status, stdout, the failures in its results
    log).
    """
    text = (CONFIGS / FILES[cpp].format("NextViT_small")).read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = checkout / "test_tipc" / "configs" / "NextViT" / "edited.txt"
    path.write_text(text, encoding="utf-8")
    done = bash(checkout, "test_inference_cpp.sh", path.name, "cpp_infer")
    path.unlink()
    return (
        done.returncode,
        done.stdout,
        [
            line
            for line in outcomes(checkout, "NextViT_small", "cpp_infer", "cpp")
            if "Run failed" in line
        ],
    )


@pytest.mark.chain
def test_cpp_infer(checkout):
    if not shutil.which("cmake"):
        cpp_programs.unavailable("no CMake")
    assert_runs(checkout, "test_inference_cpp.sh", cpp, 2 + 8 + 1, "no GPU")

    # a broken command
    returned, out, failed = variant_of_cpp(checkout, ("build/classify", "build/classifies"))
    assert returned == 1 and sum("- ./deploy/cpp/build/classifies " in line for line in failed) == 8
    assert len(failed) == 9 and "compare_results.py" in failed[8], "their logs hold no predictions"
    assert "No such file or directory: './deploy/cpp/build/classifies'" in out

    # a wrong prediction
    stored = checkout / "test_tipc" / "results" / "python_NextViT_small_results_fp32.txt"
    text = stored.read_text()
    score = json.loads(text.splitlines()[0].partition("\t")[2])["scores"][0]
    stored.write_text(text.replace(f"{score}", f"{score * 1.01:.7g}", 1))
    few = (
        ("batch_size:1|8", "batch_size:8"),
        ("cpu_threads:1|2", "cpu_threads:1"),
        ("enable_mkldnn:True|False", "enable_mkldnn:True"),
    )
    returned, out, failed = variant_of_cpp(checkout, *few)
    stored.write_text(text)
    assert (
        returned == 1
        and len(failed) == 1
        and "compare_results.py" in failed[0]
        and f"expected {score * 1.01:.7g}" in out
    )


@pytest.mark.chain
@pytest.mark.parametrize("model", DENSE)
def test_cpp_and_serving_infer_of_a_detector_and_a_segmentor(checkout, model):
    if not shutil.which("cmake"):
        cpp_programs.unavailable("no CMake")
    pytest.importorskip("pycocotools", reason="the extra det")
    done = bash(checkout, "prepare.sh", FILES[cpp].format(model), "cpp_infer")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_runs(checkout, "test_inference_cpp.sh", cpp, 2 + 4 + 1, "no GPU", model)
    # the same export in the service
    assert_runs(checkout, "test_serving_infer_python.sh", serving, 1 + 1, "no GPU", model)


@pytest.mark.chain
def test_paddle2onnx_infer(checkout):
    pytest.importorskip("paddle2onnx", reason="needs the extra `onnx`")
    assert_runs(checkout, "test_paddle2onnx.sh", paddle2onnx, 1 + 4 + 1, "nothing")


@pytest.mark.chain
@pytest.mark.parametrize("model", DENSE)
def test_paddle2onnx_infer_of_a_detector_and_a_segmentor(checkout, model):
    """Objects, masks and label maps are those that tools/infer.py gave."""
    for package in ("paddle2onnx", "onnxruntime", "pycocotools"):
        pytest.importorskip(package, reason="the extras `onnx` and `det`")
    done = bash(checkout, "prepare.sh", FILES[paddle2onnx].format(model), "paddle2onnx_infer")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_runs(checkout, "test_paddle2onnx.sh", paddle2onnx, 1 + 2 + 1, "nothing", model)


@pytest.mark.chain
def test_lite_infer(checkout):
    if "PADDLE_LITE_OPT" not in os.environ and not lite.python37():
        pytest.skip("Paddle Lite's wheel needs Python 3.7, and there is none")
    if not shutil.which("make"):
        cpp_programs.unavailable("no make")
    installation = 0 if "PADDLE_LITE_OPT" in os.environ else 2
    assert_runs(
        checkout, "test_lite_arm_cpu_cpp.sh", lite, installation + 4 + 1 + 8 + 2, "run_adb.sh"
    )
