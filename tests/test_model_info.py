"""The table of models: published multiply-adds by the stated rule, and the README's copy of the
table.
"""

import pytest
from paddle import nn

from ppcls_nextvit import create_model, fuse_bn
from ppcls_nextvit.models.backbones.nextvit import VARIANTS
from ppcls_nextvit.models.complexity import count_macs, count_parameters
from ppcls_nextvit.models.layers import BATCH_NORMS
from support.paths import ROOT
from support.programs import program_at

model_info = program_at("scripts/model_info.py")


@pytest.mark.parametrize(
    "layer, macs",
    [
        # outputs times the inputs that each sees
        (nn.Conv2D(4, 6, (3, 5), stride=2, padding=(1, 2), groups=2), 6 * 4 * 5 * 2 * 15),
        (nn.Linear(10, 7), 4 * 8 * 7 * 10),
        # values times the operations of each
        (nn.BatchNorm2D(4), 2 * 4 * 8 * 10),
        (nn.LayerNorm(10), 5 * 4 * 8 * 10),
        (nn.AdaptiveAvgPool2D(1), 4 * 8 * 10),
        (nn.ReLU(), 0),
    ],
)
def test_the_rule_of_each_layer(layer, macs):
    model = nn.Sequential(layer)
    model.in_channels = 4
    assert count_macs(model, (8, 10)) == macs and model.training
    trained = sum(p.size for p in layer.parameters() if not p.stop_gradient)
    assert count_parameters(model) == trained


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant, g224, g384, parameters, fused_parameters",
    [
        ("NextViT_small", 5.811, 17.263, 31_763_368, 31_731_720),
        *(
            pytest.param(*figures, marks=pytest.mark.chain)
            for figures in (
                ("NextViT_base", 8.294, 24.644, 44_818_856, 44_771_592),
                ("NextViT_large", 10.777, 32.025, 57_874_344, 57_811_464),
            )
        ),
    ],
)
def test_published_numbers(variant, g224, g384, parameters, fused_parameters):
    """Multiply-adds as fvcore counts the reference; the paper prints 5.8, 8.3, 10.8 and 17.3, 24.6,
    32.0.
    """
    model = create_model(variant)
    assert (round(count_macs(model, 224) / 1e9, 3), round(count_macs(model, 384) / 1e9, 3)) == (
        g224,
        g384,
    )
    fused = fuse_bn(model)
    assert (count_parameters(model), count_parameters(fused)) == (parameters, fused_parameters)
    assert count_macs(fused, 224) == count_macs(model, 224) - batch_norm_macs(model, 224)


