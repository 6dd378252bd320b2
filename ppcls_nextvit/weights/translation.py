"""What became of a checkpoint's keys: one row for each, and the arrays under the model's keys."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ..schema import shown, shown_text

__all__ = ["LoadError", "Row", "Translation"]

MESSAGE = 4000  # characters of an error's


class LoadError(ValueError):
    """Weights that do not fit the model. The message counts and names the keys, and says what to do
    where that is known.
    """

    def __init__(self, message: str):
        super().__init__(shown_text(message, MESSAGE))


@dataclass(frozen=True)
class Row:
    """What became of one key of the file. action: copied, transposed, dropped (why says for which
    reason), unexpected, mismatched.
    """

    source: str
    target: Optional[str]
    action: str
    shape: Tuple[int, ...] = ()
    why: str = ""


@dataclass
class Translation:
    """A checkpoint under the model's keys. arrays: {key of the model: array in its layout}; rows:
    one per key of the file.
    """

    format: str
    title: str  # of the format, in words
    # the entry of the file that held the weights; None: the file itself
    entry: Optional[str]
    arrays: Dict[str, np.ndarray] = field(default_factory=dict)
    rows: List[Row] = field(default_factory=list)
    missing: List[str] = field(default_factory=list)
    # keys that keep the model's initialisation: class layers, or all beside a backbone
    fresh: List[str] = field(default_factory=list)

    def select(self, action: str) -> List[Row]:
        """The rows whose action is `action`."""
        return [row for row in self.rows if row.action == action]

    def drop_layer(self, prefix: str, why: str) -> None:
        """Leave out what goes to the model's keys that begin with `prefix`."""
        for index, row in enumerate(self.rows):
            if (row.target or "").startswith(prefix):
                self.rows[index] = Row(row.source, None, "dropped", row.shape, why)
        self.arrays = {
            key: value for key, value in self.arrays.items() if not key.startswith(prefix)
        }

    def table(self) -> str:
        """A few lines: the format, how many keys went which way, and the reasons."""
        lines = [f"format: {self.title}" + (f", entry {shown(self.entry)}" if self.entry else "")]
        counts = Counter(
            (row.action, row.why if row.action == "dropped" else "") for row in self.rows
        )
        for (action, why), count in sorted(counts.items()):
            reason = f": {why}" if why else ""
            lines.append(f"{count:6d}  {action}{reason}")
        for keys, name in ((self.missing, "missing"), (self.fresh, "left at their initialisation")):
            if keys:
                lines.append(f"{len(keys):6d}  {name}")
        return "\n".join(lines)

    def as_dict(self) -> Dict[str, Any]:
        """For JSON."""
        return {
            "format": self.format,
            "entry": self.entry,
            "missing": self.missing,
            "fresh": self.fresh,
            "keys": [asdict(row) for row in self.rows],
        }
