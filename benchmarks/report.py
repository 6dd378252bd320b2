"""The rows of a benchmark as tables and as a chart."""

COLUMNS = {
    "size": "{}",
    "threads": "{}",
    "batch": "{}",
    "engine": "{}",
    "what": "{}",
    "min_ms": "{:.1f}",
    "median_ms": "{:.1f}",
    "share": "{:.3f}",
    "p95_ms": "{:.1f}",
    "images_per_s": "{:.1f}",
    "ratio": "{:.2f}",
    "cpu_ms": "{:.1f}",
    "cpu_ratio": "{:.2f}",
    "of_gemm": "{:.2f}",
    "memory_mb": "{:.0f}",
    "difference": "{:.0e}",
}
HEADINGS = {
    "min_ms": "min ms",
    "median_ms": "median ms",
    "p95_ms": "p95 ms",
    "images_per_s": "images/s",
    "ratio": "time / first engine's",
    "cpu_ms": "min cpu ms",
    "cpu_ratio": "cpu / first engine's",
    "of_gemm": "of gemm",
    "memory_mb": "peak MB",
    "difference": "logits differ by",
}


def markdown(rows):
    """The rows as one table per task."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        columns = [name for name in COLUMNS if any(name in row for row in own)]
        lines += [
            f"**{task}**",
            "",
            f"| {' | '.join(HEADINGS.get(name, name) for name in columns)} |",
            "|---" * len(columns) + "|",
        ]
        lines += [
            f"| {' | '.join(COLUMNS[name].format(row[name]) for name in columns)} |" for row in own
        ]
        lines.append("")
    return "\n".join(lines)


def draw(rows, path):
    """A picture of the latencies as ratios to the first engine's: one panel per size, batch and
    number of threads.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row["task"] == "latency"]
    settings = list(dict.fromkeys((row["size"], row["threads"], row["batch"]) for row in rows))
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    columns = min(4, len(settings))
    height = -(-len(settings) // columns)
    figure, axes = pyplot.subplots(
        height,
        columns,
        figsize=(1.5 + 3 * columns, height * (0.8 + 0.22 * len(engines))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(settings) :]:
        axis.axis("off")
    for axis, setting in zip(axes.flat, settings):
        ratios = {
            row["engine"]: row["ratio"]
            for row in rows
            if (row["size"], row["threads"], row["batch"]) == setting
        }
        bars = axis.barh(
            [engines.index(name) for name in ratios],
            list(ratios.values()),
            color=["#1f77b4" if name.startswith("ours") else "#b0b0b0" for name in ratios],
        )
        axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
        axis.axvline(1, color="black", linewidth=0.6)
        axis.set(
            title=f"{setting[0]} px, {setting[1]} thread{'s' * (setting[1] > 1)}, batch "
            f"{setting[2]}",
            yticks=range(len(engines)),
            yticklabels=engines,
            xlim=(0, 1.18 * max(ratios.values())),
        )
        axis.title.set_fontsize(9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].invert_yaxis()
    figure.supxlabel(f"time / that of {engines[0]} (less is faster)", fontsize=9)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
