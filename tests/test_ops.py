"""The compiled operators: aggregated attention equal to its definition, on every instruction set;
and how they are built, chosen and refused.
"""

import json
import os
import subprocess
import sys

import numpy as np
import paddle
import pytest

from ppcls_nextvit import create_model, ops
from ppcls_nextvit.cli.main import main
from ppcls_nextvit.models import export_form
from ppcls_nextvit.models.backbones import transnext
from ppcls_nextvit.ops import building
from scripts import seeded
from support.compiled_ops import require_ops
from support.goldens import max_difference
from support.paths import GOLDEN, ROOT

SETS = ("baseline", "avx2", "avx512")  # instruction sets; what a processor lacks is the next lower
TOY = {"depths": (1, 1, 1, 1), "num_classes": 5, "drop_path_rate": 0.0}


@pytest.fixture
def built():
    require_ops()


def arguments(size, window=3, batch=2, heads=2, d=24, keys=6, dtype="float32"):
    """What aggregated_attention takes, drawn."""
    n, channels, places = size[0] * size[1], heads * d, window**2
    shapes = {
        "q": [batch, n, channels],
        "kv": [batch, n, 2 * channels],
        "pooled_kv": [batch, keys, 2 * channels],
        "embedding": [heads, d],
        "temperature": [heads],
        "lengths": [n],
        "local_bias": [heads, places],
        "position_bias": [heads, n, keys],
        "tokens": [heads, d, places],
        "token_bias": [heads, places],
    }
    drawn = {
        name: paddle.to_tensor(np.random.standard_normal(shape).astype(dtype), stop_gradient=False)
        for name, shape in shapes.items()
    }
    drawn["lengths"].stop_gradient = True
    return {**drawn, "size": size, "window": window}


def result_and_gradients(given):
    given = {key: x.detach() if isinstance(x, paddle.Tensor) else x for key, x in given.items()}
    for key, x in given.items():
        if isinstance(x, paddle.Tensor):
            x.stop_gradient = key == "lengths"
    out = ops.aggregated_attention(**given)
    (out * paddle.cos(paddle.arange(out.size, dtype=out.dtype)).reshape(out.shape)).sum().backward()
    tensors = [x for x in given.values() if isinstance(x, paddle.Tensor) and not x.stop_gradient]
    return [out, *(x.grad for x in tensors)]


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("name", ["w3_1x2x4x4x4", "w3_2x1x3x7x5", "w5_1x1x5x6x3", "w7_1x1x4x7x2"])
def test_the_window_alone_equals_the_reference_s_operator(name, isa, built, monkeypatch):
    monkeypatch.setenv("PPCLS_NEXTVIT_ISA", isa)
    golden = np.load(GOLDEN / "swattention_seed0.npz")
    window, (batch, heads, height, width, d) = int(name[1]), map(int, name[3:].split("x"))
    n = height * width

    def draw(key, *shape):
        return seeded.generator(f"{name}.{key}", int(golden["seed"])).standard_normal(shape)

    def tokens(x):
        """[B, heads, N, d] -> [B, N, heads * d]."""
        return x.transpose(0, 2, 1, 3).reshape(batch, n, -1)

    q, k, v, g = (tokens(draw(key, batch, heads, n, d)) for key in "qkvg")
    given = arguments((height, width), window, batch, heads, d, keys=0, dtype="float64")
    for key in ("embedding", "tokens", "token_bias"):
        given[key] = paddle.zeros_like(given[key])
    for key in ("temperature", "lengths"):
        given[key] = paddle.ones_like(given[key])
    given["q"] = paddle.to_tensor(q, stop_gradient=False)
    given["kv"] = paddle.to_tensor(np.concatenate([k, v], axis=-1), stop_gradient=False)
    given["local_bias"] = paddle.to_tensor(draw("rpb", heads, window**2), stop_gradient=False)
    out = ops.aggregated_attention(**given, unit=False)
    assert max_difference(out, tokens(golden[f"{name}.out"])) < 1e-12
    (out * paddle.to_tensor(g)).sum().backward()
    k_and_v = [tokens(golden[f"{name}.{key}"]) for key in ("dk", "dv")]
    assert max_difference(given["q"].grad, tokens(golden[f"{name}.dq"])) < 1e-12
    assert max_difference(given["kv"].grad, np.concatenate(k_and_v, axis=-1)) < 1e-12
    assert max_difference(given["local_bias"].grad, golden[f"{name}.drpb"]) < 1e-12


