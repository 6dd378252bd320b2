"""Several processes, one run: start, sums, gradient averages, synchronised BatchNorm. With one
process everything is a no-op.

Gradients are averaged after backward in fused buckets rather than inside it (paddle.DataParallel),
because that one way serves gradient accumulation, recomputed blocks and frozen parameters alike.
"""

import atexit
import functools
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional, Sequence

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle import distributed as dist
from paddle.autograd import PyLayer

from ..data.memory import keep_freed_memory
from ..startup import is_chosen
from .addresses import use_own_address
from .logger import logger
from .peers import LostProcessError, Peers

__all__ = ["Processes", "start_processes", "statistics_of", "synchronise_batch_norms"]

GRACE_S = 60  # for saving, once the launcher is gone


@dataclass(frozen=True)
class Processes:
    """This process among all: rank in [0, world_size). peers: the others, where there are some.

    What exchanges raises LostProcessError, in all processes, once one of them is gone.
    """

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    peers: Optional[Peers] = field(default=None, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @property
    def many(self) -> bool:
        """Whether there are others."""
        return self.world_size > 1

    def meet(self) -> None:
        """Wait until every process is here, however long that takes while all are alive: gloo's
        operations end with an error where one comes 30 s later than another.
        """
        if self.peers:
            self.peers.meet()

    def sum(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Element-wise sum over the processes of a float64 vector (exact for counts)."""
        if not self.many:
            return np.asarray(values, dtype=np.float64)
        self.meet()
        return _sum(np.asarray(values, dtype=np.float64))

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process."""
        return bool(flag) if not self.many else bool(self.sum([float(flag)])[0] > 0)

    def barrier(self) -> None:
        """Wait until every process is here, and has done its part of all operations before."""
        if self.many:
            self.sum([0.0])

    def broadcast(self, model: nn.Layer, statistics_only: bool = False) -> None:
        """Give every process rank 0's weights and BatchNorm statistics (or the statistics
        alone).
        """
        if self.many:
            self.meet()
            for tensor in statistics_of(model) if statistics_only else model.state_dict().values():
                dist.broadcast(tensor, src=0)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over the processes."""
        if self.many:
            from paddle.distributed.fleet.utils.hybrid_parallel_util import (
                fused_allreduce_gradients,
            )

            self.meet()
            fused_allreduce_gradients(parameters, None)

    def lost(self, error: RuntimeError) -> Optional[LostProcessError]:
        """The loss of a process that `error` of a collective operation comes from; None for an
        error of another kind.
        """
        return self.peers.after(error) if self.peers else None

    def end(self, reason: str = "") -> None:
        """This process needs the others no more; the reason, if it fails."""
        if self.peers:
            self.peers.end(reason)


def statistics_of(model: nn.Layer) -> List[Tensor]:
    """BatchNorm's running means and variances."""
    return [
        tensor
        for name, tensor in model.state_dict().items()
        if name.endswith(("._mean", "._variance"))
    ]


def start_processes(device: str = "auto", lost_after_s: float = 60.0) -> Processes:
    """Choose the device and join the processes that `paddle.distributed.launch` started.

    device: auto, cpu, gpu, xpu, npu, mlu. One that this Paddle or machine does not have is replaced
    by the CPU, with a warning. lost_after_s: see Peers. Returns Processes.
    """
    compiled = {
        "gpu": paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0,
        "xpu": paddle.is_compiled_with_xpu(),
    }
    present = (
        compiled.get(device, False)
        if device in ("gpu", "xpu")
        else device in paddle.device.get_all_custom_device_type()
    )
    if device == "auto":
        device = "gpu" if compiled["gpu"] else "cpu"
    elif device != "cpu" and not present:
        logger.warning(
            "Global.device is %s, which this Paddle or machine does not have: running on the CPU",
            device,
        )
        device = "cpu"
    keep_freed_memory()
    if device != "cpu" and is_chosen():
        paddle.base.core.set_num_threads(1)  # the cores are for the data workers
    if "PADDLE_LOCAL_RANK" in os.environ:  # which the launcher sets, and no cluster
        _end_with_launcher()
    world_size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if world_size == 1:
        paddle.set_device(device)
        return Processes(device=device)
    if device == "cpu":
        paddle.set_device("cpu")
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"  # a GPU build would choose NCCL
    use_own_address()
    dist.init_parallel_env()
    return Processes(dist.get_rank(), dist.get_world_size(), device, _peers(lost_after_s))


def _sum(values: np.ndarray) -> np.ndarray:
    total = paddle.to_tensor(values)
    dist.all_reduce(total)
    return total.numpy()


@functools.cache
def _peers(lost_after_s: float) -> Optional[Peers]:
    """Those of this process, which are told when it ends. None where another program than Paddle's
    launcher started it, and told no addresses.
    """
    endpoints = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    if len(endpoints) != dist.get_world_size():
        return None
    peers = Peers.join(dist.get_rank(), endpoints, _sum, lost_after_s)
    atexit.register(peers.end)
    return peers


@functools.cache
def _end_with_launcher() -> None:
    """Stop this process, as a SIGTERM would, once the launcher is gone: nobody would end it, and
    whoever starts the run anew would have it twice.
    """
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        logger.warning("the launcher (process %d) is gone: stopping", launcher)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _SumOverProcesses(PyLayer):
    """All-reduce whose gradient is the all-reduce of the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


class _SyncOverProcesses(nn.Layer):
    """BatchNorm over the batches of all processes, for devices where Paddle's SyncBatchNorm has no
    kernel (the CPU), mixed into a BatchNorm.

    norm: the BatchNorm in whose place it comes; it shares weights, statistics and keys with it.
    """

    def __init__(self, norm: nn.Layer) -> None:
        super().__init__(norm._num_features, norm._momentum, norm._epsilon)
        self.weight = norm.weight
        self.bias = norm.bias
        self._mean = norm._mean
        self._variance = norm._variance
        self.training = norm.training

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, ...] -> the same shape; B may differ between processes."""
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = paddle.full([1], x.size / x.shape[1], dtype=x.dtype)
        sums = _SumOverProcesses.apply(paddle.concat([x.sum(axes), count]))
        mean, total = sums[:-1] / sums[-1], sums[-1]
        # in two passes: E[x^2] - E[x]^2 would cancel
        centred = x - mean.reshape(shape)
        variance = _SumOverProcesses.apply((centred * centred).sum(axes)) / total
        with paddle.no_grad():
            for running, batch in ((self._mean, mean), (self._variance, variance)):
                running.set_value(running * self._momentum + batch.detach() * (1 - self._momentum))
        scale = self.weight * paddle.rsqrt(variance + self._epsilon)
        return centred * scale.reshape(shape) + self.bias.reshape(shape)


class SyncBatchNorm1D(_SyncOverProcesses, nn.BatchNorm1D):
    """BatchNorm1D of tokens [B, C, M] over all processes."""


class SyncBatchNorm2D(_SyncOverProcesses, nn.BatchNorm2D):
    """BatchNorm2D of maps [B, C, H, W] over all processes."""


SYNCHRONISED: Dict[type, type] = {
    nn.BatchNorm1D: SyncBatchNorm1D,
    nn.BatchNorm2D: SyncBatchNorm2D,
}


def synchronise_batch_norms(model: nn.Layer, device: str) -> nn.Layer:
    """`model` with every BatchNorm seeing the batches of all processes; weights and keys stay."""
    if device != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if type(model) in SYNCHRONISED:
        return SYNCHRONISED[type(model)](model)
    for name, child in list(model.named_children()):
        model.add_sublayer(name, synchronise_batch_norms(child, device))
    return model
