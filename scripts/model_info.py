"""The table of models: prints it; `--write FILE ...` embeds it, `--check FILE ...` compares, each
file in the language its marker names.

README.md, README_ch.md and docs/zh_CN/NextViT.md have it.
"""

import argparse
import difflib
import re
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import paddle

from ppcls_nextvit import zoo
from ppcls_nextvit.cli.common import program
from ppcls_nextvit.cli.models import cost_of
from ppcls_nextvit.models.registry import backbone_names

Row = list[Any]  # the cells of a model at a size

STARTS = {"<!-- model_info -->": "en", "<!-- model_info: zh -->": "zh"}
END = "<!-- /model_info -->"
HEADERS = {
    "en": "model | pixels | parameters | fused | multiply-adds | fused | stage maps (channels x "
    "height x width) | top-1 | SSLD-6M "
    "| measured here",
    "zh": "模型 | 输入尺寸 | 参数量 | 融合后 | 乘加次数 | 融合后 | 各阶段特征图（通道 x 高 x 宽） | 官方 Top-1 | 官方 SSLD-6M | 本项目复现",
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


def table(cells: Sequence[Row], language: str) -> str:
    """The Markdown table of `cells` (`rows()`) with what is said below it. language: a key of
    HEADERS.
    """
    header = f"| {HEADERS[language]} |"
    lines = [
        " | ".join(NOT_YET[language] if cell is None else str(cell) for cell in row)
        for row in cells
    ]
    return "\n".join(
        [
            header,
            re.sub("[^|]+", "---", header),
            *(f"| {line} |" for line in lines),
            FOOTERS[language],
        ]
    )


def embed(text: str, cells: Sequence[Row], where: Any) -> str:
    """`text` with the table of `cells` between its two markers. ValueError where they are not
    there, in order, once.
    """
    starts = re.findall("|".join(STARTS), text)
    if len(starts) != 1 or text.count(END) != 1 or text.index(starts[0]) > text.index(END):
        raise ValueError(
            f"{where}: expected one line {' or '.join(map(repr, STARTS))} and below it one line "
            f"{END!r}; "
            "add them where the table shall stand"
        )
    block = f"{starts[0]}\n{table(cells, STARTS[starts[0]])}{END}"
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
    cells, status = rows(), 0
    for path in args.write or args.check or ():
        found = path.read_text(encoding="utf-8")
        expected = embed(found, cells, path)
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
        print(table(cells, args.language), end="")
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