def attention(form, window, dtype):
    """An AggregatedAttention whose parameters are all of some size."""
    paddle.seed(0)
    options = transnext.BlockOptions(window, form, None, 0.0, 0.0)
    before = paddle.get_default_dtype()
    paddle.set_default_dtype(dtype)
    try:
        layer = transnext.AggregatedAttention(48, 2, options)
        for parameter in layer.parameters():
            parameter.set_value(parameter + 0.1 * paddle.randn(parameter.shape))
    finally:
        paddle.set_default_dtype(before)
    return layer


@pytest.mark.parametrize("dtype, bound", [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize(
    "size, window", [((9, 6), 3), ((1, 1), 3), ((1, 8), 5), ((14, 14), 3), ((27, 23), 7)]
)
def test_a_layer_equals_the_native_form(size, window, dtype, bound, built):
    """The result; and the gradient of the input and of every parameter, relative to its largest
    value.
    """
    found = []
    for form in ("compiled", "native"):
        layer = attention(form, window, dtype)
        places = transnext.find_places(size, layer.pool_size(size), 13, window)
        drawn = np.random.default_rng(1).standard_normal((2, size[0] * size[1], 48))
        x = paddle.to_tensor(drawn.astype(dtype), stop_gradient=False)
        out = layer(x, places)
        (out * x.detach()).sum().backward()
        found.append({"out": out, "x": x.grad, **{n: p.grad for n, p in layer.named_parameters()}})
    compiled, native = found
    assert max_difference(compiled["out"], native["out"]) < bound * float(native["out"].abs().max())
    for name, expected in native.items():
        # a gradient that is next to nothing is of no account beside the others
        largest = max(float(expected.abs().max()), 1e-3 if dtype == "float32" else 1e-6)
        assert max_difference(compiled[name], expected) < 20 * bound * largest, name


@pytest.mark.parametrize("dtype, bound", [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("isa", SETS)
def test_the_position_bias_equals_that_of_paddle_s_operators(isa, dtype, bound, built, monkeypatch):
    monkeypatch.setenv("PPCLS_NEXTVIT_ISA", isa)
    found = []
    for form in ("compiled", "native"):
        layer = attention(form, 3, dtype)
        size = (11, 6)  # which the keys do not divide
        places = transnext.find_places(size, layer.pool_size(size), 13, 3)
        bias = layer.position_bias(places)
        weights = paddle.cos(paddle.arange(bias.size, dtype=dtype)).reshape(bias.shape)
        (bias * weights).sum().backward()
        mlp = [p for name, p in layer.named_parameters() if name.startswith("cpb")]
        found.append([bias, *(p.grad for p in mlp)])
    for compiled, native in zip(*found, strict=True):
        largest = max(float(native.abs().max()), 1.0)
        assert max_difference(compiled, native) < 5 * bound * largest


def test_a_bias_that_is_interpolated_is_left_to_paddle(built, monkeypatch):
    monkeypatch.setattr(ops, "position_bias", pytest.fail)
    model = create_model("TransNeXt_micro", position_bias="interpolation", table_size=64, **TOY)
    assert model.eval()(paddle.zeros([1, 3, 32, 32])).shape == [1, 5]


def test_the_gradient_is_that_of_the_result(built):
    """Along a drawn direction of every input at once, by central differences."""
    given = arguments((5, 7), window=5, d=5, dtype="float64")
    gradients = result_and_gradients(given)[1:]
    names = [key for key, x in given.items() if isinstance(x, paddle.Tensor) and key != "lengths"]
    ways = [np.random.standard_normal(given[name].shape) for name in names]
    expected = sum(float((grad * way).sum()) for grad, way in zip(gradients, ways, strict=True))

    def value(step):
        moved = {name: given[name] + step * way for name, way in zip(names, ways, strict=True)}
        out = result_and_gradients({**given, **moved})[0].numpy()
        return float((out * np.cos(np.arange(out.size)).reshape(out.shape)).sum())

    assert (value(1e-6) - value(-1e-6)) / 2e-6 == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("dtype, bound", [("float64", 1e-12), ("float32", 1e-5)])
def test_instruction_sets_agree(dtype, bound, built, monkeypatch):
    given, found = arguments((13, 9), dtype=dtype), []
    for isa in SETS:
        monkeypatch.setenv("PPCLS_NEXTVIT_ISA", isa)
        found.append(result_and_gradients(given))
    for others in zip(*found, strict=True):
        for other in others[1:]:
            assert max_difference(other, others[0]) <= bound * float(others[0].abs().max())


def test_two_runs_have_the_same_bits(built):
    given = arguments((30, 31))  # several tasks
    first, second = result_and_gradients(given), result_and_gradients(given)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_inputs_need_not_be_contiguous(built):
    given = arguments((6, 4))
    turned = {
        key: x.transpose([1, 0]).contiguous().transpose([1, 0])
        if isinstance(x, paddle.Tensor) and x.ndim == 2
        else x
        for key, x in given.items()
    }
    strided = paddle.as_strided(
        given["q"].detach().tile([1, 1, 2]), given["q"].shape, [24 * 96, 96, 1]
    )
    assert not strided.is_contiguous()
    expected = ops.aggregated_attention(**given)
    assert (ops.aggregated_attention(**{**turned, "q": strided}) == expected).all()


def test_incoming_gradients_need_not_be_contiguous(built):
    """As those are that come through a transposition or a slice behind the operator."""

    def gradients(out, inputs, turned):
        weights = paddle.cos(paddle.arange(out.size, dtype=out.dtype)).reshape(out.shape)
        if turned:
            weights = weights.transpose([0, 2, 1]).contiguous().transpose([0, 2, 1])
            assert not weights.is_contiguous()
        return paddle.grad(out, inputs, [weights])

    def equal(make, inputs):
        plain, turned = (gradients(make(), inputs, turned) for turned in (False, True))
        assert all((a == b).all() for a, b in zip(plain, turned, strict=True))

    given = arguments((6, 4))
    inputs = [x for x in given.values() if isinstance(x, paddle.Tensor) and not x.stop_gradient]
    equal(lambda: ops.aggregated_attention(**given), inputs)
    layer = attention("compiled", 3, "float32")
    places = transnext.find_places((11, 6), layer.pool_size((11, 6)), 13, 3)
    mlp = [p for name, p in layer.named_parameters() if name.startswith("cpb")]
    equal(lambda: layer.position_bias(places), mlp)


def test_no_image_and_no_pooled_key(built):
    given = arguments((3, 2), batch=0)
    assert [list(x.shape) for x in result_and_gradients(given)][0] == [0, 6, 48]
    alone = arguments((1, 1), keys=0, heads=1)
    alone["tokens"], alone["token_bias"] = (0 * alone[key] for key in ("tokens", "token_bias"))
    out = ops.aggregated_attention(**alone)  # each token sees itself alone
    assert max_difference(out, alone["kv"][:, :, 24:]) < 1e-6


@pytest.mark.chain
def test_the_kernels_under_sanitizers(tmp_path):
    """Against the definition and differences, all instruction sets, one to three threads."""
    require_ops()
    sources = ROOT / "ppcls_nextvit" / "ops" / "src"
    program = tmp_path / "check"
    command = [building.compiler_name(), "-std=c++17", "-O1", "-g", "-fopenmp", "-fno-math-errno"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-w"]
    command += [f"-I{sources}", *map(str, sorted(sources.glob("*.cpp")))]
    command += [str(ROOT / "tests" / "native" / "operators_check.cpp"), "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith(": 0 failures\n"), (
        done.stdout + done.stderr
    )


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "change, kind, message",
    [
        ({"window": 4}, ValueError, "window must be one of (3, 5, 7); got 4"),
        ({"size": (3, 4)}, ValueError, "q must have shape [2, 12, 48]; got [2, 6, 48]"),
        ({"kv": paddle.zeros([2, 6, 48])}, ValueError, "kv must have shape [2, 6, 96]; got"),
        ({"q": paddle.zeros([6, 48])}, ValueError, "q must have 3 axes; got shape [6, 48]"),
        ({"temperature": paddle.zeros([2, 1])}, ValueError, "temperature must have shape [2];"),
        (
            {"q": paddle.zeros([2, 6, 48], "float16")},
            TypeError,
            "q must be float32 or float64; got",
        ),
        (
            {"lengths": paddle.ones([6], "float64")},
            TypeError,
            "lengths must be float32, as q is; got float64",
        ),
    ],
)
def test_wrong_arguments_are_named(change, kind, message, built):
    with pytest.raises(kind) as error:
        ops.aggregated_attention(**{**arguments((2, 3)), **change})
    assert message in str(error.value)


BIAS = {
    "rows": paddle.zeros([3]),
    "columns": paddle.zeros([2]),
    "row_index": paddle.zeros([4, 2], "int64"),
    "column_index": paddle.zeros([5, 1], "int64"),
    "weight_1": paddle.zeros([2, 7]),
    "bias_1": paddle.zeros([7]),
    "weight_2": paddle.zeros([7, 2]),
    "bias_2": paddle.zeros([2]),
}


@pytest.mark.parametrize(
    "change, kind, message",
    [
        ({"bias_1": paddle.zeros([6])}, ValueError, "bias_1 must have shape [7]; got [6]"),
        (
            {"columns": paddle.zeros([2], "float64")},
            TypeError,
            "columns must be float32, as rows is",
        ),
        ({"row_index": paddle.zeros([4, 2])}, TypeError, "row_index must be int64 with 2 axes"),
        ({"row_index": paddle.full([4, 2], 3, "int64")}, OSError, "index 3 of 3 distances"),
        (
            {"column_index": paddle.full([5, 1], -1, "int64")},
            OSError,
            "index -1 of 2 distances",
        ),
    ],
)
def test_wrong_arguments_of_the_position_bias_are_named(change, kind, message, built):
    assert ops.position_bias(**BIAS).shape == [2, 20, 2]
    with pytest.raises(kind) as error:
        ops.position_bias(**{**BIAS, **change})
    assert message in str(error.value)


def test_an_unknown_instruction_set_is_refused(built, monkeypatch):
    monkeypatch.setenv("PPCLS_NEXTVIT_ISA", "avx3")
    with pytest.raises(ValueError, match="'avx3'; expected one of baseline, avx2, avx512"):
        ops.aggregated_attention(**arguments((2, 3)))


# ---------------------------------------------------------------- choosing


def test_models_take_the_operator_where_they_can(built, monkeypatch):
    calls = []
    whole = ops.aggregated_attention
    monkeypatch.setattr(
        ops, "aggregated_attention", lambda *a, **k: calls.append(1) or whole(*a, **k)
    )
    x = paddle.zeros([1, 3, 32, 32])

    def count(**arguments):
        calls.clear()
        model = create_model("TransNeXt_micro", **TOY, **arguments)
        model(x)
        return len(calls)

    assert count() == count(attention_form="compiled") == 3
    assert count(attention_form="sliced") == count(attention_form="native") == 0
    assert count(attn_drop_rate=0.1) == 0  # it has no dropout
    model = create_model("TransNeXt_micro", **TOY)
    form = export_form(model)
    assert max_difference(form(x), model.eval()(x)) < 1e-5
    calls.clear()
    form(x)
    assert not calls
    assert not ops.takes(paddle.zeros([1], "bfloat16"))


def test_without_the_operator_models_are_as_before(tmp_path):
    """In a process of its own, whose cache is empty."""
    code = (
        "import paddle; from ppcls_nextvit import create_model, ops\n"
        "print(ops.status_line())\n"
        f"model = create_model('TransNeXt_micro', **{TOY!r})\n"
        "print(list(model(paddle.zeros([1, 3, 32, 32])).shape))\n"
        "try: create_model('TransNeXt_micro', attention_form='compiled')\n"
        "except ValueError as error: print(error)\n"
    )
    lines = in_own_cache(["-c", code], tmp_path).stdout.splitlines()
    assert lines[0] == "ops: not built (sliced form, 1.7 x slower); build with nextvit build-ops"
    assert lines[1] == "[1, 5]"
    assert "run nextvit build-ops" in lines[2]


# ---------------------------------------------------------------- building


def in_own_cache(arguments, folder, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PPCLS_NEXTVIT_OPS": str(folder), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_what_is_there_is_not_compiled_again(built, capsys):
    assert building.build() is False
    assert main(["build-ops", "--strict"]) == 0
    assert capsys.readouterr().out.startswith("ops: compiled (")
    note = json.loads(building.library_path().with_name("build.json").read_text(encoding="utf-8"))
    assert note["compiler"]


@pytest.mark.parametrize("strict", [False, True])
def test_a_compiler_that_fails_is_heard(strict, tmp_path):
    """Its last lines are shown; only --strict makes it an error."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && echo odd 1.0 && exit\n'
        "echo 'fatal: no space'; exit 3\n"
    )
    compiler.chmod(0o755)
    command = ["-m", "ppcls_nextvit", "build-ops", *["--strict"] * strict]
    done = in_own_cache(command, tmp_path / "cache", CXX=str(compiler))
    said = done.stderr if strict else done.stdout
    assert done.returncode == strict
    assert "compiler ended with status 3; its last lines:\nfatal: no space\n" in said
    assert "Traceback" not in done.stderr
    assert strict or "ops: not built" in done.stdout
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_no_compiler_is_said(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ops.BuildError, match=r"no C\+\+ compiler \(no-such-compiler\) is there"):
        ops.build()
