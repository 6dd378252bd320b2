"""The safe reader: every format right, every damaged or dangerous file one line, thousands of
mutations survived.
"""

import io
import json
import mmap
import os
import pickle
import pickletools
import random
import resource
import struct
import time
import zipfile
from collections import OrderedDict

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from ppcls_nextvit.weights import WeightFileError, read_file
from ppcls_nextvit.weights.formats import unpickler
from ppcls_nextvit.weights.formats.errors import FormatError, PickleError
from ppcls_nextvit.weights.formats.safetensors import write_safetensors
from support.faults import SEED, many
from support.hostile_weights import HOSTILE
from support.mutated_weights import MadePickle, mutated_header, mutated_member
from support.torch_writer import Global, Instance, Storage, Tensor, write_legacy, write_zip

FLOATS = np.array([1.5, -2.25, 3e-3, 65504.0], np.float32)


def bfloat16(values):
    """The upper halves of float32 values, rounded down: what a bfloat16 storage holds."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def mapped(array):
    """Whether `array` is a view of a mapped file."""
    while hasattr(array, "base"):
        array = array.base
    return isinstance(array.obj if isinstance(array, memoryview) else array, mmap.mmap)


def checkpoint():
    """A torch checkpoint with everything that occurs in published ones, and what should be read
    from it.
    """
    shared = Storage(np.arange(12, dtype=np.float32))
    tree = {
        "model": OrderedDict(
            plain=Tensor(shared, 0, (3, 4)),
            transposed=Tensor(shared, 0, (4, 3), (1, 4)),
            part=Tensor(shared, 5, (2, 2), (4, 2)),
            expanded=Tensor(shared, 3, (2, 3), (0, 1)),
            half=Tensor(FLOATS.astype(np.float16)),
            brain=Tensor(Storage(bfloat16([1.0, -0.5, 1e30]), "bf16"), shape=(3,)),
            scalar=Tensor(np.array(7, np.int64)),
            empty=Tensor(np.zeros((2, 0), np.float32)),
            flags=Tensor(np.array([True, False])),
            old=Tensor(FLOATS, rebuild="_rebuild_tensor"),
        ),
        "epoch": 299,
        "lr": [1e-3, None, True, -5, 2**40, "text", b"bytes"],
        "args": Instance("argparse", "Namespace", lr=1e-3, model="nextvit_small"),
        "meta": {
            "CLASSES": ("cat", "dog"),
            "hook": Instance("mmengine.logging.history_buffer", "HistoryBuffer", max_length=10),
        },
        "dtype": Global("torch", "float32"),
    }
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = {
        "plain": grid,
        "transposed": grid.T,
        "part": np.array([[5, 7], [9, 11]], np.float32),
        "expanded": np.array([[3, 4, 5]] * 2, np.float32),
        "half": FLOATS.astype(np.float16),
        "brain": bfloat16([1.0, -0.5, 1e30]).astype(np.uint32).__lshift__(16).view(np.float32),
        "scalar": np.array(7),
        "empty": np.zeros((2, 0), np.float32),
        "flags": np.array([True, False]),
        "old": FLOATS,
    }
    return tree, expected


def assert_same(state, expected):
    assert list(state) == list(expected)
    for key, value in expected.items():
        assert state[key].dtype == value.dtype and state[key].shape == value.shape, key
        assert np.array_equal(state[key], value), key


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_torch_formats(tmp_path, write):
    tree, expected = checkpoint()
    read = read_file(write(tmp_path / "file.pth", tree))
    assert_same(read["model"], expected)
    assert read["epoch"] == 299 and read["lr"] == [1e-3, None, True, -5, 2**40, "text", b"bytes"]
    assert read["args"].name == "argparse.Namespace" and read["args"].state == {
        "lr": 1e-3,
        "model": "nextvit_small",
    }
    assert read["meta"]["CLASSES"] == ("cat", "dog") and read["meta"]["hook"].state == {
        "max_length": 10
    }
    assert repr(read["dtype"]) == "<inert torch.float32>"
    assert mapped(read["model"]["plain"]) and not read["model"]["plain"].flags.writeable
    assert np.shares_memory(read["model"]["plain"], read["model"]["transposed"])


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_paddle_save(tmp_path, protocol):
    layer = paddle.nn.Linear(2, 3)
    state = layer.state_dict()
    path = str(tmp_path / "model.pdparams")
    paddle.save(state, path, protocol=protocol)
    # and no name table beside them
    assert_same(read_file(path), {key: value.numpy() for key, value in state.items()})
    brain = paddle.to_tensor([1.0, -0.5]).astype("bfloat16")
    paddle.save(
        {"model": state, "epoch": 3, "bf16": brain, "array": np.arange(3), "s": np.float64(0.5)},
        path,
        protocol=protocol,
    )
    read = read_file(path)
    assert_same(read["model"], {key: value.numpy() for key, value in state.items()})
    assert read["epoch"] == 3 and read["s"] == 0.5 and np.array_equal(read["array"], np.arange(3))
    assert read["bf16"].dtype == np.float32 and read["bf16"].tolist() == [1.0, -0.5]


def test_large_arrays_of_paddle_are_views_of_the_file(tmp_path):
    paddle.save({"w": paddle.ones([64, 64])}, str(tmp_path / "w.pdparams"))
    assert mapped(read_file(tmp_path / "w.pdparams")["w"])


def test_optimizer_state(tmp_path):
    layer = paddle.nn.Linear(2, 3)
    optimizer = paddle.optimizer.AdamW(parameters=layer.parameters())
    layer(paddle.ones([1, 2])).sum().backward()
    optimizer.step()
    expected = {key: value.numpy() for key, value in optimizer.state_dict().items()}
    paddle.save(optimizer.state_dict(), str(tmp_path / "o.pdopt"))
    assert_same(read_file(tmp_path / "o.pdopt"), expected)


def test_safetensors(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "h": FLOATS.astype(np.float16),
        "n": np.array(3),
        "e": np.zeros((0, 2)),
    }
    save_file(arrays, tmp_path / "a.safetensors", metadata={"format": "pt"})
    read = read_file(tmp_path / "a.safetensors")
    assert_same({key: read[key] for key in arrays}, arrays)
    assert mapped(read["a"])
    header = json.dumps({"b": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "b.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header + bfloat16([1.0, -0.5]).tobytes()
    )
    assert read_file(tmp_path / "b.safetensors")["b"].tolist() == [1.0, -0.5]


def test_the_safetensors_that_we_write_are_read_by_the_format_s_own_library(tmp_path):
    arrays = {
        "odd": np.arange(3, dtype=np.uint8),
        "count": np.array(5),
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    }
    write_safetensors(arrays, tmp_path / "a.safetensors")
    read = load_file(tmp_path / "a.safetensors")
    assert_same({key: read[key] for key in arrays}, arrays)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "n": np.array(3),
    }
    save(tmp_path / "a.npz", **arrays)
    assert_same(read_file(tmp_path / "a.npz"), arrays)


# ---------------------------------------------------------------- what is refused, and how


class Runs:
    """Pickles into a call of `function`: what a malicious file does."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def pickled(obj, protocol=4):
    return pickle.dumps(obj, protocol)