def batch_norm_macs(model, size):
    """Two per normalised value, map sizes by hand: every norm sits at its stage's resolution, the
    stem's at 1/2 and 1/4.
    """
    ends = [*model.stage_ends]
    total = sum(
        2 * channels * (size // stride) ** 2
        for channels, stride in zip((64, 32, 64, 64, 1024), (2, 2, 2, 4, 32), strict=True)
    )
    for name, layer in model.features.named_sublayers():
        if isinstance(layer, BATCH_NORMS):
            stage = sum(int(name.split(".")[0]) > end for end in ends)
            tokens = (size // (4 * 2**stage)) ** 2
            total += (
                2
                * layer.weight.size
                * (tokens // (8, 4, 2, 1)[stage] ** 2 if name.endswith("e_mhsa.norm") else tokens)
            )
    return total


def test_counting_depends_on_the_size_alone_and_leaves_the_model_as_it_was():
    model = create_model("NextViT_small", depths=(1, 1, 5, 1), in_channels=1, num_classes=0)
    model.train()
    model.norm.eval()
    before = [layer.training for layer in model.sublayers(include_self=True)]
    assert count_macs(model, (32, 64)) == count_macs(model, (64, 32)) < count_macs(model, 64)
    assert [layer.training for layer in model.sublayers(include_self=True)] == before
    assert float(model.norm._mean.abs().max()) == 0
    window = create_model(
        "NextViT_small_window_pool", depths=(1, 1, 5, 1), in_channels=1, num_classes=0
    )
    assert count_macs(window, 224) == count_macs(model, 224) and count_parameters(
        window
    ) == count_parameters(model)
    with pytest.raises(ValueError, match="at least 32 x 32"):
        count_macs(model, 31)
    # the hooks of the failed count are gone
    count_macs(model, 32)


@pytest.fixture(scope="module")
def cells():
    return model_info.rows()


@pytest.fixture(scope="module")
def short():
    return model_info.families()


@pytest.mark.chain
def test_rows(cells):
    transnext = {
        224: ("micro", "tiny", "small", "base"),
        256: ("micro_AAAA",),
        384: ("small", "base"),
    }
    assert [row[0] for row in cells] == [
        f"`{name}_{size}`"
        for size, sizes in transnext.items()
        for name in (*(VARIANTS if size != 256 else ()), *(f"TransNeXt_{s}" for s in sizes))
    ]
    assert cells[0] == [
        "`NextViT_small_224`",
        224,
        "31,763,368",
        "31,731,720",
        "5.81 G",
        "5.79 G",
        "96x56x56 256x28x28 512x14x14 1024x7x7",
        82.5,
        84.8,
        None,
    ]
    assert [row[7] for row in cells if "TransNeXt" in row[0]] == [
        82.5,
        84.0,
        84.7,
        84.8,
        82.6,
        86.0,
        86.2,
    ]
    cells = [row for row in cells if "TransNeXt" not in row[0]]
    assert [row[4] for row in cells] == [
        "5.81 G",
        "8.29 G",
        "10.78 G",
        "17.26 G",
        "24.64 G",
        "32.03 G",
    ]
    assert [row[7] for row in cells] == [82.5, 83.2, 83.6, 83.6, 84.3, 84.7]
    assert [row[8] for row in cells] == [84.8, 85.1, 85.4, 85.8, 86.1, 86.4]


@pytest.mark.chain
@pytest.mark.parametrize(
    "page, start",
    [
        ("README.md", "<!-- model_info: short -->"),
        ("README_ch.md", "<!-- model_info: short zh -->"),
        ("docs/models.md", "<!-- model_info -->"),
        ("docs/zh_CN/NextViT.md", "<!-- model_info: zh -->"),
    ],
)
def test_pages_embed_their_table(cells, short, page, start):
    text = (ROOT / page).read_text(encoding="utf-8")
    tables = {"all": cells, "short": short}
    assert start in text and model_info.embed(text, page, tables.get) == text, (
        f"run: python scripts/model_info.py --write {page}"
    )


@pytest.mark.chain
def test_the_short_table(short):
    """Figures of the README of bytedance/Next-ViT and of DaiShiResearch/TransNeXt."""
    by_name = {row[0].strip("`"): row[1:] for row in short}
    assert list(by_name) == [
        *("NextViT_small", "NextViT_base", "NextViT_large"),
        *(f"TransNeXt_{size}" for size in ("micro", "tiny", "small", "base", "micro_AAAA")),
    ]
    assert by_name["NextViT_small"] == [
        *("31.8 M", "5.8 G", "82.5", "83.6", "85.8"),
        *("45.9 / 41.8", "-", "46.5", "49.0", "-"),
    ]
    assert by_name["TransNeXt_base"][2:5] == ["84.8", "86.2", "-"]
    assert by_name["TransNeXt_base"][8:] == ["53.7", "54.7"]
    assert by_name["TransNeXt_micro_AAAA"] == ["13.1 M", "3.3 G", "82.6", *["-"] * 7]


def test_a_published_figure_is_the_authors_best_of_the_task():
    assert model_info.published("NextViT_small", "in1k*_384", "imagenet/top1") == "85.8"
    assert model_info.published("NextViT_small", "upernet_160k_in1k", "ade20k/miou_ms") == "49.0"
    assert model_info.published("TransNeXt_micro", "mask_rcnn_1x", "coco/box_map") == "-"


def test_the_languages_tables_differ_in_words_alone():
    english, chinese = (
        model_info.table([["`a`", 1, None]], language).splitlines() for language in ("en", "zh")
    )
    assert (english[2], chinese[2]) == ("| `a` | 1 | not yet |", "| `a` | 1 | 未复现 |")
    assert (
        english[1] == chinese[1] == "|---" * 10 + "|"
        and english[0].count("|") == chinese[0].count("|") == 11
    )


def test_write_then_check(tmp_path, capsys, monkeypatch):
    for kind, (_, headers, footers) in model_info.TABLES.items():
        monkeypatch.setitem(model_info.TABLES, kind, (lambda: [["new"]], headers, footers))
    pages = [tmp_path / f"page{i}.md" for i in range(len(model_info.STARTS))]
    for page, start in zip(pages, model_info.STARTS, strict=True):
        page.write_text(f"above\n{start}\nold\n{model_info.END}\nbelow\n", encoding="utf-8")
    assert model_info.main(["--check", *map(str, pages)]) == 1
    assert capsys.readouterr().out.count("\n-old\n") == len(pages)
    assert model_info.main(["--write", *map(str, pages)]) == 0
    for page, (start, kind) in zip(pages, model_info.STARTS.items(), strict=True):
        block = model_info.table([["new"]], *kind)
        assert (
            page.read_text(encoding="utf-8") == f"above\n{start}\n{block}{model_info.END}\nbelow\n"
        )
    assert model_info.main(["--check", *map(str, pages)]) == 0
    pages[1].write_text("old", encoding="utf-8")
    assert model_info.main(["--check", *map(str, pages)]) == 1
    assert (
        "page1.md: expected one line '<!-- model_info -->' or '<!-- model_info: zh -->'"
        in capsys.readouterr().err
    )
    assert model_info.main(["--write", str(pages[1])]) == 1
    assert pages[1].read_text(encoding="utf-8") == "old"
