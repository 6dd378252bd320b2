"""Optimisers from YAML, with PaddleClas's keys, and their state under the model's own parameter
names.

The learning rate is the loop's: `optimizer.set_lr(schedule.lr(step))` before each step. Parameters
with `stop_gradient` are left out.

Weight decay and parts of the learning rate, parameter by parameter: see parameter_groups.py.

Clipping: `clip_norm` bounds the norm of each gradient tensor by itself, as in PaddleClas.
`clip_global_norm` bounds the norm of all together, as torch's clip_grad_norm_ and the official
recipe do. Optimisers get one flat list of parameters, because Paddle clips every parameter group by
itself, which would make a "global" norm one per group.
"""

from typing import Any, Dict, List, Literal, Optional, Sequence

import numpy as np
import paddle
from paddle import nn

from .. import ops
from ..schema import ConfigError, Registry, coerce, require_keys, shown
from .parameter_groups import ParameterSetting, parameter_settings, trainable_parameters

__all__ = [
    "OPTIMIZERS",
    "build_optimizer",
    "gradient_norm",
    "load_optimizer_state",
    "optimizer_state",
]

OPTIMIZERS = Registry("optimizer")
LR_SET_BY_THE_LOOP = 0.0


def build_optimizer(
    section: Any, model: nn.Layer, where: str = "Optimizer"
) -> paddle.optimizer.Optimizer:
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


def gradient_norm(model: nn.Layer) -> float:
    """The 2-norm of all gradients together, before clipping, computed in float32."""
    squares = [
        paddle.sum(paddle.square(p.grad.astype("float32")))
        for p in trainable_parameters(model).values()
        if p.grad is not None
    ]
    return float(paddle.sqrt(paddle.add_n(squares))) if squares else 0.0


@OPTIMIZERS.register
def AdamW(
    model: nn.Layer,
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
    groups: Optional[List[dict]] = None,
) -> paddle.optimizer.Optimizer:
    """Adam with decoupled weight decay: a step first multiplies the decayed parameters by 1 - lr *
    weight_decay.
    """
    settings = parameter_settings(
        model, no_weight_decay_name, one_dim_param_no_weight_decay, groups
    )
    for setting in settings:
        # left by another optimiser, it would decay a second time
        setting.parameter.regularizer = None
    return _AdamW(
        settings,
        LR_SET_BY_THE_LOOP,
        beta1,
        beta2,
        epsilon,
        _with_rates(settings),
        weight_decay,
        grad_clip=_clip(clip_norm, clip_global_norm),
        multi_precision=multi_precision,
    )


class _AdamW(paddle.optimizer.AdamW):
    """AdamW whose decay may differ between the parameters of one flat list: see the module's
    docstring for why they are no groups of Paddle's.
    """

    def __init__(self, settings, learning_rate, beta1, beta2, epsilon, parameters, decay, **rest):
        decays = {
            setting.parameter.name: decay if setting.weight_decay is None else setting.weight_decay
            for setting in settings
        }
        super().__init__(
            learning_rate,
            beta1,
            beta2,
            epsilon,
            parameters,
            decay,
            apply_decay_param_fun=lambda name: decays[name] != 0,
            **rest,
        )
        self._decays = decays

    def _append_optimize_op(self, block, param_and_grad):
        parameter, gradient = param_and_grad
        self._weight_decay = self._decays[parameter.name]
        if not (ops.takes_pass(parameter, gradient) and parameter.is_contiguous()):
            return super()._append_optimize_op(block, param_and_grad)
        names = [self._moment1_acc_str, self._moment2_acc_str]
        names += [self._beta1_pow_acc_str, self._beta2_pow_acc_str]
        ops.adamw_(
            parameter,
            gradient,
            self._create_param_lr(param_and_grad),
            *(self._get_accumulator_master(name, parameter) for name in names),
            beta1=self._beta1,
            beta2=self._beta2,
            epsilon=self._epsilon,
            decay=self._weight_decay,
        )
        return None


@OPTIMIZERS.register
def Adam(
    model: nn.Layer,
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
    groups: Optional[List[dict]] = None,
) -> paddle.optimizer.Optimizer:
    """Adam; weight decay is added to the gradient (L2). See AdamW for decoupled decay."""
    settings = parameter_settings(
        model, no_weight_decay_name, one_dim_param_no_weight_decay, groups
    )
    parameters = _regularised(settings, weight_decay, regularizer)
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
    model: nn.Layer,
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
    groups: Optional[List[dict]] = None,
) -> paddle.optimizer.Optimizer:
    """SGD with momentum: v = momentum * v + g, p = p - lr * v.

    regularizer: {name: L2, coeff: 1e-4}, which is the same as weight_decay 1e-4, or L1.
    """
    settings = parameter_settings(
        model, no_weight_decay_name, one_dim_param_no_weight_decay, groups
    )
    parameters = _regularised(settings, weight_decay, regularizer)
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
    model: nn.Layer,
    *,
    weight_decay: Optional[float] = None,
    regularizer: Optional[dict] = None,
    no_weight_decay_name: Optional[str] = None,
    one_dim_param_no_weight_decay: bool = False,
    multi_precision: bool = False,
    clip_norm: Optional[float] = None,
    clip_global_norm: Optional[float] = None,
    groups: Optional[List[dict]] = None,
) -> paddle.optimizer.Optimizer:
    """Plain gradient descent: p = p - lr * g."""
    settings = parameter_settings(
        model, no_weight_decay_name, one_dim_param_no_weight_decay, groups
    )
    parameters = _regularised(settings, weight_decay, regularizer)
    return paddle.optimizer.SGD(
        LR_SET_BY_THE_LOOP,
        parameters,
        grad_clip=_clip(clip_norm, clip_global_norm),
        multi_precision=multi_precision,
    )


