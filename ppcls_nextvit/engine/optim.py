"""Optimisers from YAML, with PaddleClas's keys, and their state under the model's own parameter
names.

The learning rate is the loop's: `optimizer.set_lr(schedule.lr(step))` before each step. Parameters
with `stop_gradient` are left out.

Weight decay: every parameter, but those whose structured name contains one of the space-separated
words of `no_weight_decay_name`, and with `one_dim_param_no_weight_decay` those of one dimension.
(PaddleClas's Momentum heeds the latter only beside the former.)

Clipping: `clip_norm` bounds the norm of each gradient tensor by itself, as in PaddleClas.
`clip_global_norm` bounds the norm of all together, as torch's clip_grad_norm_ and the official
recipe do. Optimisers get one flat list of parameters, because Paddle clips every parameter group by
itself, which would make a "global" norm one per group.
"""

from typing import Literal, Optional

import numpy as np
import paddle

from ..schema import ConfigError, Registry, coerce, require_keys

__all__ = [
    "OPTIMIZERS",
    "build_optimizer",
    "gradient_norm",
    "load_optimizer_state",
    "optimizer_state",
    "split_by_decay",
]

OPTIMIZERS = Registry("optimizer")
LR_SET_BY_THE_LOOP = 0.0


def build_optimizer(section, model, where="Optimizer"):
    """The paddle optimiser of a YAML section {name, ...}; its `lr` belongs to
    schedule.build_schedule and is not read here.

    The parameters of `model` that train are given to it in one flat list. ConfigError names the key
    below `where`.
    """
    if not isinstance(section, dict) or "name" not in section:
        raise ConfigError(
            f"{where}: expected a mapping such as {{name: AdamW, weight_decay: 0.05, lr: "
            f"{{...}}}}, got {section!r}"
        )
    arguments = {key: value for key, value in section.items() if key not in ("name", "lr")}
    return OPTIMIZERS.build(section["name"], arguments, where, model)


def split_by_decay(model, no_weight_decay_name=None, one_dim_param_no_weight_decay=False):
    """(decayed, undecayed): the trainable parameters as two dicts {structured name: parameter}."""
    words, decayed, undecayed = (no_weight_decay_name or "").split(), {}, {}
    for name, parameter in _trainable(model).items():
        spared = any(word in name for word in words) or (
            one_dim_param_no_weight_decay and parameter.ndim == 1
        )
        (undecayed if spared else decayed)[name] = parameter
    return decayed, undecayed


def gradient_norm(model) -> float:
    """The 2-norm of all gradients together, before clipping, computed in float32."""
    squares = [
        paddle.sum(paddle.square(p.grad.astype("float32")))
        for p in _trainable(model).values()
        if p.grad is not None
    ]
    return float(paddle.sqrt(paddle.add_n(squares))) if squares else 0.0


@OPTIMIZERS.register
def AdamW(
    model,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
    no_weight_decay_name: Optional[str] = None,
    one_dim_param_no_weight_decay: bool = False,
    multi_precision: bool = False,
    clip_norm: Optional[float] = None,
    clip_global_norm: Optional[float] = None,
):
    """Adam with decoupled weight decay: a step first multiplies the decayed parameters by 1 - lr *
    weight_decay.
    """
    decayed, undecayed = split_by_decay(model, no_weight_decay_name, one_dim_param_no_weight_decay)
    parameters = [*decayed.values(), *undecayed.values()]
    for parameter in parameters:
        # left by another optimiser, it would decay a second time
        parameter.regularizer = None
    decayed_names = {parameter.name for parameter in decayed.values()}
    return paddle.optimizer.AdamW(
        LR_SET_BY_THE_LOOP,
        beta1,
        beta2,
        epsilon,
        parameters,
        weight_decay,
        apply_decay_param_fun=lambda name: name in decayed_names,
        grad_clip=_clip(clip_norm, clip_global_norm),
        multi_precision=multi_precision,
    )


