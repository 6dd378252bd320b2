"""The table of models: prints it; `--write FILE ...` embeds it, `--check FILE ...` compares, each
file in the language its marker names.

docs/models.md and docs/zh_CN/NextViT.md have it; README.md and README_ch.md have the short one, of
each network with its published figures in all tasks.
"""

import argparse
import difflib
import functools
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

import paddle

from ppcls_nextvit import zoo
from ppcls_nextvit.cli.common import program
from ppcls_nextvit.cli.models import cost_of
from ppcls_nextvit.models.registry import backbone_names

Row = list[Any]  # the cells of a model at a size

# what stands above a table in a page: its language and which of the two
STARTS = {
    "<!-- model_info -->": ("en", "all"),
    "<!-- model_info: zh -->": ("zh", "all"),
    "<!-- model_info: short -->": ("en", "short"),
    "<!-- model_info: short zh -->": ("zh", "short"),
}
END = "<!-- /model_info -->"
HEADERS = {
    "en": "model | pixels | parameters | fused | multiply-adds | fused | stage maps (channels x "
    "height x width) | top-1 | SSLD-6M "
    "| measured here",
    "zh": "模型 | 输入尺寸 | 参数量 | 融合后 | 乘加次数 | 融合后 | 各阶段特征图（通道 x 高 x 宽） | 官方 Top-1 | 官方 SSLD-6M | 本项目复现",
}
SHORT_HEADERS = {
    "en": "network | parameters | multiply-adds | ImageNet | at 384 | SSLD, 384 | Mask R-CNN 1x box / mask "
    "| DINO | Semantic FPN | UPerNet, several scales | Mask2Former",
    "zh": "网络 | 参数量 | 乘加次数 | ImageNet | 384 | SSLD，384 | Mask R-CNN 1x 框 / 掩码 | DINO | Semantic FPN | UPerNet，多尺度 | Mask2Former",
}
SHORT_FOOTERS = {
    "en": "\nPublished by the authors, none reproduced here yet (no ImageNet, COCO, ADE20K): top-1 in %, AP, mIoU in %. More: [models](docs/models.md).\n",
    "zh": "\n均为论文作者公布的数值，没有一项在这里复现过（这里没有 ImageNet、COCO 和 ADE20K）：Top-1（%）、AP、mIoU（%）。更多见[模型](docs/models.md)。\n",
}
NOT_YET = {"en": "not yet", "zh": "未复现"}
FOOTERS = {
    "en": """
Parameters are the trainable ones; fused is `fuse_bn(model)`, what the export writes. Multiply-adds follow one rule, fvcore's and so the
paper's, stated in `ppcls_nextvit/models/complexity.py`. Top-1 in % on ImageNet-1K as published by the authors (weights trained on
ImageNet-1K, and on 6 million images first; crop ratio 0.875, TransNeXt at 384 on the whole image). The `_window_pool` variants
cost the same at these sizes.
""",
    "zh": "\n参数量只计可训练参数；“融合后”指 `fuse_bn(model)` 得到的模型，也就是导出时写出的模型。乘加次数的统计口径与论文所用的 fvcore "
    "一致，规则见 `ppcls_nextvit/models/complexity.py`。Top-1 为论文作者公布的 ImageNet-1K 精度（%，crop ratio "
    "0.875；TransNeXt 在 384 下使用整幅图像）：前一列的权重"
    "只用 ImageNet-1K 训练，后一列先在 6 百万张图像上训练。在上述尺寸下，`_window_pool` 变体的参数量与计算量不变。\n",
}


def official(tag: str, size: int) -> dict[str, zoo.Weights]:
    """{model: record} of its authors' classification weights of that kind at that size, in
    pixels.
    """
    found = (zoo.get(name) for name in zoo.list_weights(f"*.{tag}_{size}.official"))
    return {record.model: record for record in found}


def rows() -> list[Row]:
    """The cells of every model at the sizes that have published weights, None where nothing was
    measured; all but top-1 is computed.
    """
    paddle.set_device("cpu")
    return list(_rows())


def _rows() -> Iterator[Row]:
    for size in (224, 256, 384):
        in1k, ssld = official("in1k", size), official("in1k6m", size)
        for name in filter(in1k.__contains__, backbone_names()):
            cost = cost_of(name, size)
            yield [
                f"`{name}_{size}`",
                size,
                f"{cost.parameters:,}",
                f"{cost.fused_parameters:,}",
                f"{cost.multiply_adds / 1e9:.2f} G",
                f"{cost.fused_multiply_adds / 1e9:.2f} G",
                " ".join("x".join(map(str, shape)) for shape in cost.maps),
                in1k[name].published["imagenet/top1"],
                ssld[name].published["imagenet/top1"] if name in ssld else "-",
                (in1k[name].measured or {}).get("imagenet/top1"),
            ]


