"""Defaults and constants are those of the references: mmdetection 3.3, mmsegmentation 1.2, timm and
PaddleClas. A changed one fails nothing else: the network still learns, a little worse.
"""

import inspect

import pytest

from ppcls_nextvit.data import BATCH_TRANSFORMS, JOINT_TRANSFORMS, TRANSFORMS
from ppcls_nextvit.engine.optim import OPTIMIZERS
from ppcls_nextvit.engine.schedule import SCHEDULES
from ppcls_nextvit.models import MODELS
from ppcls_nextvit.models.detectors import boxes, roi, rpn
from ppcls_nextvit.tasks.classification.losses import LOSSES
from ppcls_nextvit.tasks.segmentation.losses import LOSSES as SEGMENTATION_LOSSES

DEFAULTS = [
    # mmdetection's configs/_base_/models/mask-rcnn_r50_fpn.py
    (
        MODELS,
        "MaskRCNN",
        {
            "num_classes": 80,
            "fpn_channels": 256,
            "fc_channels": 1024,
            "mask_convs": 4,
            "anchor_scales": (8.0,),
            "anchor_ratios": (0.5, 1.0, 2.0),
            "train_proposals": (2000, 1000),
            "test_proposals": (1000, 1000),
            "rpn_nms_threshold": 0.7,
            "rpn_samples": 256,
            "roi_samples": 512,
            "score_threshold": 0.05,
            "nms_threshold": 0.5,
            "max_detections": 100,
        },
    ),
    # its configs/dino/dino-4scale_r50_8xb2-12e_coco.py
    (
        MODELS,
        "DINO",
        {
            "num_classes": 80,
            "num_queries": 900,
            "channels": 256,
            "heads": 8,
            "points": 4,
            "hidden": 2048,
            "encoder_layers": 6,
            "decoder_layers": 6,
            "dn_queries": 100,
            "label_noise": 0.5,
            "box_noise": 1.0,
            "max_detections": 300,
        },
    ),
    # mmsegmentation's PhotoMetricDistortion
    (
        JOINT_TRANSFORMS,
        "PhotoMetricDistortion",
        {
            "brightness_delta": 32,
            "contrast_range": (0.5, 1.5),
            "saturation_range": (0.5, 1.5),
            "hue_delta": 18,
        },
    ),
    (JOINT_TRANSFORMS, "RandomFlip", {"prob": 0.5}),
    (JOINT_TRANSFORMS, "RandomCrop", {"cat_max_ratio": 1.0}),
    # the options of the published ImageNet training, which are timm's
    (
        BATCH_TRANSFORMS,
        "TimmMixup",
        {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 1.0, "switch_prob": 0.5},
    ),
    # PaddleClas's operators and optimisers
    (SCHEDULES, "Cyclic", {"exp_gamma": 1.0}),
    # mmsegmentation's heads: 0.4 for the auxiliary one
    (SEGMENTATION_LOSSES, "CrossEntropyLoss", {"weight": 1.0, "auxiliary_weight": 0.4}),
    (BATCH_TRANSFORMS, "MixupOperator", {"alpha": 1.0}),
    (BATCH_TRANSFORMS, "CutmixOperator", {"alpha": 0.2}),
    (
        TRANSFORMS,
        "NormalizeImage",
        {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    ),
    (
        TRANSFORMS,
        "RandomErasing",
        {"EPSILON": 0.5, "sl": 0.02, "sh": 0.4, "r1": 0.3, "attempt": 100},
    ),
    (OPTIMIZERS, "AdamW", {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}),
    (OPTIMIZERS, "Adam", {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}),
    (OPTIMIZERS, "RMSProp", {"momentum": 0.0, "rho": 0.95, "epsilon": 1e-6}),
    (
        LOSSES,
        "MultiLabelAsymmetricLoss",
        {
            "gamma_pos": 1.0,
            "gamma_neg": 4.0,
            "clip": 0.05,
            "epsilon": 1e-8,
            "disable_focal_loss_grad": True,
            "reduction": "sum",
        },
    ),
]


@pytest.mark.parametrize("registry, name, expected", DEFAULTS, ids=[row[1] for row in DEFAULTS])
def test_defaults_are_published(registry, name, expected):
    parameters = inspect.signature(registry.get(name)).parameters
    assert {key: parameters[key].default for key in expected} == expected


def test_constants_of_mask_r_cnn_are_mmdetections():
    assert (rpn.POSITIVE_IOU, rpn.NEGATIVE_IOU, rpn.LOWEST_IOU) == (0.7, 0.3, 0.3)
    assert (rpn.POSITIVE_SHARE, roi.POSITIVE_SHARE, roi.IOU) == (0.5, 0.25, 0.5)
    assert rpn.STDS == (1.0, 1.0, 1.0, 1.0) and roi.STDS == (0.1, 0.1, 0.2, 0.2)
    assert (roi.FINEST_SCALE, roi.BOX_CELLS, roi.MASK_CELLS) == (56, 7, 14)
    assert boxes.MAX_LOG_RATIO == pytest.approx(4.135166556742356)  # 1000 / 16
