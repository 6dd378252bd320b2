"""Exponential moving average of the weights."""

from contextlib import contextmanager
from typing import Dict, Iterator

import numpy as np
import paddle
from paddle import nn

from ..schema import shown
from ..weights import LoadError


class EMA:
    """average <- d * average + (1 - d) * weights, after each optimiser step; BatchNorm statistics
    included.

    d = min(decay, (1 + t) / (10 + t)) at step t (1, 2, ...), so that the initial weights and
    statistics, which are far off, are soon forgotten also where decay is long against the run.
    """

    def __init__(self, model: nn.Layer, decay: float):
        self.decay = decay
        self._live = {
            name: tensor
            for name, tensor in model.state_dict().items()
            if tensor.is_floating_point()
        }
        self._average = {
            name: tensor.detach().clone().astype("float32") for name, tensor in self._live.items()
        }

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the weights after the optimiser step number `step`, counted
        from 1.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in self._live.items():
            average = self._average[name]
            average.set_value(average * decay + tensor.astype("float32") * (1.0 - decay))

    @contextmanager
    def weights_in(self) -> Iterator[None]:
        """Within the block, the model holds the averages; afterwards its own weights again, bit for
        bit.
        """
        own = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        _assign(self._live, self._average)
        try:
            yield
        finally:
            _assign(self._live, own)

    def state(self) -> Dict[str, np.ndarray]:
        """{name: average} to save."""
        return {name: tensor.numpy() for name, tensor in self._average.items()}

    def load_state(self, state: Dict[str, np.ndarray]) -> None:
        """Continue from saved averages. LoadError, before anything is changed, if they are another
        model's.
        """
        if set(state) != set(self._average):
            odd = sorted(map(str, set(state) ^ set(self._average)))
            raise LoadError(
                f"the EMA weights are another model's: {len(odd)} keys differ, e.g. {shown(odd[0])}"
            )
        for name, average in self._average.items():
            value, expected = np.asarray(state[name]), average.numpy()
            if value.shape != expected.shape or value.dtype != expected.dtype:
                raise LoadError(
                    f"the EMA weights are another model's: {name} is {value.dtype} "
                    f"{list(value.shape)}, expected {expected.dtype} {list(expected.shape)}"
                )
            if not np.isfinite(value).all():
                raise LoadError(f"the EMA weights are damaged: {name} is not finite")
        for name, average in self._average.items():
            average.set_value(np.asarray(state[name]))


def _assign(targets, values):
    for name, tensor in targets.items():
        tensor.set_value(values[name].astype(tensor.dtype))
