"""Ten training steps of Next-ViT-S follow the reference (PyTorch) with this project's optimiser and
loss.
"""

import json

import numpy as np
import paddle
import pytest

from ppcls_nextvit.engine.optim import build_optimizer, gradient_norm
from ppcls_nextvit.engine.parameter_groups import split_by_decay
from ppcls_nextvit.models.layers import BATCH_NORMS
from ppcls_nextvit.tasks.classification.losses import build_loss
from scripts import seeded
from support.goldens import max_difference, seeded_model
from support.paths import GOLDEN

STEPS, SEED = 10, 0
DECAY = {"no_weight_decay_name": ".bias norm ", "one_dim_param_no_weight_decay": True}
# The protocol does not name the images of the evaluation. Of the seeds 0 to 1100 of this shape, 500
# alone gives its logits (to 0.0013, the next best to 0.16).
EVALUATION_IMAGES = ((4, 3, 64, 64), 500)


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "nextvit_small_training_seed0.json").read_text())


@pytest.fixture(scope="module")
def trained(golden):
    """(model after ten steps, losses, gradient norms, statistics before, values per channel that
    each BatchNorm averages).
    """
    assert golden["seed"] == SEED
    model = seeded_model("NextViT_small", num_classes=10, drop_path_rate=0.0)
    norms = {
        name: layer for name, layer in model.named_sublayers() if isinstance(layer, BATCH_NORMS)
    }
    before, averaged = {name: layer._variance.numpy() for name, layer in norms.items()}, {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, inputs, name=name: averaged.update(
                {name: inputs[0].size // inputs[0].shape[1]}
            )
        )
        for name, layer in norms.items()
    ]
    optimizer = build_optimizer(
        {"name": "AdamW", "weight_decay": 0.1, "clip_global_norm": 5.0, **DECAY}, model
    )
    criterion = build_loss([{"CELoss": {"weight": 1.0, "epsilon": 0.1}}])
    losses, gradient_norms = [], []
    model.train()
    for step in range(STEPS):
        place = SEED * 1000 + step
        labels = seeded.generator("label", place).integers(0, 10, 8)
        loss, _ = criterion(
            model(paddle.to_tensor(seeded.image((8, 3, 64, 64), place))),
            {"label": paddle.to_tensor(labels)},
        )
        loss.backward()
        losses.append(float(loss))
        gradient_norms.append(gradient_norm(model))
        optimizer.set_lr(2e-5)
        optimizer.step()
        optimizer.clear_grad()
    model.eval()
    for hook in hooks:
        hook.remove()
    return model, losses, gradient_norms, before, averaged


@pytest.mark.slow
def test_losses_and_gradient_norms_follow_at_every_step(golden, trained):
    """Measured: losses to 1.1e-4, norms to 2.5e-4 relative; float32 rounding grows with the steps.

    At the first step losses agree to 3e-7. The reference's gradient norm, made in float32, is
    2.85e-5 off the double-precision one, 59.1799230, so that ours can only be held to that: it is
    within 2e-6 of the reference's on one processor, within 4e-7 of the true one on another.
    """
    model, losses, gradient_norms, _, _ = trained
    assert [len(group) for group in split_by_decay(model, **DECAY)] == [
        golden["decayed_tensors"],
        golden["undecayed_tensors"],
    ]
    assert losses[0] == pytest.approx(golden["loss"][0], rel=1e-5)
    assert losses == pytest.approx(golden["loss"], rel=1e-3)
    assert gradient_norms[0] == pytest.approx(golden["grad_norm_before_clip"][0], rel=3.5e-5)
    assert gradient_norms == pytest.approx(golden["grad_norm_before_clip"], rel=1e-3)


@pytest.mark.slow
def test_evaluation_afterwards_follows_but_for_the_biased_running_variance(golden, trained):
    """Paddle's running variance averages biased variances, PyTorch's unbiased ones, n / (n - 1)
    larger (n is 8 * H * W, 32 at the end).

    With logits of up to 1.1 they agree to 5e-2 (measured 2.8e-2), and to 5e-3 (measured 1.3e-3)
    once that difference is undone, so that it is the reason.
    """
    model, _, _, before, averaged = trained
    images = paddle.to_tensor(seeded.image(*EVALUATION_IMAGES))
    expected = np.array(golden["eval_logits_after_10_steps"])
    with paddle.no_grad():
        assert max_difference(model(images), expected) < 5e-2
        kept = 0.9**STEPS
        for name, layer in model.named_sublayers():
            if name in before:
                learnt = layer._variance.numpy() - kept * before[name]
                layer._variance.set_value(
                    kept * before[name] + learnt * np.float32(averaged[name] / (averaged[name] - 1))
                )
        assert max_difference(model(images), expected) < 5e-3
