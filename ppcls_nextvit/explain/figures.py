"""The pictures of what was found, as Matplotlib figures."""

from typing import Any, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from ..engine.curves import pyplot
from ..tasks.fonts import shortened, with_letters_of
from .attention import BlockAttention
from .cam import ClassMap
from .erf import Area
from .features import Components
from .fourier import Spectrum

__all__ = [
    "attention_figure",
    "class_map_figure",
    "component_figure",
    "curves_figure",
    "field_figure",
    "heat_over",
    "spectrum_figure",
]

SIDE = 224  # pixels: smaller pictures grow by whole factors, those of more than twice it shrink
CELL = 2.1  # inches of a picture
COLOURS = "inferno"
LONGEST = 28  # characters of a title's name
FAINTEST = 1e-4  # of a field's maximum, the darkest colour


def heat_over(picture: np.ndarray, values: np.ndarray, power: float = 1.0) -> np.ndarray:
    """A picture, uint8 [H, W, 3], under the colours of a map [h, w] of values of 0 or more: uint8,
    its size times `zoom`. The greatest value is the brightest; the colours follow the
    values to the `power`.
    """
    large = zoomed(picture)
    height, width = large.shape[:2]
    share = values.astype(np.float32) / max(float(values.max()), 1e-30)
    sized = Image.fromarray(share).resize((width, height), Image.Resampling.BICUBIC)
    share = np.asarray(sized).clip(0, 1)[..., None] ** power
    colours = pyplot().get_cmap(COLOURS)(share[..., 0])[..., :3] * 255
    grey = large.mean(-1, keepdims=True).repeat(3, -1)
    return ((1 - 0.85 * share) * (0.25 * grey + 0.45 * large) + 0.85 * share * colours).astype(
        np.uint8
    )