@OPTIMIZERS.register
def Adam(
    model,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: Optional[float] = None,
    regularizer: Optional[dict] = None,
    no_weight_decay_name: Optional[str] = None,
    one_dim_param_no_weight_decay: bool = False,
    multi_precision: bool = False,
    clip_norm: Optional[float] = None,
    clip_global_norm: Optional[float] = None,
):
    """Adam; weight decay is added to the gradient (L2). See AdamW for decoupled decay."""
    parameters = _regularised(
        model, weight_decay, regularizer, no_weight_decay_name, one_dim_param_no_weight_decay
    )
    return paddle.optimizer.Adam(
        LR_SET_BY_THE_LOOP,
        beta1,
        beta2,
        epsilon,
        parameters,
        grad_clip=_clip(clip_norm, clip_global_norm),
        multi_precision=multi_precision,
    )


@OPTIMIZERS.register
def Momentum(
    model,
    *,
    momentum: float = 0.9,
    use_nesterov: bool = False,
    weight_decay: Optional[float] = None,
    regularizer: Optional[dict] = None,
    no_weight_decay_name: Optional[str] = None,
    one_dim_param_no_weight_decay: bool = False,
    multi_precision: bool = True,
    clip_norm: Optional[float] = None,
    clip_global_norm: Optional[float] = None,
):
    """SGD with momentum: v = momentum * v + g, p = p - lr * v.

    regularizer: {name: L2, coeff: 1e-4}, which is the same as weight_decay 1e-4, or L1.
    """
    parameters = _regularised(
        model, weight_decay, regularizer, no_weight_decay_name, one_dim_param_no_weight_decay
    )
    return paddle.optimizer.Momentum(
        LR_SET_BY_THE_LOOP,
        momentum,
        parameters,
        use_nesterov,
        grad_clip=_clip(clip_norm, clip_global_norm),
        multi_precision=multi_precision,
    )


@OPTIMIZERS.register
def SGD(
    model,
    *,
    weight_decay: Optional[float] = None,
    regularizer: Optional[dict] = None,
    no_weight_decay_name: Optional[str] = None,
    one_dim_param_no_weight_decay: bool = False,
    multi_precision: bool = False,
    clip_norm: Optional[float] = None,
    clip_global_norm: Optional[float] = None,
):
    """Plain gradient descent: p = p - lr * g."""
    parameters = _regularised(
        model, weight_decay, regularizer, no_weight_decay_name, one_dim_param_no_weight_decay
    )
    return paddle.optimizer.SGD(
        LR_SET_BY_THE_LOOP,
        parameters,
        grad_clip=_clip(clip_norm, clip_global_norm),
        multi_precision=multi_precision,
    )


@OPTIMIZERS.register
def RMSProp(
    model,
    *,
    momentum: float = 0.0,
    rho: float = 0.95,
    epsilon: float = 1e-6,
    weight_decay: Optional[float] = None,
    regularizer: Optional[dict] = None,
    no_weight_decay_name: Optional[str] = None,
    one_dim_param_no_weight_decay: bool = False,
    clip_norm: Optional[float] = None,
    clip_global_norm: Optional[float] = None,
):
    """RMSProp: the gradient over the root of its running mean square (epsilon inside the root)."""
    parameters = _regularised(
        model, weight_decay, regularizer, no_weight_decay_name, one_dim_param_no_weight_decay
    )
    return paddle.optimizer.RMSProp(
        LR_SET_BY_THE_LOOP,
        rho,
        epsilon,
        momentum,
        parameters=parameters,
        grad_clip=_clip(clip_norm, clip_global_norm),
    )


def optimizer_state(optimizer, model):
    """Everything the optimiser remembers, as {`<structured parameter name>.<accumulator>`: array},
    e.g. `proj_head.0.weight.moment1`.

    Paddle's own keys (`linear_0.w_0_moment1_0`) come from counters of the process and fit no second
    model in it.
    """
    return {key: tensor.numpy() for key, tensor in _memory(optimizer, model).items()}


