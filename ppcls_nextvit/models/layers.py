"""Nameless plumbing of the models: channel rounding, stochastic depth, recompute that moves
statistics once.
"""

from typing import Any, Callable, Optional, Sequence

import paddle
from paddle import Tensor, nn
from paddle.distributed.fleet.utils import recompute
from paddle.nn import functional as F

from .. import ops

BATCH_NORMS = (nn.BatchNorm1D, nn.BatchNorm2D, nn.SyncBatchNorm)
# tokens from which one product per image is fast and, in evaluation, spares two transposes
LARGE_MAP = 128


def make_divisible(value: float, divisor: int = 32) -> int:
    """`value` rounded to a multiple of `divisor`, never below 90 % of `value` (as in MobileNet and
    the reference).
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def draw_truncated(weight: Tensor) -> None:
    """Draw `weight` as the references do: normal of std 0.02, truncated; at 0.2, not at their 2.

    Both limits give the same numbers but for about one of 60 million: there Paddle's generator
    ends at the limit itself, which would be 100 standard deviations.
    """
    nn.initializer.TruncatedNormal(std=0.02, a=-0.2, b=0.2)(weight)


def eager_on_cpu(x: Tensor) -> bool:
    """Whether `x` [B, ...] is computed now, by a CPU: not while a program is recorded, not on a
    GPU.
    """
    return paddle.in_dynamic_mode() and x.place.is_cpu_place()


class Conv2D(nn.Conv2D):
    """Convolution. On a CPU, eagerly, it is the compiled operator where that is built; else its
    bias is added to [B, C, H * W], where Paddle's adding to [B, C, H, W] is slow.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C_in, H, W] -> [B, C_out, H', W']."""
        padding = self._updated_padding
        plain = self._padding_mode == "zeros" and self._padding_algorithm == "EXPLICIT"
        if not (plain and len(padding) == 2 and eager_on_cpu(x)):
            return super().forward(x)
        if ops.takes_onednn(x):
            geometry = {"stride": self._stride, "padding": padding, "dilation": self._dilation}
            return ops.conv2d(x, self.weight, self.bias, groups=self._groups, **geometry)
        if self.bias is None:
            return super().forward(x)
        out = F.conv2d(
            x, self.weight, None, self._stride, self._padding, self._dilation, self._groups
        )
        return (out.flatten(2) + self.bias.unsqueeze(-1)).reshape(out.shape)


class PointwiseConv2D(nn.Conv2D):
    """1x1 convolution. On a CPU, eagerly, it is the compiled operator where that is built; else a
    matrix product, which is faster there than Paddle's (docs/performance.md).
    """

    def __init__(
        self, in_channels: int, out_channels: int, bias_attr: Optional[bool] = None
    ) -> None:
        super().__init__(in_channels, out_channels, 1, bias_attr=bias_attr)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C_in, H, W] -> [B, C_out, H, W]."""
        if not eager_on_cpu(x):
            return super().forward(x)
        if ops.takes_onednn(x):
            return ops.conv2d(x, self.weight, self.bias)
        batch, channels, height, width = x.shape
        if batch == 1 or (not self.training and height * width >= LARGE_MAP):
            return self._product(x.flatten(2)).reshape([batch, -1, height, width])
        # [C_in, B * H * W]
        columns = x.transpose([1, 0, 2, 3]).reshape([channels, -1])
        return self._product(columns).reshape([-1, batch, height, width]).transpose([1, 0, 2, 3])

    def _product(self, columns: Tensor) -> Tensor:
        """columns: [..., C_in, M] -> [..., C_out, M]."""
        out = paddle.matmul(self.weight.flatten(1), columns)
        return out if self.bias is None else out + self.bias.unsqueeze(-1)


def activated(conv: nn.Layer, x: Tensor) -> Tensor:
    """relu(conv(x)). For a PointwiseConv2D with a bias, on a CPU, eagerly, it is one compiled
    operator where that is built.
    """
    plain = type(conv) is PointwiseConv2D and conv.bias is not None
    watched = conv._forward_pre_hooks or conv._forward_post_hooks
    if plain and not watched and eager_on_cpu(x) and ops.takes_onednn(x):
        return ops.conv2d(x, conv.weight, conv.bias, relu=True)
    return F.relu(conv(x))


def product(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """The matrix products of x [..., R, I] and y [..., I, C]. On a CPU, eagerly, the compiled
    operator where that is built.
    """
    if eager_on_cpu(x) and ops.takes_onednn(x):
        return ops.matmul(x, y, transpose_x=transpose_x, transpose_y=transpose_y)
    return paddle.matmul(x, y, transpose_x, transpose_y)


def swapped(x: Tensor) -> Tensor:
    """x [A, B, C, D] -> [A, C, B, D]: heads before tokens, or back. On a CPU, eagerly, a compiled
    copy where that is built, or one of each image; what Paddle (3.3.1) copies of such a view takes
    30 times as long.
    """
    if not eager_on_cpu(x):
        return x.transpose([0, 2, 1, 3])
    if ops.takes_pass(x):
        return ops.swap(x)
    if x.shape[0] > 1:
        return paddle.stack([image.transpose([1, 0, 2]) for image in x.unbind()])
    return x.transpose([0, 2, 1, 3])


class Linear(nn.Linear):
    """Linear. On a CPU, eagerly, it is the compiled product where that is built."""

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., C_in] -> [..., C_out]."""
        if x.ndim > 1 and eager_on_cpu(x) and ops.takes_onednn(x):
            return ops.matmul(x, self.weight, self.bias)
        return super().forward(x)


