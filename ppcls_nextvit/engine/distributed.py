"""Several processes, one run: start, sums, gradient averages, synchronised BatchNorm. With one process everything is a no-op.

Gradients are averaged after backward in fused buckets rather than inside it (paddle.DataParallel), because that one way serves
gradient accumulation, recomputed blocks and frozen parameters alike.
"""
import copy
import os
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import distributed as dist
from paddle import nn
from paddle.autograd import PyLayer
from paddle.nn import functional as F


@dataclass(frozen=True)
class Processes:
    """This process among all: rank in [0, world_size)."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"

    @property
    def is_main(self):
        return self.rank == 0

    @property
    def many(self):
        return self.world_size > 1

    def sum(self, values):
        """Element-wise sum over the processes of a float64 vector (exact for counts)."""
        if not self.many:
            return np.asarray(values, dtype=np.float64)
        total = paddle.to_tensor(np.asarray(values, dtype=np.float64))
        dist.all_reduce(total)
        return total.numpy()

    def any(self, flag):
        """Whether `flag` is set in any process."""
        return bool(flag) if not self.many else bool(self.sum([float(flag)])[0] > 0)

    def barrier(self):
        """Wait until every process is here."""
        if self.many:
            self.sum([0.0])

    def broadcast(self, model, buffers_only=False):
        """Give every process rank 0's weights and BatchNorm statistics (or the statistics alone)."""
        if self.many:
            for tensor in (model.buffers() if buffers_only else list(model.parameters()) + list(model.buffers())):
                dist.broadcast(tensor, src=0)

    def average_gradients(self, parameters):
        """Replace each gradient by its mean over the processes."""
        if self.many:
            from paddle.distributed.fleet.utils.hybrid_parallel_util import fused_allreduce_gradients
            fused_allreduce_gradients(parameters, None)


def start_processes(device="auto"):
    """Choose the device and join the processes that `paddle.distributed.launch` started.

    device: auto, cpu, gpu, xpu, npu, mlu. A device that this Paddle cannot drive is replaced by the CPU with a warning from the
    caller: compare the `device` of the result. Returns Processes.
    """
    compiled = {"gpu": paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0, "xpu": paddle.is_compiled_with_xpu()}
    present = compiled.get(device, False) if device in ("gpu", "xpu") else device in paddle.device.get_all_custom_device_type()
    if device == "auto":
        device = "gpu" if compiled["gpu"] else "cpu"
    elif device != "cpu" and not present:
        device = "cpu"
    world_size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if world_size == 1:
        paddle.set_device(device)
        return Processes(device=device)
    if device == "cpu":
        paddle.set_device("cpu")
    dist.init_parallel_env()
    return Processes(dist.get_rank(), dist.get_world_size(), device)


class _SumOverProcesses(PyLayer):
    """All-reduce whose gradient is the all-reduce of the gradients."""

    @staticmethod
    def forward(ctx, x):
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad):
        total = grad.clone()
        dist.all_reduce(total)
        return total


class CPUSyncBatchNorm(nn.BatchNorm2D):
    """BatchNorm over the batches of all processes, for devices where Paddle's SyncBatchNorm has no kernel (the CPU).

    Same parameters and keys as BatchNorm2D / BatchNorm1D; x is [B, C, ...]. Sizes may differ between processes.
    """

    def _check_input_dim(self, x):
        pass                                                     # [B, C, H, W] maps and [B, C, N] tokens

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        count = paddle.full([1], x.size / x.shape[1], dtype=x.dtype)
        sums = _SumOverProcesses.apply(paddle.concat([x.sum(axes), (x * x).sum(axes), count]))
        channels, total = x.shape[1], sums[-1]
        mean = sums[:channels] / total
        variance = F.relu(sums[channels:-1] / total - mean * mean)
        with paddle.no_grad():
            for running, batch in ((self._mean, mean), (self._variance, variance)):
                running.set_value(running * self._momentum + batch.detach() * (1 - self._momentum))
        shape = [1, -1] + [1] * (x.ndim - 2)
        scale = self.weight * paddle.rsqrt(variance + self._epsilon)
        return x * scale.reshape(shape) + (self.bias - mean * scale).reshape(shape)


def synchronise_batch_norms(model, device):
    """`model` with every BatchNorm replaced by one that sees the batches of all processes; weights and keys stay."""
    if device != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for layer in model.sublayers(include_self=True):
        for name, child in list(layer.named_children()):
            if isinstance(child, (nn.BatchNorm1D, nn.BatchNorm2D)) and not isinstance(child, CPUSyncBatchNorm):
                synced = copy.copy(child)                          # shares the parameters and statistics
                synced.__class__ = CPUSyncBatchNorm
                setattr(layer, name, synced)
    return model
