"""The registry of datasets, and what every dataset offers."""

from dataclasses import dataclass
from typing import Literal

from ...schema import Registry

__all__ = ["BadImages", "DATASETS"]


DATASETS = Registry("dataset")
SECTIONS = Registry("section")
ONCE = "evaluation counts every image once, as it is; remove this"


@SECTIONS.register
@dataclass(frozen=True, kw_only=True)
class BadImages:
    """What to do with a training image that cannot be read: `raise` (stop the run with its path),
    or `skip` (another image takes its place, a warning names it) for up to `limit` different
    images."""

    policy: Literal["raise", "skip"] = "raise"
    limit: int = 0

    def __post_init__(self):
        if self.limit < 0 or (self.limit > 0) != (self.policy == "skip"):
            raise ValueError(
                f"policy skip needs a limit of 1 or more, policy raise none; got "
                f"policy={self.policy}, limit={self.limit}"
            )