@OPTIMIZERS.register
def RMSProp(
    model: nn.Layer,
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
    groups: Optional[List[dict]] = None,
) -> paddle.optimizer.Optimizer:
    """RMSProp: the gradient over the root of its running mean square (epsilon inside the root)."""
    settings = parameter_settings(
        model, no_weight_decay_name, one_dim_param_no_weight_decay, groups
    )
    parameters = _regularised(settings, weight_decay, regularizer)
    return paddle.optimizer.RMSProp(
        LR_SET_BY_THE_LOOP,
        rho,
        epsilon,
        momentum,
        parameters=parameters,
        grad_clip=_clip(clip_norm, clip_global_norm),
    )


def optimizer_state(
    optimizer: paddle.optimizer.Optimizer, model: nn.Layer
) -> Dict[str, np.ndarray]:
    """Everything the optimiser remembers, as {`<structured parameter name>.<accumulator>`: array},
    e.g. `proj_head.0.weight.moment1`.

    Paddle's own keys (`linear_0.w_0_moment1_0`) come from counters of the process and fit no second
    model in it.
    """
    return {key: tensor.numpy() for key, tensor in _memory(optimizer, model).items()}


def load_optimizer_state(
    optimizer: paddle.optimizer.Optimizer, model: nn.Layer, state: Dict[str, np.ndarray]
) -> None:
    """Put the state of `optimizer_state` back, bit for bit. ValueError, before anything is changed,
    if it does not fit exactly.
    """
    memory = _memory(optimizer, model)
    if not isinstance(state, dict):
        raise ValueError(f"the saved optimiser state is no mapping but {shown(state)}")
    missing = sorted(memory.keys() - state.keys())
    unexpected = sorted(map(str, state.keys() - memory.keys()))
    if missing or unexpected:
        raise ValueError(
            f"the saved optimiser state does not fit: {len(missing)} entries missing "
            f"{missing[:3]}, {len(unexpected)} unexpected {shown(unexpected[:3])}; resume with the "
            f"Arch and the Optimizer of the saved run, or load its weights only "
            f"(Global.pretrained_model)"
        )
    for key, tensor in memory.items():
        needed, came = tensor.numpy(), np.asarray(state[key])
        if came.shape != needed.shape or came.dtype != needed.dtype:
            raise ValueError(
                f"the saved optimiser state does not fit: {key} is {came.dtype} {came.shape}, "
                f"expected {needed.dtype} {needed.shape}"
            )
        if not np.isfinite(came).all():
            raise ValueError(f"the saved optimiser state is damaged: {key} is not finite")
    for key, tensor in memory.items():
        tensor.set_value(np.asarray(state[key]))


def _memory(optimizer, model):
    """{structured key: tensor} of all accumulators and master weights, which are made now if no
    step was taken yet.
    """
    parameters = trainable_parameters(model)
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


def _with_rates(settings: Sequence[ParameterSetting]) -> List[paddle.Tensor]:
    """The parameters, each carrying its share of the learning rate, which Paddle heeds."""
    for setting in settings:
        setting.parameter.optimize_attr["learning_rate"] = setting.lr_multiplier
    return [setting.parameter for setting in settings]


def _regularised(settings, weight_decay, regularizer):
    """The parameters, each carrying its share of the learning rate and the penalty that the
    optimiser adds to its gradient after clipping.
    """
    kind, coefficient = "L2", weight_decay
    if regularizer is not None:
        if weight_decay is not None:
            raise ValueError("weight_decay and regularizer exclude each other; give one")
        require_keys(regularizer, ("name", "coeff"), "regularizer")
        kind = coerce(regularizer.get("name"), Literal["L1", "L2"], "regularizer.name")
        coefficient = coerce(regularizer.get("coeff"), float, "regularizer.coeff")
    penalty = {"L1": paddle.regularizer.L1Decay, "L2": paddle.regularizer.L2Decay}[kind]
    for setting in settings:
        decay = coefficient if setting.weight_decay is None else setting.weight_decay
        setting.parameter.regularizer = penalty(decay) if decay else None
    return _with_rates(settings)
