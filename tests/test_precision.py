"""When mixed precision is on, and for what. (Paddle has none on a CPU.)"""

import logging

import paddle
import pytest
from paddle import nn

from ppcls_nextvit.config.sections import AMPSection
from ppcls_nextvit.engine.logger import logger
from ppcls_nextvit.engine.precision import evaluates_low, float32_state, mixed_precision


@pytest.mark.parametrize(
    "amp, low",
    [
        (None, False),
        (AMPSection(use_amp=False, level="O2", use_fp16_test=True), False),
        (AMPSection(use_amp=True, level="O1"), False),
        (AMPSection(use_amp=True, level="O1", use_fp16_test=True), True),
        (AMPSection(use_amp=True, level="O2"), True),
    ],
)
def test_evaluation_is_low_where_it_was_asked_for_or_the_weights_are(amp, low):
    assert evaluates_low(amp) is low


@pytest.mark.parametrize("amp, warns", [(None, 0), (AMPSection(use_amp=True), 1)])
def test_a_cpu_trains_in_float32_and_says_so(amp, warns, caplog, monkeypatch):
    monkeypatch.setattr(logger, "propagate", True)  # a run before this one kept its log to itself
    model = nn.Linear(2, 2)
    optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
    with caplog.at_level(logging.WARNING):
        same, same_optimizer, scaler, autocast = mixed_precision(amp, model, optimizer, "cpu")
    said = {record.getMessage() for record in caplog.records}  # once for each handler
    assert len(said) == warns
    assert same is model and same_optimizer is optimizer and not scaler.is_enable()
    with autocast():
        assert model(paddle.ones([1, 2])).dtype == paddle.float32


def test_without_amp_a_gpu_trains_in_float32_too():
    model = nn.Linear(2, 2)
    optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
    _, _, scaler, _ = mixed_precision(AMPSection(use_amp=False), model, optimizer, "gpu")
    assert not scaler.is_enable()


def test_low_weights_are_saved_in_float32_and_others_as_they_are():
    model = nn.Layer()
    for name, dtype in (("low", "float16"), ("high", "float64"), ("count", "int64")):
        model.register_buffer(name, paddle.ones([2], dtype))
    kinds = {name: str(array.dtype) for name, array in float32_state(model).items()}
    assert kinds == {"low": "float32", "high": "float64", "count": "int64"}