def zoom(picture: np.ndarray) -> float:
    """By how much a picture is drawn larger, a whole factor, or smaller, one part in so many."""
    longest = max(picture.shape[:2])
    return max(SIDE // longest, 1) if longest <= 2 * SIDE else 1 / (longest // (2 * SIDE))


def zoomed(picture: np.ndarray) -> np.ndarray:
    """`picture` times its zoom."""
    factor = zoom(picture)
    if factor < 1:
        return np.asarray(Image.fromarray(picture).reduce(round(1 / factor)))
    return picture.repeat(int(factor), 0).repeat(int(factor), 1)


def sheet(rows: int, columns: int, picture: np.ndarray) -> Tuple[Any, np.ndarray]:
    """A figure for rows of pictures of one shape, and its axes [rows, columns], without ticks."""
    height, width = picture.shape[:2]
    size = (CELL * columns, (CELL * height / width + 0.3) * rows)
    figure, axes = pyplot().subplots(
        rows, columns, figsize=size, squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        for side in axis.spines.values():
            side.set_visible(False)
    return figure, axes


def titled(axis: Any, text: str) -> None:
    """A title in a font that has its letters, in which a dollar sign begins no formula."""
    with with_letters_of([text]):
        axis.set_title(shortened(text, LONGEST), fontsize=8, parse_math=False)


def mark(axis: Any, picture: np.ndarray, point: Tuple[int, int]) -> None:
    """A marker at the pixel `point` (x, y) of `picture`, where it is drawn zoomed."""
    factor = zoom(picture)
    x, y = ((place + 0.5) * factor - 0.5 for place in point)
    axis.plot(x, y, "o", markersize=5, markerfacecolor="#21d19f", markeredgecolor="white")


def attention_figure(
    picture: np.ndarray,
    points: Sequence[Tuple[int, int]],
    found: Sequence[Sequence[BlockAttention]],
    heads: bool = False,
) -> Any:
    """A row for each point, or with `heads` for each head of each: the picture with the point, then
    what each block attends to from there, the square root of its weights as colours.
    """
    rows: List[Tuple[str, Tuple[int, int], List[Tuple[str, Optional[np.ndarray]]]]] = []
    for point, blocks in zip(points, found):
        if not heads:
            maps = [(block.name, block.maps.mean(0)) for block in blocks]
            rows.append((f"({point[0]}, {point[1]})", point, list(maps)))
            continue
        for head in range(max(len(block.maps) for block in blocks)):
            of_head = [
                (block.name, block.maps[head] if head < len(block.maps) else None)
                for block in blocks
            ]
            rows.append((f"head {head + 1}", point, of_head))
    figure, axes = sheet(len(rows), 1 + len(found[0]), picture)
    for line, (label, point, maps) in zip(axes, rows):
        line[0].imshow(zoomed(picture))
        titled(line[0], label)
        mark(line[0], picture, point)
        for axis, (name, values) in zip(line[1:], maps):
            if values is None:
                axis.axis("off")
                continue
            axis.imshow(heat_over(picture, values, 0.5))
            titled(axis, name)
            mark(axis, picture, point)
    return figure


def class_map_figure(picture: np.ndarray, found: Sequence[ClassMap]) -> Any:
    """The picture, then each map over it; of a detector with the object's box."""
    figure, axes = sheet(1, 1 + len(found), picture)
    axes[0, 0].imshow(zoomed(picture))
    titled(axes[0, 0], "picture")
    for axis, one in zip(axes[0, 1:], found):
        axis.imshow(heat_over(picture, one.values))
        titled(axis, one.evidence.title if one.evidence else "Eigen-CAM")
        if one.evidence and one.evidence.box:
            outline(axis, picture, one.evidence.box)
    return figure


def outline(axis: Any, picture: np.ndarray, box: Sequence[float]) -> None:
    """A box (x1, y1, x2, y2) in pixels of `picture`, where it is drawn zoomed."""
    factor = zoom(picture)
    x1, y1, x2, y2 = (place * factor - 0.5 for place in box)
    axis.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color="#21d19f", linewidth=1.2)


def component_figure(picture: np.ndarray, stages: Sequence[Components]) -> Any:
    """The picture, then each stage's tokens in the colours of their components."""
    figure, axes = sheet(1, 1 + len(stages), picture)
    axes[0, 0].imshow(zoomed(picture))
    titled(axes[0, 0], "picture")
    height, width = picture.shape[:2]
    for number, (axis, stage) in enumerate(zip(axes[0, 1:], stages), 1):
        axis.imshow(stage.colours, extent=(0, width, height, 0), interpolation="nearest")
        titled(axis, f"stage {number}: {100 * stage.explained.sum():.0f} %")
    return figure


def field_figure(
    rows: Mapping[str, Sequence[np.ndarray]], areas: Mapping[str, Sequence[Mapping[float, Area]]]
) -> Any:
    """A row of fields, one a stage, for each of `rows` (such as before and after training), with
    the squares that hold 50 and 99 % of each; colours are logarithms.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    first = next(iter(rows.values()))
    figure, axes = sheet(len(rows), len(first), first[0])
    for line, (label, fields) in zip(axes, rows.items()):
        for stage, (axis, field) in enumerate(zip(line, fields)):
            shown = np.maximum(field / max(field.max(), 1e-300), FAINTEST)
            axis.imshow(shown, cmap=COLOURS, norm=LogNorm(FAINTEST, 1), interpolation="nearest")
            of_stage, (height, width) = areas[label][stage], field.shape
            for share, style in ((0.5, "-"), (0.99, ":")):
                side, (row, column) = of_stage[share].side, of_stage[share].centre
                corner = (column - side / 2, row - side / 2)
                square = Rectangle(corner, side, side, fill=False, color="white", linestyle=style)
                axis.add_patch(square)
            axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            wide = 100 * of_stage[0.99].square
            titled(axis, f"stage {stage + 1}: {wide:.0f} %")
        line[0].set_ylabel(label, fontsize=8)
    return figure


def spectrum_figure(blocks: Mapping[Tuple[int, int], Spectrum]) -> Any:
    """A curve for each (stage, block): relative log amplitude over frequency; colours go with the
    stage, from light to dark with the block.
    """
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(4.2, 3.2), layout="constrained")
    maps = ("Blues", "Greens", "Oranges", "Purples", "Reds", "Greys")
    depth = {stage: max(b for s, b in blocks if s == stage) for stage, _ in blocks}
    for (stage, block), one in blocks.items():
        colour = plt.get_cmap(maps[(stage - 1) % len(maps)])(0.35 + 0.6 * block / depth[stage])
        label = f"stage {stage}" if block == depth[stage] else None
        axis.plot(one.frequencies, one.relative, color=colour, linewidth=1.3, label=label)
    axis.set(xlabel="frequency", ylabel="log amplitude, relative to frequency 0", xlim=(0, 1))
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "π/4", "π/2", "3π/4", "π"])
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def curves_figure(
    sizes: Sequence[int], curves: Mapping[str, Sequence[float]], figure_name: str, trained: int
) -> Any:
    """A curve for each mode: figures in [0, 1], as per cent, over the side of the image in pixels;
    a dotted line where the network was trained.
    """
    figure, axis = pyplot().subplots(figsize=(4.2, 3.2), layout="constrained")
    for mode, style in zip(curves, ("o-", "s--", "^:", "d-.")):
        axis.plot(sizes, [100 * value for value in curves[mode]], style, label=mode, markersize=4)
    axis.axvline(trained, color="grey", linestyle=":", linewidth=1)
    axis.set(xlabel="side of the image, pixels", ylabel=f"{figure_name} (%)", xticks=sizes)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure
