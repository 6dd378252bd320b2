"""What a user may decide of training on data of their own, and what all recipes have of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

__all__ = ["Choices", "global_section"]


@dataclass(frozen=True)
class Choices:
    """What the user decides; None: by rule. model: a classifier, or the backbone of a detector or a
    segmentor. folder: of the run. pretrained: see hub.place_of. memory: free bytes of the device.
    """

    model: str
    folder: Path
    device: str
    memory: int
    pretrained: Union[bool, str] = False
    epochs: Optional[int] = None
    batch_size: Optional[int] = None
    size: Optional[int] = None
    learning_rate: Optional[float] = None
    seed: int = 0
    workers: int = 2


def global_section(choices: Choices, epochs: int, shape: List[int]) -> Dict[str, Any]:
    """The section Global of a run of `epochs` on images of `shape`, [channels, height, width]."""
    return {
        "epochs": epochs,
        "output_dir": str(choices.folder),
        "device": choices.device,
        "seed": choices.seed,
        "save_interval": 0,
        "image_shape": shape,
    }
