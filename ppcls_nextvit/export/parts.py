"""A model that no one program can hold: between its parts a program of numpy chooses (two_stage.py)
what the next one looks at.
"""

from dataclasses import dataclass
from typing import Any, Callable, Dict, Tuple

from .verify import Signature

__all__ = ["FIRST", "Parts"]

FIRST = ""  # the name of the part that sees the image


@dataclass(frozen=True)
class Parts:
    """programs: {name: (layer, what it takes and gives)}, FIRST among them. settings: of the
    TwoStage that joins them.
    """

    programs: Dict[str, Tuple[Callable, Signature]]
    settings: Dict[str, Any]