def zipped(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return stream.getvalue()


def torch_bytes(tree):
    stream = io.BytesIO()
    write_zip(stream, tree)
    return stream.getvalue()


def torch_pickle(tree):
    """The member data.pkl of a torch file."""
    return zipfile.ZipFile(io.BytesIO(torch_bytes(tree))).read("archive/data.pkl")


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def npz(array):
    stream = io.BytesIO()
    np.savez(stream, a=array)
    return stream.getvalue()


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
NESTED_KEY = b"\x80\x04}" + b")" + b"\x85" * 200_000 + b"K\x01s."
BOMB = (
    b"\x80\x04]\x94("
    + b"K\x01" * 20_000
    + b"e"
    + b"".join(b"cbuiltins\nlist\nh\x00\x85R0" for _ in range(100))
    + b"."
)
REFUSED = {
    "os.system": (
        pickled(Runs(os.system, "exit 1")),
        r"refused: the file names '(posix|nt)\.system'",
    ),
    "eval": (
        pickled(Runs(eval, "1+1"), 2),
        r"refused: the file names '(__builtin__|builtins)\.eval'",
    ),
    "import": (pickled(Runs(__import__, "os"), 2), "refused: the file names"),
    "getattr": (
        b"\x80\x02cbuiltins\ngetattr\ncbuiltins\ngetattr\nX\x03\x00\x00\x00abc\x86R.",
        "call builtins.getattr",
    ),
    "class called": (
        b"\x80\x02cbuiltins\nint\nK\x01\x85R.",
        "refused: the file would call builtins.int",
    ),
    "numpy dtype": (pickled({"a": np.array([None], object)}), "only little-endian numbers"),
    "big-endian": (pickled({"a": np.arange(3, dtype=">f4")}), "only little-endian numbers"),
    "structured": (pickled({"a": np.zeros(2, [("x", "f4")])}), "structured array"),
    "protocol 0": (b"\x80\x00(lp0\nI1\na.", "opcode 0x70"),
    "extension": (b"\x80\x02\x82\x01.", "opcode 0x82"),
    "deep key": (NESTED_KEY, "a key of type tuple"),
    "copies": (BOMB, "copies more data than the file holds"),
    "member twice": (
        zipped(a__data_dot_pkl=b"x", b__data_dot_pkl=b"y").replace(b"b/data", b"a/data"),
        "names a member twice",
    ),
    "after the end": (pickled({"a": 1}) + b"more", "4 bytes after the end"),
    "torch in os": (
        zipped(a__data_dot_pkl=pickled(Runs(os.system, "exit 1"))),
        r"refused: the file names '(posix|nt)\.system'",
    ),
    "whole model": (
        torch_bytes({"m": Instance("torch.nn.modules.linear", "Linear")}),
        "torch.nn.modules.linear.Linear.*state_dict",
    ),
    "sparse": (
        torch_bytes({"a": Tensor(FLOATS, rebuild="_rebuild_sparse_tensor")}),
        r"_rebuild_sparse_tensor.*to_dense\(\)",
    ),
    "quantised": (
        torch_bytes({"a": Tensor(FLOATS, rebuild="_rebuild_qtensor")}),
        r"_rebuild_qtensor.*dequantize\(\)",
    ),
    "quantised storage": (
        torch_bytes({"a": Tensor(Storage(FLOATS, "QInt8Storage"), shape=(4,))}),
        "torch.QInt8Storage: a quantised",
    ),
    "float8": (
        torch_bytes({"a": Global("torch", "float8_e4m3fn")}),
        "float8_e4m3fn: an 8-bit float",
    ),
    "meta device": (
        torch_bytes({"a": Tensor(FLOATS, rebuild="_rebuild_meta_tensor_no_storage")}),
        "'meta' device",
    ),
    "outside": (
        torch_bytes({"a": Tensor(Storage(FLOATS), 2, (3,))}),
        "does not fit its storage of 4 elements",
    ),
    "negative stride": (torch_bytes({"a": Tensor(Storage(FLOATS), 3, (3,), (-1,))}), "strides"),
    "spread": (
        torch_bytes({"a": Tensor(Storage(FLOATS), 0, (10**6, 10**6), (0, 0))}),
        "does not fit its storage",
    ),
    "script": (zipped(a__data_dot_pkl=b"", a__constants_dot_pkl=b""), "TorchScript"),
    "big-endian torch": (zipped(a__data_dot_pkl=b"", a__byteorder="big"), "big-endian"),
    "storage missing": (
        zipped(a__data_dot_pkl=torch_pickle({"a": Tensor(FLOATS)})),
        "member 'a/data/0' is missing",
    ),
    "storage too small": (
        zipped(a__data__0=b"1234", a__data_dot_pkl=torch_pickle({"a": Tensor(FLOATS)})),
        "has 4 bytes, the pickle declares 16",
    ),
    "other zip": (zipped(hello="x"), "neither torch.save nor numpy.savez"),
    "objects in npz": (
        npz(np.array([Runs(os.system, "exit 1")], object)),
        "refused: .* Python objects",
    ),
    "header too long": (safetensors(b"{}", length=10**15), "header of 1000000000000000 bytes"),
    "tensor outside": (safetensors({"a": ENTRY}, b"1234"), "lies at 0..8 of 4 bytes"),
    "wrong shape": (
        safetensors({"a": {**ENTRY, "shape": [3]}}, b"12345678"),
        "needs 12 bytes, the file declares 8",
    ),
    "huge shape": (
        safetensors({"a": {**ENTRY, "shape": [10**9, 10**9]}}, b"12345678"),
        "needs 4000000000000000000 bytes",
    ),
    "overlap": (safetensors({"a": ENTRY, "b": ENTRY}, b"12345678"), "overlap"),
    "gap": (safetensors({"a": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)), "gap at byte 0"),
    "rest": (safetensors({"a": ENTRY}, bytes(12)), "describes 8 bytes of tensors, the file has 12"),
    "twice": (safetensors(b'{"a": {}, "a": {}}'), "names a tensor twice"),
    "float8 safetensors": (
        safetensors({"a": {**ENTRY, "dtype": "F8_E4M3"}}, bytes(8)),
        "type F8_E4M3",
    ),
    "no json": (safetensors(b"{broken"), "damaged: JSONDecodeError"),
    "html": (b"<!DOCTYPE html><html>Quota exceeded</html>", "a web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
    "gzip": (b"\x1f\x8b\x08" + bytes(20), "gzip"),
    "tar": (bytes(257) + b"ustar" + bytes(300), "tar archive"),
    "text": (b"hello, world, this is text", "not a weight file"),
    "empty": (b"", "empty file"),
    "one byte": (b"\x80", "ends 1 bytes too early"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_line_that_names_file_and_reason(tmp_path, name):
    content, reason = REFUSED[name]
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=reason) as error:
        read_file(path)
    assert (
        str(error.value).startswith(f"{path}: ")
        and "\n" not in str(error.value)
        and len(str(error.value)) < 600
    )


@pytest.mark.parametrize(
    "name",
    ["objects in npz", "other zip", "storage missing", "script", "overlap", "wrong shape", "tar"],
)
def test_damage_outside_a_pickle_is_no_pickle_s_error(tmp_path, name):
    path = tmp_path / "weights.bin"
    path.write_bytes(REFUSED[name][0])
    with pytest.raises(WeightFileError) as error:
        read_file(path)
    assert isinstance(error.value.__cause__, FormatError)
    in_pickle = name == "storage missing"  # the pickle asks for it
    assert isinstance(error.value.__cause__, PickleError) == in_pickle


def test_the_machine_s_opcodes():
    """Protocols 2 to 5 without what would import, extend or leave the file."""
    names = {op.name for op in pickletools.opcodes if ord(op.code) in unpickler.OPCODES}
    assert len(names) == len(unpickler.OPCODES)
    assert not names & {"INST", "OBJ", "PERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "EVAL"}
    refused = {op.name for op in pickletools.opcodes if op.proto >= 2} - names
    assert refused == {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_small_files_that_ask_for_much(tmp_path, name):
    """Refused at once, in a few times the file's own size; some of them once took hours, or all
    memory.
    """
    make, reason = HOSTILE[name]
    path = tmp_path / "weights.bin"
    path.write_bytes(make())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises(WeightFileError, match=reason) as error:
        read_file(path)
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000  # KiB
    assert len(str(error.value)) < 1000 and str(error.value).isprintable()


def test_what_is_shared_or_packed_within_reason_is_read(tmp_path):
    """Tied weights, and a compressed archive of zeros, which is a thousandth of them."""
    tied = Storage(bfloat16(np.arange(6)), "bf16")
    tree = {"a": Tensor(tied, shape=(6,)), "b": Tensor(tied, shape=(2, 3))}
    read = read_file(write_zip(tmp_path / "tied.pth", tree))
    assert read["b"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] and read["a"].size == 6
    brain = paddle.to_tensor([1.0, -0.5]).astype("bfloat16").numpy()
    (tmp_path / "tied.pdparams").write_bytes(pickled({"a": brain, "b": brain}))
    read = read_file(tmp_path / "tied.pdparams")
    assert read["a"] is read["b"] and read["a"].tolist() == [1.0, -0.5]
    np.savez_compressed(tmp_path / "zeros.npz", a=np.zeros((1 << 20, 8), np.float32))
    assert (tmp_path / "zeros.npz").stat().st_size < 40_000
    assert not read_file(tmp_path / "zeros.npz")["a"].any()
    with zipfile.ZipFile(write_zip(tmp_path / "stored.pth", checkpoint()[0])) as stored:
        with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed:
            for member in stored.namelist():
                packed.writestr(member, stored.read(member))
    assert_same(read_file(tmp_path / "packed.pth")["model"], checkpoint()[1])


def test_names_of_methods_stay_names(tmp_path):
    """mmengine's HistoryBuffer lists its own methods, which pickle writes as getattr(HistoryBuffer,
    "mean"): mmdet 3 and mmseg 1 write it into every checkpoint.
    """
    history = "mmengine.logging.history_buffer"
    buffer = Instance(history, "HistoryBuffer", statistics_methods={"mean": Method(history)})
    hub = {"log_scalars": OrderedDict({"train/loss": buffer}), "runtime_info": {"iter": 80000}}
    tree = {"state_dict": {"w": Tensor(FLOATS)}, "message_hub": hub}
    for write in (write_zip, write_legacy):
        read = read_file(write(tmp_path / "iter_80000.pth", tree))
        assert np.array_equal(read["state_dict"]["w"], FLOATS)
        state = read["message_hub"]["log_scalars"]["train/loss"].state
        method = state["statistics_methods"]["mean"]
        assert repr(method) == f"<inert {history}.HistoryBuffer.mean>" and method.make is None
    for called in (b"cmmengine.a\nB\n", b"cbuiltins\nint\n"):
        made = b"cbuiltins\ngetattr\n" + called + b"X\x01\x00\x00\x00a\x86R"
        (tmp_path / "called.pdparams").write_bytes(b"\x80\x02" + made + b")R.")
        with pytest.raises(WeightFileError, match="refused: the file would call .*a"):
            read_file(tmp_path / "called.pdparams")


class Method:
    """A method of the class HistoryBuffer, as pickle writes it."""

    def __init__(self, module):
        self.module = module

    def __reduce__(self):
        return getattr, (Global(self.module, "HistoryBuffer"), "mean")


def test_hyper_parameters_of_other_programs_are_data(tmp_path):
    for module, kind in (
        ("pytorch_lightning.utilities.parsing", "AttributeDict"),
        ("lightning.fabric.utilities.data", "AttributeDict"),
        ("omegaconf.dictconfig", "DictConfig"),
        ("yacs.config", "CfgNode"),
    ):
        tree = {"hyper_parameters": Instance(module, kind, lr=0.1), "w": Tensor(FLOATS)}
        read = read_file(write_zip(tmp_path / "a.ckpt", tree))
        assert read["hyper_parameters"].state == {"lr": 0.1} and np.array_equal(read["w"], FLOATS)
    for module in ("omegaconf_parts", "lightning.pytorch.callbacks", "yacs.config"):
        with pytest.raises(WeightFileError, match="code to run, not data"):
            read_file(write_zip(tmp_path / "b.ckpt", {"a": Instance(module, "Config")}))


def test_what_is_no_regular_file(tmp_path):
    pipe = tmp_path / "pipe.pdparams"
    os.mkfifo(pipe)
    for path, reason in ((pipe, "not a regular file"), ("a\0b", "cannot be read: embedded null")):
        with pytest.raises(WeightFileError, match=reason):
            read_file(path)
    with pytest.raises(WeightFileError) as error:
        read_file(tmp_path / "new\nline\x1b[31m.pth")
    assert "new\\nline\\x1b[31m.pth: no such file" in str(error.value)


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(buffer):
        return undefined  # noqa: F821 - the mistake

    broken.__code__ = broken.__code__.replace(co_filename=unpickler.__file__)
    path = write_zip(tmp_path / "a.pth", {"w": Tensor(FLOATS)})
    monkeypatch.setattr("ppcls_nextvit.weights.reader._read_zip", broken)
    with pytest.raises(NameError):
        read_file(path)
    monkeypatch.setattr("ppcls_nextvit.weights.reader._read_zip", lambda buffer: 1 / 0)
    with pytest.raises(WeightFileError, match="a.pth: damaged: ZeroDivisionError: division"):
        read_file(path)


def test_no_file_and_a_directory(tmp_path):
    with pytest.raises(WeightFileError, match="nothing.pth: no such file"):
        read_file(tmp_path / "nothing.pth")
    with pytest.raises(WeightFileError, match="a directory"):
        read_file(tmp_path)


def test_nothing_of_the_file_is_run(tmp_path):
    witness = tmp_path / "witness"
    for protocol in (2, 4):
        (tmp_path / "evil.pdparams").write_bytes(
            pickled({"w": Runs(os.mkdir, str(witness))}, protocol)
        )
        with pytest.raises(WeightFileError, match="refused"):
            read_file(tmp_path / "evil.pdparams")
    assert not witness.exists()
    pickle.loads(pickled(Runs(os.mkdir, str(witness))))  # noqa: S301  this is what it would have done
    assert witness.exists()


def test_a_pickle_of_endless_operations(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickler, "PICKLE_OPERATIONS", 1000)
    (tmp_path / "long.pdparams").write_bytes(b"\x80\x04" + b"N0" * 1000 + b"N.")
    with pytest.raises(WeightFileError, match="more than 1000 operations"):
        read_file(tmp_path / "long.pdparams")


def samples(directory):
    """One good file of every format: {name: bytes}."""
    tree, expected = checkpoint()
    write_zip(directory / "zip.pth", tree)
    write_legacy(directory / "legacy.pth", tree)
    paddle.save(
        {"model": paddle.nn.Linear(2, 3).state_dict(), "epoch": 3}, str(directory / "four.pdparams")
    )
    paddle.save(paddle.nn.Linear(2, 3).state_dict(), str(directory / "two.pdparams"), protocol=2)
    save_file(
        {key: np.ascontiguousarray(value) for key, value in expected.items()},
        directory / "a.safetensors",
    )
    np.savez(directory / "a.npz", **expected)
    np.savez_compressed(directory / "b.npz", **expected)
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def mutate(content, rng):
    """(kind, `content` changed in one of the ways in which files break or are forged)."""
    data, place = bytearray(content), rng.randrange(len(content))
    kind = rng.choice(
        ["bit", "byte", "extreme", "cut", "insert", "delete", "repeat", "swap", "many"]
    )
    if kind == "bit":
        data[place] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        data[place] = rng.randrange(256)
    elif kind == "extreme":
        value = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1])
        data[place : place + 8] = value.to_bytes(8, "little")[: len(data[place : place + 8])]
    elif kind == "cut":
        del data[place:]
    elif kind == "insert":
        data[place:place] = rng.randbytes(rng.randrange(1, 32))
    elif kind == "delete":
        del data[place : place + rng.randrange(1, 32)]
    elif kind == "repeat":
        data[place:place] = data[place : place + rng.randrange(1, 200)]
    elif kind == "swap":
        other = rng.randrange(len(data))
        data[place], data[other] = data[other], data[place]
    else:
        for _ in range(rng.randrange(2, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return kind, bytes(data)


def fuzz(directory, count, seed=SEED):
    """Read `count` mutations of each sample; {(sample, kind): [refused, read]}. Anything but
    WeightFileError passes through.
    """
    rng, outcome = random.Random(seed), {}
    good = samples(directory)
    for name, content in good.items():
        for _ in range(count):
            kind, changed = mutate(content, rng)
            path = directory / f"mutated-{name}"
            path.write_bytes(changed)
            tally = outcome.setdefault((name, kind), [0, 0])
            try:
                read_file(path)
                tally[1] += 1
            except WeightFileError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
                tally[0] += 1
    return outcome


@pytest.mark.faults
def test_mutated_files_are_read_or_refused_with_one_line(tmp_path):
    outcome = fuzz(tmp_path, many(60))
    assert sum(map(sum, outcome.values())) == many(60) * 7
    for (name, kind), (_, read) in outcome.items():
        if kind == "cut":
            assert not read, f"a truncated {name} was read"


def random_pickle(rng):
    """Opcodes that the machine knows, in an order that makes no sense."""
    code = bytearray(b"\x80\x04")
    for _ in range(rng.randrange(1, 60)):
        code.append(rng.choice(list(unpickler.OPCODES)))
        if rng.random() < 0.5:
            names = (
                b"builtins\nlist\n",
                b"collections\nOrderedDict\n",
                b"numpy\ndtype\n",
                b"numpy._core.multiarray\n_reconstruct\n",
                b"numpy\nndarray\n",
                b"argparse\nNamespace\n",
            )
            code += rng.choice(
                [rng.randbytes(rng.randrange(9)), b"\x00", b"\x01\x00\x00\x00", *names]
            )
    return bytes(code + b".")


def fuzz_opcodes(directory, count, seed=SEED):
    """Read `count` random pickles; [refused, read]."""
    rng, tally, path = random.Random(seed), [0, 0], directory / "random.pdparams"
    for _ in range(count):
        path.write_bytes(random_pickle(rng))
        try:
            read_file(path)
            tally[1] += 1
        except WeightFileError as error:
            assert "\n" not in str(error)
            tally[0] += 1
    return tally


def fuzz_structure(directory, count, seed=SEED):
    """Read `count` files of each of three kinds, whose changes no checksum and no empty stack
    hides; {kind: [refused, read]}.
    """
    rng, good, path = random.Random(seed), samples(directory), directory / "made"
    archives = [good[name] for name in ("zip.pth", "a.npz", "b.npz")]

    def change(content):
        for _ in range(rng.randrange(1, 4)):
            content = mutate(content, rng)[1] or b"x"
        return content

    kinds = {
        "pickle": lambda: MadePickle(rng).bytes(),
        "member": lambda: mutated_member(rng.choice(archives), change),
        "header": lambda: mutated_header(good["a.safetensors"], rng),
    }
    outcome = {kind: [0, 0] for kind in kinds}
    for kind, make in kinds.items():
        for _ in range(count):
            path.write_bytes(make())
            try:
                read_file(path)
                outcome[kind][1] += 1
            except WeightFileError as error:
                assert str(error).startswith(f"{path}: ") and str(error).isprintable()
                outcome[kind][0] += 1
    return outcome


@pytest.mark.faults
def test_what_is_wrong_inside_is_refused_with_one_line(tmp_path):
    outcome = fuzz_structure(tmp_path, many(150))
    for refused, read in outcome.values():
        assert refused + read == many(150) and refused > many(150) // 2


@pytest.mark.faults
def test_random_pickles_are_read_or_refused(tmp_path):
    refused, read = fuzz_opcodes(tmp_path, many(300))
    assert refused + read == many(300) and refused > many(300) // 2


def test_every_flipped_bit_in_the_data_of_an_archive_is_noticed(tmp_path):
    write_zip(tmp_path / "a.pth", {"w": Tensor(np.arange(64, dtype=np.float32))})
    content = (tmp_path / "a.pth").read_bytes()
    start = content.index(np.arange(64, dtype=np.float32).tobytes())
    for place in range(start, start + 256, 7):
        (tmp_path / "b.pth").write_bytes(
            content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]
        )
        with pytest.raises(WeightFileError, match="checksum"):
            read_file(tmp_path / "b.pth")
