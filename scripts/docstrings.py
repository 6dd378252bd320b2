"""Docstrings as Markdown: what mkdocstrings shows of them (mkdocs.yml names this file as an
extension).
"""

import re
from typing import Any

from griffe import Extension, Object

__all__ = ["PlainDocstrings", "markdown"]


class PlainDocstrings(Extension):
    """Gives every docstring that griffe reads as Markdown."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the docstring of `obj`, if it has one."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(doc, indent=""):
    """A docstring as Markdown: its lines kept, `name: ...` and what is indented on lines of their
    own, the rest as it is.
    """
    lines: list[str] = []
    for line in doc.splitlines():
        after_text = lines and lines[-1] and not lines[-1].startswith("    ")
        if not after_text and (line.startswith("    ") or re.search(r"\S {3}", line)):
            # columns, as of a layout of files: Markdown shows them as they are
            lines.append("    " + line.removeprefix("    "))
            continue
        text = _escaped(line.strip())
        if (
            after_text
            and not lines[-1].endswith(",")
            and re.match(r"[^\s:]+(, [^\s:]+)*: |\w+\([^)]*\)(:| ->) ", text)
        ):
            lines[-1] += "  "  # a hard line break
        lines.append(text)
    return "\n".join(indent + line if i and line else line for i, line in enumerate(lines))


def _escaped(text):
    """A line without what Markdown would read as markup, but for `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([*<\[\]])", r"\\\1", part) for part in parts[::2]]
    text = "".join(parts)
    return "\\" + text if re.match(r"[-+#>|=]|\d+\.", text) else text
