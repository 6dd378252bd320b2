"""The operators for a GPU, compiled for a CPU: their arithmetic, grid and checks against the
goldens and the CPU's operators; and their compilation by nvcc. No test launches anything.
"""

import ctypes
import importlib
import shutil

import numpy as np
import paddle
import pytest

from ppcls_nextvit import ops
from ppcls_nextvit.cli.main import main
from ppcls_nextvit.ops import cuda_building
from scripts import seeded
from support import emulated_cuda
from support.compiled_ops import require_ops
from support.paths import GOLDEN, ROOT

pytestmark = pytest.mark.slow  # the sources are compiled

NAMES = (
    "q",
    "kv",
    "pooled_kv",
    "embedding",
    "temperature",
    "lengths",
    "local_bias",
    "position_bias",
    "tokens",
    "token_bias",
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    built = emulated_cuda.build(tmp_path_factory.mktemp("emulated"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks" / "gpu")
        yield importlib.import_module("library").Library(built)


def rounded(x, dtype):
    """float64 -> an array that has the bits of `dtype`."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(x, dtype)
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def exact(x):
    """An array of bits of bfloat16 (uint16), or of another type -> float64."""
    if x.dtype == np.uint16:
        return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return x.astype(np.float64)


def addresses(arrays):
    return [x.ctypes.data if x.size else 0 for x in arrays]


def run(library, name, dtype, sizes, inputs, grad, shapes=(), without=()):
    """[result, *gradients] of arrays of `dtype`, as float64; what is not written stays none."""
    none = rounded(np.array(np.nan), dtype)
    out = np.full(grad.shape, none)
    library.forward(name, dtype, sizes, addresses(inputs), out.ctypes.data, shapes)
    grads = [np.full(x.shape, none) for i, x in enumerate(inputs) if i not in without]
    size = library.workspace(name, dtype, sizes)
    memory = np.full(size, 0xFF, np.uint8)
    given = addresses(inputs), grad.ctypes.data, addresses(grads)
    library.backward(name, dtype, sizes, *given, memory.ctypes.data, size, shapes)
    return [exact(x) for x in (out, *grads)]


# ---------------------------------------------------------------- aggregated attention


def attention(library, given, size, window, unit, dtype, grad):
    """[result, *gradients] for the arguments of ops.aggregated_attention, as arrays."""
    heads, d = given["embedding"].shape
    batch, pooled = given["q"].shape[0], given["pooled_kv"].shape[1]
    inputs = [rounded(given[name], dtype) for name in NAMES]
    sizes = (batch, heads, d, *size, pooled, window, unit)
    return run(library, "attention", dtype, sizes, inputs, rounded(grad, dtype), without=(5,))


@pytest.mark.parametrize("name", ["w3_1x2x4x4x4", "w3_2x1x3x7x5", "w5_1x1x5x6x3", "w7_1x1x4x7x2"])
def test_the_window_alone_equals_the_reference_s_operator(name, library):
    golden = np.load(GOLDEN / "swattention_seed0.npz")
    window, (batch, heads, height, width, d) = int(name[1]), map(int, name[3:].split("x"))
    n = height * width

    def draw(key, *shape):
        return seeded.generator(f"{name}.{key}", int(golden["seed"])).standard_normal(shape)

    def tokens(x):
        """[B, heads, N, d] -> [B, N, heads * d]."""
        return x.transpose(0, 2, 1, 3).reshape(batch, n, -1)

    q, k, v, g = (tokens(draw(key, batch, heads, n, d)) for key in "qkvg")
    given = {
        "q": q,
        "kv": np.concatenate([k, v], axis=-1),
        "pooled_kv": np.zeros((batch, 0, 2 * heads * d)),
        "embedding": np.zeros((heads, d)),
        "temperature": np.ones(heads),
        "lengths": np.ones(n),
        "local_bias": draw("rpb", heads, window**2),
        "position_bias": np.zeros((heads, n, 0)),
        "tokens": np.zeros((heads, d, window**2)),
        "token_bias": np.zeros((heads, window**2)),
    }
    out, dq, dkv, _, _, _, dbias, *_ = attention(
        library, given, (height, width), window, False, "float64", g
    )
    for found, expected in (
        (out, tokens(golden[f"{name}.out"])),
        (dq, tokens(golden[f"{name}.dq"])),
        (dkv, np.concatenate([tokens(golden[f"{name}.d{key}"]) for key in "kv"], axis=-1)),
        (dbias, golden[f"{name}.drpb"]),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def drawn(size, window, batch, heads, d, keys):
    draw, (n, places) = np.random.default_rng(0), (size[0] * size[1], window**2)
    channels = heads * d
    shapes = (
        (batch, n, channels),
        (batch, n, 2 * channels),
        (batch, keys, 2 * channels),
        (heads, d),
        (heads,),
        (n,),
        (heads, places),
        (heads, n, keys),
        (heads, d, places),
        (heads, places),
    )
    given = {name: draw.standard_normal(shape) for name, shape in zip(NAMES, shapes, strict=True)}
    # in proportion to what models have
    given["tokens"] *= 0.1
    return given, draw.standard_normal((batch, n, channels))


# of every gradient's largest value; of the 16-bit types the inputs are rounded before
BOUNDS = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize(
    "size, window, batch, heads, d, keys",
    [
        ((5, 7), 3, 2, 2, 24, 6),
        ((3, 4), 5, 1, 1, 5, 3),
        ((8, 6), 7, 1, 2, 8, 0),
        # more queries than one chunk of sums, more than one block
        ((17, 19), 3, 1, 1, 24, 4),
        ((1, 1), 3, 0, 2, 24, 2),
    ],
)
def test_attention_equals_the_cpu_s_operator(size, window, batch, heads, d, keys, dtype, library):
    require_ops()
    given, grad = drawn(size, window, batch, heads, d, keys)
    given = {name: exact(rounded(x, dtype)) for name, x in given.items()}
    grad = exact(rounded(grad, dtype))
    found = attention(library, given, size, window, True, dtype, grad)
    tensors = {name: paddle.to_tensor(x, stop_gradient=False) for name, x in given.items()}
    tensors["lengths"].stop_gradient = True
    out = ops.aggregated_attention(**tensors, size=size, window=window)
    inputs = [x for x in tensors.values() if not x.stop_gradient]
    expected = [out, *paddle.grad(out, inputs, [paddle.to_tensor(grad)])]
    for one, other in zip(found, expected, strict=True):
        other = other.numpy()
        largest = max(1.0, float(np.abs(other).max(initial=0)))
        np.testing.assert_allclose(one, other, rtol=0, atol=BOUNDS[dtype] * largest)


def test_a_vector_without_length_counts_as_one_of_1e_minus_12(library):
    require_ops()
    given, grad = drawn((2, 3), 3, 1, 1, 4, 2)
    for name in ("q", "kv", "pooled_kv"):
        given[name][0, 0] = 0
    found = attention(library, given, (2, 3), 3, True, "float64", grad)
    tensors = {name: paddle.to_tensor(x, stop_gradient=False) for name, x in given.items()}
    out = ops.aggregated_attention(**tensors, size=(2, 3), window=3)
    out.backward(paddle.to_tensor(grad))
    expected = [out, *(tensors[name].grad for name in NAMES if name != "lengths")]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- deformable attention

SHAPES = [(5, 7), (3, 4), (1, 2)]
TOKENS = sum(h * w for h, w in SHAPES)


def deformable_inputs(dim, batch=2, queries=6, heads=2, points=3):
    draw, samples = np.random.default_rng(dim), (batch, queries, heads, len(SHAPES), points)
    value = draw.standard_normal((batch, TOKENS, heads, dim))
    locations = draw.uniform(-0.3, 1.3, (*samples, 2))
    weights = draw.uniform(0, 1, samples)
    return [value, locations, weights], draw.standard_normal((batch, queries, heads * dim))


def deformable(library, inputs, dtype, grad):
    batch, tokens, heads, dim = inputs[0].shape
    queries, points = inputs[1].shape[1], inputs[1].shape[4]
    sizes = (batch, tokens, queries, heads, dim, len(SHAPES), points)
    sides = [side for shape in SHAPES for side in shape]
    return run(library, "deformable", dtype, sizes, inputs, grad, sides)


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize("dim", [1, 8, 33])
def test_deformable_attention_equals_the_cpu_s_operator(dim, dtype, library):
    require_ops()
    inputs, grad = deformable_inputs(dim)
    given, given_grad = [rounded(x, dtype) for x in inputs], rounded(grad, dtype)
    found = deformable(library, given, dtype, given_grad)
    tensors = [paddle.to_tensor(exact(x), stop_gradient=False) for x in given]
    out = ops.deformable_attention(tensors[0], SHAPES, *tensors[1:])
    expected = [out, *paddle.grad(out, tensors, [paddle.to_tensor(exact(given_grad))])]
    for one, other in zip(found, expected, strict=True):
        other = other.numpy()
        largest = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one, other, rtol=0, atol=BOUNDS[dtype] * largest)


def test_odd_locations(library):
    (value, locations, weights), grad = deformable_inputs(4, batch=1, queries=4)
    for query, odd in enumerate((1e30, -1e30, np.inf, np.nan)):
        locations[:, query] = odd
    given = [rounded(x, "float32") for x in (value, locations, weights)]
    out, values, places, _ = deformable(library, given, "float32", rounded(grad, "float32"))
    assert (out[:, :3] == 0).all() and np.isnan(out[:, 3]).all()
    assert (values == 0).all()
    assert (places[:, :3] == 0).all() and np.isnan(places[:, 3]).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_number_of_16_bits_is_read_and_rounded(dtype, library):
    """One sample in the middle of a map of one cell is the value times its weight."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    value = bits if dtype == "bfloat16" else bits.view(np.float16)
    location = rounded(np.full((1 << 16, 2), 0.5), dtype)
    for weight in (1.0, 0.333, 3.7):
        weights = rounded(np.full(1 << 16, weight), dtype)
        out, sizes = np.zeros_like(value), (1 << 16, 1, 1, 1, 1, 1, 1)
        given = addresses([value, location, weights])
        library.forward("deformable", dtype, sizes, given, out.ctypes.data, (1, 1))
        with np.errstate(over="ignore", invalid="ignore"):
            product = exact(value).astype(np.float32) * exact(weights).astype(np.float32)
            expected = rounded(product, dtype)
        none = np.isnan(product)
        assert np.isnan(exact(out)[none]).all()
        np.testing.assert_array_equal(exact(out)[~none], exact(expected)[~none])


# ---------------------------------------------------------------- what is refused

GOOD = {"attention": (1, 1, 4, 2, 2, 1, 3, 1), "deformable": (1, 6, 1, 1, 4, 1, 1)}


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("attention", {6: 4}, "the window is not 3, 5 or 7"),
        ("attention", {2: 25}, "a head has more than 24 channels, or none"),
        ("attention", {0: -1}, "a size is negative"),
        ("attention", {3: 1 << 30, 4: 1 << 30}, "more than 2\\^40 elements"),
        ("deformable", {5: 9}, "more than 8 levels"),
        ("deformable", {1: 5}, "do not come to the number of tokens"),
        ("deformable", {2: -3}, "a size is negative"),
        ("deformable", {0: 1 << 62, 1: 1 << 62}, "more than 2\\^40 elements"),
    ],
)
def test_wrong_sizes_are_refused(name, change, message, library):
    sizes = [change.get(i, size) for i, size in enumerate(GOOD[name])]
    memory = np.zeros(4096)
    pointers = [memory.ctypes.data] * (10 if name == "attention" else 3)
    shapes = (2, 3) * sizes[5] if name == "deformable" else ()
    with pytest.raises(RuntimeError, match=message):
        library.forward(name, "float32", sizes, pointers, memory.ctypes.data, shapes)


@pytest.mark.parametrize("name", list(GOOD))
def test_missing_memory_is_refused(name, library):
    memory = np.zeros(4096)
    at, shapes = memory.ctypes.data, (2, 3) if name == "deformable" else ()
    inputs, grads = ([at] * 10, [at] * 9) if name == "attention" else ([at] * 3, [at] * 3)
    size = library.workspace(name, "float32", GOOD[name])
    assert size > 0
    call = (name, "float32", GOOD[name])
    with pytest.raises(RuntimeError, match="the workspace is too small"):
        library.backward(*call, inputs, at, grads, at, size - 1, shapes)
    for changed in (
        ([0, *inputs[1:]], at, grads, at),
        (inputs, 0, grads, at),
        (inputs, at, [*grads[:-1], 0], at),
    ):
        with pytest.raises(RuntimeError, match="a pointer is null whose array is not empty"):
            library.backward(*call, *changed, size, shapes)
    with pytest.raises(RuntimeError, match="a pointer is null"):
        library.forward(*call, inputs, 0, shapes)


@pytest.mark.torch
def test_the_harness_finds_the_stored_results_and_torch_s_gradients(library, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "gpu")
    harness = importlib.import_module("harness")
    stored = str(GOLDEN / "swattention_seed0.npz")
    given = ["--library", library.library._name, "--stored", stored, "--device", "cpu"]
    assert harness.main([*given, "--runs", "0"]) == 0
    assert "WRONG" not in capsys.readouterr().out
    harness.time_beside_torch(harness.deformable_case(), "float32", library, "cpu", 1)
    harness.time_beside_torch(harness.attention_case((4, 5)), "float32", library, "cpu", 1)
    assert capsys.readouterr().out.count("| float32 | forward") == 4


# ---------------------------------------------------------------- nvcc

needs_nvcc = pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc; install CUDA's toolkit")


@needs_nvcc
@pytest.mark.chain
def test_nvcc_compiles_for_every_architecture(tmp_path, monkeypatch):
    """From the oldest that it knows to the newest: the code of each is in the library."""
    monkeypatch.setenv("PPCLS_NEXTVIT_OPS", str(tmp_path))
    assert ops.build_cuda() is True
    assert ops.build_cuda() is False
    content = ops.cuda_library_path().read_bytes()
    names = cuda_building.cuda_architectures("nvcc")
    assert len(names) >= 5
    for name in names:
        assert f"sm_{name}".encode() in content, name
    library = ctypes.CDLL(str(ops.cuda_library_path()))
    # it refuses before it asks for a GPU
    assert library.nextvit_cuda_attention_forward(9, None, None, None, None) == -6


@pytest.mark.parametrize("fails", [False, True])
def test_the_command_compiles_what_is_asked_for(fails, tmp_path, monkeypatch, capsys):
    require_ops()
    nvcc = tmp_path / "nvcc"
    ending = "echo 'ptxas fatal: no'; exit 5" if fails else 'for out; do :; done; echo x > "$out"'
    nvcc.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && echo release 1.0 && exit\n'
        '[ "$1" = --list-gpu-arch ] && echo compute_75 && exit\n'
        f"{ending}\n"
    )
    nvcc.chmod(0o755)
    monkeypatch.setenv("NVCC", str(nvcc))
    built = tmp_path / "cuda" / "operators_cuda.so"
    monkeypatch.setattr(cuda_building, "cuda_library_path", lambda: built)
    monkeypatch.setattr(ops, "cuda_library_path", lambda: built)
    assert main(["build-ops", "--strict", "--cuda"]) == fails
    out, err = capsys.readouterr()
    if fails:
        assert "ended with status 5; its last lines:\nptxas fatal: no" in err
        assert not built.exists()
    else:
        assert f"ops for GPUs: compiled, not used by models ({built})" in out


def test_no_nvcc_is_said(monkeypatch):
    monkeypatch.setenv("NVCC", "no-such-compiler")
    with pytest.raises(ops.BuildError, match=r"no CUDA compiler \(no-such-compiler\) is there"):
        ops.build_cuda()
