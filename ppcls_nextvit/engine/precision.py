"""Mixed precision: the model, optimiser, loss scaler and autocast of an AMP section; and what a
float32 run multiplies in on a CPU.
"""

import contextlib
from functools import partial
from typing import Any, Callable, ContextManager, Dict, Optional, Tuple

import numpy as np
import paddle
from paddle import nn
from paddle.optimizer import Optimizer

from .. import ops
from ..config.sections import AMPSection
from .logger import logger

__all__ = ["cpu_math", "evaluates_low", "float32_state", "mixed_precision"]


def mixed_precision(
    amp: Optional[AMPSection], model: nn.Layer, optimizer: Optimizer, device: str
) -> Tuple[nn.Layer, Optimizer, paddle.amp.GradScaler, Callable[[], Any]]:
    """(model, optimizer, scaler, autocast context factory). On a CPU mixed precision does nothing,
    which is said once.
    """
    if amp is None or not amp.use_amp or device == "cpu":
        if amp and amp.use_amp:
            logger.warning("AMP: Paddle has no mixed precision on a CPU; training in float32")
        return model, optimizer, paddle.amp.GradScaler(enable=False), contextlib.nullcontext
    if amp.level == "O2":
        # no save_dtype: its hook would make state_dict() return copies, which EMA and loading must
        # not get
        model, optimizer = paddle.amp.decorate(
            model, optimizers=optimizer, level="O2", dtype=amp.dtype
        )
    scaler = paddle.amp.GradScaler(
        enable=amp.dtype == "float16",
        init_loss_scaling=amp.scale_loss,
        use_dynamic_loss_scaling=amp.use_dynamic_loss_scaling,
    )
    return (
        model,
        optimizer,
        scaler,
        partial(
            paddle.amp.auto_cast, level=amp.level, dtype=amp.dtype, use_promote=amp.use_promote
        ),
    )


def cpu_math(name: str, device: str, to_static: bool) -> ContextManager[None]:
    """Within it convolutions multiply as Global.cpu_math says: fp32, or bf16 where the compiled
    operators compute them and the processor has instructions for it. What bf16 does, or why it
    does nothing, is said in the log.
    """
    if name != "bf16":
        return contextlib.nullcontext()
    lacks = {
        f"the device is {device}, not a CPU": device != "cpu",
        "Global.to_static trains without compiled operators": to_static,
        f"no compiled convolutions; {ops.status_line()}": not ops.has_onednn(),
        "this processor has neither AVX512-BF16 nor AMX": not ops.cpu_multiplies_bfloat16(),
    }
    reason = next((text for text, is_so in lacks.items() if is_so), None)
    if reason is not None:
        logger.warning("Global.cpu_math bf16 does nothing here: %s", reason)
        return contextlib.nullcontext()
    logger.info("convolutions multiply in bfloat16 and sum in float32 (Global.cpu_math)")
    return ops.multiplying(bfloat16=True)


def float32_state(model: nn.Layer) -> Dict[str, np.ndarray]:
    """The model's state dict as arrays, low-precision weights (AMP O2) in float32."""
    return {
        name: (
            tensor.astype("float32")
            if tensor.is_floating_point() and tensor.dtype != paddle.float64
            else tensor
        ).numpy()
        for name, tensor in model.state_dict().items()
    }


def evaluates_low(amp: Optional[AMPSection]) -> bool:
    """Whether evaluation while training runs in the low precision too."""
    return amp is not None and amp.use_amp and (amp.use_fp16_test or amp.level == "O2")
