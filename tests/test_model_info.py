"""The table of models: published multiply-adds by the stated rule, and the README's copy of the table."""
import importlib.util
from pathlib import Path

import pytest

from ppcls_nextvit import create_model, fuse_bn
from ppcls_nextvit.models.complexity import count_macs, count_parameters
from ppcls_nextvit.models.layers import BATCH_NORMS
from ppcls_nextvit.models.nextvit import VARIANTS

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("model_info", ROOT / "tools" / "model_info.py")
model_info = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(model_info)


@pytest.mark.parametrize("variant, g224, g384, parameters, fused_parameters", [
    ("NextViT_small", 5.811, 17.263, 31_763_368, 31_731_720),
    ("NextViT_base", 8.294, 24.644, 44_818_856, 44_771_592),
    ("NextViT_large", 10.777, 32.025, 57_874_344, 57_811_464)])
def test_published_numbers(variant, g224, g384, parameters, fused_parameters):
    """Multiply-adds as fvcore counts the reference; the paper prints 5.8, 8.3, 10.8 and 17.3, 24.6, 32.0."""
    model = create_model(variant)
    assert (round(count_macs(model, 224) / 1e9, 3), round(count_macs(model, 384) / 1e9, 3)) == (g224, g384)
    fused = fuse_bn(model)
    assert (count_parameters(model), count_parameters(fused)) == (parameters, fused_parameters)
    assert count_macs(fused, 224) == count_macs(model, 224) - batch_norm_macs(model, 224)


def batch_norm_macs(model, size):
    """Two per normalised value, map sizes by hand: every norm sits at its stage's resolution, the stem's at 1/2 and 1/4."""
    ends = [*model.stage_ends]
    total = sum(2 * channels * (size // stride) ** 2 for channels, stride in zip((64, 32, 64, 64, 1024), (2, 2, 2, 4, 32)))
    for name, layer in model.features.named_sublayers():
        if isinstance(layer, BATCH_NORMS):
            stage = sum(int(name.split(".")[0]) > end for end in ends)
            tokens = (size // (4 * 2 ** stage)) ** 2
            total += 2 * layer.weight.size * (tokens // (8, 4, 2, 1)[stage] ** 2 if name.endswith("e_mhsa.norm") else tokens)
    return total


def test_counting_depends_on_the_size_alone_and_leaves_the_model_as_it_was():
    model = create_model("NextViT_small", depths=(1, 1, 5, 1), in_channels=1, num_classes=0)
    model.train()
    model.norm.eval()
    before = [layer.training for layer in model.sublayers(include_self=True)]
    assert count_macs(model, (32, 64)) == count_macs(model, (64, 32)) < count_macs(model, 64)
    assert [layer.training for layer in model.sublayers(include_self=True)] == before
    assert float(model.norm._mean.abs().max()) == 0
    window = create_model("NextViT_small_window_pool", depths=(1, 1, 5, 1), in_channels=1, num_classes=0)
    assert count_macs(window, 224) == count_macs(model, 224) and count_parameters(window) == count_parameters(model)
    with pytest.raises(ValueError, match="at least 32 x 32"):
        count_macs(model, 31)
    count_macs(model, 32)                                                  # the hooks of the failed count are gone


@pytest.fixture(scope="module")
def table():
    return model_info.table()


@pytest.mark.slow
def test_table(table):
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows] == [f"| `{v}_{size}`" for size in (224, 384) for v in VARIANTS]
    assert rows[0] == ["| `NextViT_small_224`", "224", "31,763,368", "31,731,720", "5.81 G", "5.79 G",
                       "96x56x56 256x28x28 512x14x14 1024x7x7", "82.5", "84.8", "not yet |"]
    assert [row[4] for row in rows] == ["5.81 G", "8.29 G", "10.78 G", "17.26 G", "24.64 G", "32.03 G"]
    assert [row[7] for row in rows] == ["82.5", "83.2", "83.6", "83.6", "84.3", "84.7"]
    assert [row[8] for row in rows] == ["84.8", "85.1", "85.4", "85.8", "86.1", "86.4"]


@pytest.mark.slow
def test_readme_embeds_the_table(table):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert model_info.embed(text, table, "README.md") == text, "run: python tools/model_info.py --write README.md"


def test_write_then_check(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(model_info, "table", lambda: "| a |\n")
    page = tmp_path / "page.md"
    page.write_text(f"above\n{model_info.START}\nold\n{model_info.END}\nbelow\n")
    assert model_info.main(["--check", str(page)]) == 1
    assert "-old" in capsys.readouterr().out
    assert model_info.main(["--write", str(page)]) == 0
    assert page.read_text() == f"above\n{model_info.START}\n| a |\n{model_info.END}\nbelow\n"
    assert model_info.main(["--check", str(page)]) == 0
    page.write_text("no markers")
    assert model_info.main(["--write", str(page)]) == 1
    assert "page.md: expected one line '<!-- model_info -->'" in capsys.readouterr().err
    assert page.read_text() == "no markers"
