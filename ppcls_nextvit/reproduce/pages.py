"""Reports as pages in Markdown."""

from typing import Any, Dict, List, Optional

__all__ = ["classification_page", "dense_page"]

PICTURE = "![ours beside published, and the spread over classes](report.png)"


def classification_page(report: Dict[str, Any]) -> str:
    """The report of a classifier (see classification.py) as a page."""
    figures = report["figures"]
    shown = {"top-1": figures["top1"], "top-5": figures["top5"]}
    if "mce" in figures:
        shown["mCE"] = figures["mce"]
    main = "mCE" if "mce" in figures else "top-1"
    rows = [
        _row(name, f"{value:.3f}", report["published"] if name == main else None)
        for name, value in shown.items()
    ]
    crop = report["crop"]
    fitted = f"shorter side {report['resize_short']}, centre crop {crop}"
    if report["resize_short"] is None:
        fitted = f"warped to {crop} x {crop}"
    preprocessing = f"{fitted}, {report['interpolation']}"
    return _page(
        [
            *_begin(report, rows),
            *_facts(report, preprocessing),
            *(f"- note: {note}" for note in report["notes"]),
            "",
            *_corruptions(figures.get("ce")),
        ]
    )


def _corruptions(ce: Optional[Dict[str, float]]) -> List[str]:
    """The table of corruption errors, if there are any."""
    if ce is None:
        return []
    rows = [f"| {name} | {value:.2f} |" for name, value in ce.items()]
    return ["| corruption | CE |", "|---|---|", *rows, ""]


def dense_page(report: Dict[str, Any]) -> str:
    """The report of a detector or segmentor (see dense.py) as a page."""
    rows = [
        _row(name, f"{value:.2f}", report["published"].get(name))
        for name, value in report["figures"].items()
    ]
    others = {name: value for name, value in report["result"].items() if isinstance(value, float)}
    return _page(
        [
            *_begin(report, rows),
            "",
            "| also, in % | ours |",
            "|---|---|",
            *(f"| {name} | {100 * value:.2f} |" for name, value in others.items()),
            *_facts(report, report["preprocessing"]),
            "",
        ]
    )


def _row(name: str, ours: str, published: Optional[float]) -> str:
    return f"| {name} | {ours} | {'-' if published is None else published} |"


def _begin(report: Dict[str, Any], rows: List[str]) -> List[str]:
    """The title and the table of figures."""
    title = f"# {report['set']}: {report['verdict']}"
    return [title, "", "| in % | ours | published |", "|---|---|---|", *rows]


def _facts(report: Dict[str, Any], preprocessing: str) -> List[str]:
    """What the figures are of, as a list."""
    facts = {
        "weights": f"`{report['weights']}` (sha256 {report['weights_sha256'][:16]}...)",
        "model": report["model"],
        "zoo record": report["record"] or "none",
        "images": f"{report['images']} of {report['images_published']}",
        "preprocessing": preprocessing,
        "run": f"{report['device']}, paddle {report['paddle']}, {report['seconds']} s",
    }
    return ["", *(f"- {name}: {value}" for name, value in facts.items())]


def _page(lines: List[str]) -> str:
    return "\n".join([*lines, PICTURE, ""])