class GroupNorm(nn.GroupNorm):
    """GroupNorm. A recorded program has it as means, since Paddle2ONNX (2.1) writes another
    function for Paddle's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> the same shape."""
        if paddle.in_dynamic_mode():
            return super().forward(x)
        groups = x.reshape([0, self._num_groups, -1])
        groups = groups - groups.mean(-1, keepdim=True)
        # no square, whose result Paddle Inference (3.3.1) writes over its argument
        variance = (groups * groups).mean(-1, keepdim=True)
        groups = groups / paddle.sqrt(variance + self._epsilon)
        scale, shift = (tensor.reshape([1, -1, 1, 1]) for tensor in (self.weight, self.bias))
        return groups.reshape(paddle.shape(x)) * scale + shift


class DropPath(nn.Layer):
    """Stochastic depth: in training, a sample's residual branch is zeroed with probability `rate`,
    else scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, ...] -> the same shape; samples are kept or dropped one by one."""
        if not self.training or self.rate == 0.0:
            return x
        scale = self._scale(x.shape[0])
        return x * scale.reshape([-1] + [1] * (x.ndim - 1)).astype(x.dtype)

    def added(self, x: Tensor, branch: Tensor) -> Tensor:
        """x + self(branch); both [B, ...]. On a CPU, eagerly, one compiled operator where that is
        built.
        """
        drops = self.training and self.rate != 0.0
        if drops and eager_on_cpu(x) and ops.takes_pass(x, branch):
            return ops.residual(x, branch, self._scale(x.shape[0]))
        return x + self(branch)

    def _scale(self, batch: int) -> Tensor:
        """[batch]: 0 for a sample that is dropped, 1 / (1 - rate) for one that is kept."""
        keep = 1.0 - self.rate
        return paddle.bernoulli(paddle.full([batch], keep, dtype="float32")) / keep

    def extra_repr(self) -> str:
        """The rate, in a printed model."""
        return f"rate={self.rate:.4g}"


def pooled_from(pool: Callable[[Tensor], Tensor], weights: Tensor, size: Sequence[int]) -> Tensor:
    """What stands at each place of a map when weights [n, M] of pooled tokens are handed back to
    the places that they are averages of: [n, *size]; the sums stay.

    pool: maps [n, 1, *size] -> [n, 1, M], linear. Its transpose is its gradient.
    """
    maps = paddle.zeros([weights.shape[0], 1, *size], weights.dtype)
    maps.stop_gradient = False
    with paddle.enable_grad():
        pooled = pool(maps)
    (back,) = paddle.grad(pooled, maps, grad_outputs=weights.detach().reshape(pooled.shape))
    return back.squeeze(1)


def recompute_block(block: nn.Layer, x: Tensor, *rest: Any) -> Tensor:
    """`block(x, *rest)` whose activations are computed again in backward instead of being kept.

    Recomputing runs the block twice, first without gradients; the running statistics of its
    BatchNorms must move only once, so in the first pass their momentum is 1 (old statistics kept).
    """
    # after frozen stages: recompute would give the block's parameters no gradients
    if x.stop_gradient:
        return block(x, *rest)
    norms = [layer for layer in block.sublayers() if isinstance(layer, BATCH_NORMS)]

    def run(x):
        if paddle.is_grad_enabled():
            return block(x, *rest)
        momenta = [norm._momentum for norm in norms]
        for norm in norms:
            norm._momentum = 1.0
        try:
            return block(x, *rest)
        finally:
            for norm, momentum in zip(norms, momenta):
                norm._momentum = momentum

    return recompute(run, x)
