"""The table of models: `python tools/model_info.py` prints it, `--write README.md` embeds it, `--check README.md` compares."""
import argparse
import difflib
import re
from pathlib import Path

import paddle

from ppcls_nextvit import create_model, fuse_bn, zoo
from ppcls_nextvit.cli import program
from ppcls_nextvit.models.complexity import count_macs, count_parameters
from ppcls_nextvit.models.nextvit import VARIANTS

START, END = "<!-- model_info -->", "<!-- /model_info -->"
HEADER = """\
| model | pixels | parameters | fused | multiply-adds | fused | stage maps (channels x height x width) | top-1 | SSLD-6M | measured here |
|---|---|---|---|---|---|---|---|---|---|
"""
FOOTER = """
Parameters are the trainable ones; fused is `fuse_bn(model)`, what the export writes. Multiply-adds follow one rule, fvcore's and so the
paper's, stated in `ppcls_nextvit/models/complexity.py`. Top-1 in % on ImageNet-1K as published by the authors (weights trained on
ImageNet-1K, and on 6 million images first; crop ratio 0.875). The `_window_pool` variants cost the same at these sizes.
"""


def stage_maps(model, size):
    """'96x56x56 256x28x28 ...' for a square image of `size` pixels."""
    with paddle.no_grad():
        maps = model.forward_features(paddle.zeros([1, model.in_channels, size, size]))
    return " ".join("x".join(map(str, m.shape[1:])) for m in maps)


def table():
    """The Markdown table of every variant at the sizes that have published weights; every number but top-1 is computed."""
    rows, models = [], {}
    for variant, size in [(variant, size) for size in (224, 384) for variant in VARIANTS]:
        in1k, ssld = (zoo.get(f"{variant.lower()}.{tag}_{size}.official") for tag in ("in1k", "in1k6m"))
        if variant not in models:
            model = create_model(variant).eval()
            models[variant] = model, fuse_bn(model)
        model, fused = models[variant]
        cells = [f"`{variant}_{size}`", size, *(f"{count_parameters(m):,}" for m in (model, fused)),
                 *(f"{count_macs(m, size) / 1e9:.2f} G" for m in (model, fused)), stage_maps(fused, size), in1k.published["imagenet/top1"],
                 ssld.published["imagenet/top1"], in1k.measured["imagenet/top1"] if in1k.measured else "not yet"]
        rows.append(f"| {' | '.join(map(str, cells))} |\n")
    return HEADER + "".join(rows) + FOOTER


def embed(text, block, where):
    """`text` with what stands between the two markers replaced by `block`. ValueError where they are not there, in order, once."""
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"{where}: expected one line {START!r} and below it one line {END!r}; add them where the table shall stand")
    return re.sub(f"{START}.*{END}", lambda _: f"{START}\n{block}{END}", text, flags=re.DOTALL)


@program
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--write", metavar="FILE", type=Path, help="write the table between FILE's model_info markers")
    group.add_argument("--check", metavar="FILE", type=Path, help="exit with 1 and the difference if FILE's table is not this one")
    args = parser.parse_args(argv)
    path = args.write or args.check
    if path is None:
        print(table(), end="")
        return 0
    found = path.read_text(encoding="utf-8")
    expected = embed(found, table(), path)
    if args.write:
        path.write_text(expected, encoding="utf-8")
        return 0
    print(*difflib.unified_diff(found.splitlines(), expected.splitlines(), str(path), "model_info", lineterm=""), sep="\n")
    return int(found != expected)


if __name__ == "__main__":
    raise SystemExit(main())
