"""Exponential moving average of the weights."""
from contextlib import contextmanager

import paddle

from ..weights import LoadError


class EMA:
    """average <- decay * average + (1 - decay) * weights, after each optimiser step; BatchNorm statistics included.

    The averages start as the model's weights, so no bias correction is needed.
    """

    def __init__(self, model, decay):
        self.decay = decay
        self._live = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
        self._average = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    @paddle.no_grad()
    def update(self):
        """Move the averages towards the current weights."""
        for name, tensor in self._live.items():
            average = self._average[name]
            average.set_value(average * self.decay + tensor.astype(average.dtype) * (1.0 - self.decay))

    @contextmanager
    def weights_in(self):
        """Within the block, the model holds the averages; afterwards its own weights again, bit for bit."""
        own = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        _assign(self._live, self._average)
        try:
            yield
        finally:
            _assign(self._live, own)

    def state(self):
        """{name: average} to save."""
        return {name: tensor.numpy() for name, tensor in self._average.items()}

    def load_state(self, state):
        """Continue from saved averages. LoadError if they are another model's."""
        if set(state) != set(self._average):
            odd = sorted(set(state) ^ set(self._average))
            raise LoadError(f"the EMA weights are another model's: {len(odd)} keys differ, e.g. {odd[0]!r}")
        for name, value in state.items():
            self._average[name].set_value(value)


def _assign(targets, values):
    for name, tensor in targets.items():
        tensor.set_value(values[name])