def load_optimizer_state(optimizer, model, state):
    """Put the state of `optimizer_state` back, bit for bit. ValueError, before anything is changed,
    if it does not fit exactly.
    """
    memory = _memory(optimizer, model)
    missing, unexpected = sorted(memory.keys() - state.keys()), sorted(state.keys() - memory.keys())
    if missing or unexpected:
        raise ValueError(
            f"the saved optimiser state does not fit: {len(missing)} entries missing "
            f"{missing[:3]}, {len(unexpected)} "
            f"unexpected {unexpected[:3]}; resume with the Arch and the Optimizer of the saved "
            f"run, or load its weights "
            "only (Global.pretrained_model)"
        )
    for key, tensor in memory.items():
        needed, came = tensor.numpy(), np.asarray(state[key])
        if came.shape != needed.shape or came.dtype != needed.dtype:
            raise ValueError(
                f"the saved optimiser state does not fit: {key} is {came.dtype} {came.shape}, "
                f"expected {needed.dtype} {needed.shape}"
            )
    for key, tensor in memory.items():
        tensor.set_value(np.asarray(state[key]))


def _memory(optimizer, model):
    """{structured key: tensor} of all accumulators and master weights, which are made now if no
    step was taken yet.
    """
    parameters = _trainable(model)
    optimizer._create_accumulators(
        paddle.static.default_main_program().global_block(), list(parameters.values())
    )
    memory = {}
    for name, parameter in parameters.items():
        master = optimizer._master_weights.get(parameter.name)
        if master is not None:
            memory[f"{name}.master_weight"] = master
        owner = parameter if master is None else master
        for accumulator, tensors in optimizer._accumulators.items():
            memory[f"{name}.{accumulator}"] = tensors[owner.name]
    return memory


def _trainable(model):
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters()
        if not parameter.stop_gradient
    }
    if not parameters:
        raise ValueError("the model has no trainable parameter; every one has stop_gradient set")
    return parameters


def _clip(clip_norm, clip_global_norm):
    if clip_norm is not None and clip_global_norm is not None:
        raise ValueError(
            "clip_norm (each tensor by itself) and clip_global_norm (all together) exclude each "
            "other; give one"
        )
    for key, bound in (("clip_norm", clip_norm), ("clip_global_norm", clip_global_norm)):
        if bound is not None and bound <= 0:
            raise ValueError(f"{key} must be above 0; got {bound}. Leave it out to clip nothing")
    if clip_norm is not None:
        return paddle.nn.ClipGradByNorm(clip_norm)
    return None if clip_global_norm is None else paddle.nn.ClipGradByGlobalNorm(clip_global_norm)


def _regularised(
    model, weight_decay, regularizer, no_weight_decay_name, one_dim_param_no_weight_decay
):
    """The trainable parameters, the decayed ones carrying the penalty that the optimiser adds to
    their gradient after clipping.
    """
    penalty = None
    if regularizer is not None:
        if weight_decay is not None:
            raise ValueError("weight_decay and regularizer exclude each other; give one")
        require_keys(regularizer, ("name", "coeff"), "regularizer")
        kind = coerce(regularizer.get("name"), Literal["L1", "L2"], "regularizer.name")
        coefficient = coerce(regularizer.get("coeff"), float, "regularizer.coeff")
        penalty = {"L1": paddle.regularizer.L1Decay, "L2": paddle.regularizer.L2Decay}[kind](
            coefficient
        )
    elif weight_decay:
        penalty = paddle.regularizer.L2Decay(weight_decay)
    decayed, undecayed = split_by_decay(model, no_weight_decay_name, one_dim_param_no_weight_decay)
    for parameters, parameter_penalty in ((decayed, penalty), (undecayed, None)):
        for parameter in parameters.values():
            parameter.regularizer = parameter_penalty
    return [*decayed.values(), *undecayed.values()]