def published(network: str, tag: str, *metrics: str) -> str:
    """The figures of the network's authors in the best record whose tag fits a pattern, ' / '
    between them; '-' without one.
    """
    pattern = f"{network}.{tag}.official".lower()
    records = map(zoo.get, (name for name in zoo.list_weights() if fnmatch(name.lower(), pattern)))
    found = [[record.published[metric] for metric in metrics] for record in records]
    return " / ".join(map(str, max(found))) if found else "-"


def families() -> list[Row]:
    """The cells of the short table: every network that its authors published, once."""
    paddle.set_device("cpu")
    cells: list[Row] = []
    for name in backbone_names():
        sizes = [size for size in (224, 256) if name in official("in1k", size)]
        if not sizes:
            continue
        cost = cost_of(name, sizes[0])
        cells.append(
            [
                f"`{name}`",
                f"{cost.parameters / 1e6:.1f} M",
                f"{cost.multiply_adds / 1e9:.1f} G",
                published(name, f"in1k_{sizes[0]}", "imagenet/top1"),
                published(name, "in1k_384", "imagenet/top1"),
                published(name, "in1k6m_384", "imagenet/top1"),
                published(name, "mask_rcnn_1x", "coco/box_map", "coco/mask_map"),
                published(name, "dino_*", "coco/box_map"),
                published(name, "fpn_80k_in1k", "ade20k/miou"),
                published(name, "upernet_160k_in1k", "ade20k/miou_ms"),
                published(name, "mask2former_*", "ade20k/miou"),
            ]
        )
    return cells


TABLES = {"all": (rows, HEADERS, FOOTERS), "short": (families, SHORT_HEADERS, SHORT_FOOTERS)}


def table(cells: Sequence[Row], language: str, kind: str = "all") -> str:
    """The Markdown table of `cells` (`rows()`, `families()`) with what is said below it. language:
    a key of HEADERS; kind: one of TABLES.
    """
    _, headers, footers = TABLES[kind]
    header = f"| {headers[language]} |"
    lines = [
        " | ".join(NOT_YET[language] if cell is None else str(cell) for cell in row)
        for row in cells
    ]
    return "\n".join(
        [
            header,
            re.sub("[^|]+", "---", header),
            *(f"| {line} |" for line in lines),
            footers[language],
        ]
    )


def embed(text: str, where: Any, cells: Callable[[str], Sequence[Row]]) -> str:
    """`text` with its table between its two markers; cells: those of a kind of table. ValueError
    where the markers are not there, in order, once.
    """
    starts = re.findall("|".join(STARTS), text)
    if len(starts) != 1 or text.count(END) != 1 or text.index(starts[0]) > text.index(END):
        raise ValueError(
            f"{where}: expected one line {' or '.join(map(repr, STARTS))} and below it one line "
            f"{END!r}; "
            "add them where the table shall stand"
        )
    language, kind = STARTS[starts[0]]
    block = f"{starts[0]}\n{table(cells(kind), language, kind)}{END}"
    return re.sub(f"{starts[0]}.*{END}", lambda _: block, text, flags=re.DOTALL)


@program
def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--write",
        metavar="FILE",
        type=Path,
        nargs="+",
        help="write the table between the model_info markers of each FILE",
    )
    group.add_argument(
        "--check",
        metavar="FILE",
        type=Path,
        nargs="+",
        help="exit with 1 and the difference if a FILE has another one",
    )
    parser.add_argument(
        "--language",
        choices=list(HEADERS),
        default="en",
        help="of what is printed (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    cells, status = functools.cache(lambda kind: TABLES[kind][0]()), 0
    for path in args.write or args.check or ():
        found = path.read_text(encoding="utf-8")
        expected = embed(found, path, cells)
        if args.write:
            path.write_text(expected, encoding="utf-8")
        else:
            print(
                *difflib.unified_diff(
                    found.splitlines(), expected.splitlines(), str(path), "model_info", lineterm=""
                ),
                sep="\n",
            )
            status |= found != expected
    if not (args.write or args.check):
        print(table(cells("all"), args.language), end="")
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
