"""docs/paddleclas.md says of every name of the suites whether it is taken, as the registries do."""

import re

import pytest
import yaml

from ppcls_nextvit.config.reading import REFUSED
from ppcls_nextvit.data import BATCH_TRANSFORMS, DATASETS, SAMPLERS, TRANSFORMS
from ppcls_nextvit.engine.optim import OPTIMIZERS
from ppcls_nextvit.engine.schedule import SCHEDULES
from ppcls_nextvit.tasks.classification.kind import MULTI_LABEL
from ppcls_nextvit.tasks.classification.task import LOSSES, METRICS
from ppcls_nextvit.tasks.segmentation.task import LOSSES as SEGMENTATION_LOSSES
from support.paths import ROOT

PAGE = (ROOT / "docs" / "paddleclas.md").read_text(encoding="utf-8")
CLASSIFICATION, SEGMENTATION = PAGE.split("\n## PaddleSeg's losses\n")
REGISTRIES = {
    "Loss": LOSSES,
    "Metric": METRICS,
    "dataset": DATASETS,
    "sampler": SAMPLERS,
    "transform_ops": TRANSFORMS,
    "batch_transform_ops": BATCH_TRANSFORMS,
    "Optimizer": OPTIMIZERS,
    "Optimizer.lr": SCHEDULES,
    "PostProcess": ["Topk", MULTI_LABEL],
}
# What PaddleClas's packages export (develop, October 2024): ppcls/loss, metric, data,
# data/preprocess, data/preprocess/batch_ops, optimizer, data/postprocess
PADDLECLAS = {
    "Loss": """CELoss MixCELoss GoogLeNetLoss CenterLoss ContrastiveLoss ContrastiveLoss_XBM EmlLoss
        MSMLoss NpairsLoss TriHardLoss TripletLoss TripletLossV2 TripletAngularMarginLoss
        TripletAngularMarginLoss_XBM SupConLoss SoftSupConLoss CCSSLCELoss PairwiseCosface DMLLoss
        DistanceLoss SoftTargetCrossEntropy DistillationCELoss DistillationGTCELoss
        DistillationDMLLoss DistillationDistanceLoss DistillationRKDLoss DistillationKLDivLoss
        DistillationDKDLoss DistillationWSLLoss DistillationSKDLoss DistillationMultiLabelLoss
        DistillationDISTLoss DistillationPairLoss MultiLabelLoss MultiLabelAsymmetricLoss AFDLoss
        DSHSDLoss LCDSHLoss DCHLoss CELossForMetaBIN TripletLossForMetaBIN InterDomainShuffleLoss
        IntraDomainScatterLoss""",
    "Metric": """TopkAcc mAP mINP Recallk Precisionk DistillationTopkAcc GoogLeNetTopkAcc
        HammingDistance AccuracyScore ATTRMetric TprAtFpr MultilabelMeanAccuracy MultiLabelMAP""",
    "dataset": """ImageNetDataset MultiLabelDataset CompCars VeriWild LogoDataset ICartoonDataset
        MixDataset MultiScaleDataset Market1501 MSMT17 DukeMTMC FiveValidationDataset
        AdaFaceDataset CustomLabelDataset Cifar10 Cifar100""",
    "sampler": """DistributedBatchSampler DomainShuffleBatchSampler NaiveIdentityBatchSampler
        DistributedRandomIdentitySampler PKSampler MixSampler MultiScaleSampler RASampler""",
    "transform_ops": """AutoAugment RandAugment RandAugmentV2 RandAugmentV3 RandAugmentV4
        RandomApply TimmAutoAugment Cutout HideAndSeek RandomErasing GridMask DecodeImage
        ResizeImage CropImage CropImageAtRatio CenterCrop Resize RandCropImage RandCropImageV2
        RandFlipImage NormalizeImage ToCHWImage AugMix Pad ToTensor Normalize RandomHorizontalFlip
        RandomResizedCrop CropWithPadding RandomInterpolationAugment ColorJitter RawColorJitter
        RandomGrayscale RandomCropImage RandomRotation Padv2 RandomRot90 PCALighting BlurImage
        Pad_paddle_vision""",
    "batch_transform_ops": """MixupOperator CutmixOperator OpSampler FmixOperator
        MixupCutmixHybrid""",
    "Optimizer": "SGD Momentum Adam RMSProp AdamW AdamWDL",
    "Optimizer.lr": """Constant ConstLR Linear Cosine Cyclic Step Piecewise MultiStepDecay
        ReduceOnPlateau CosineFixmatch OneCycleLR""",
    "PostProcess": """Topk ThreshOutput MultiLabelThreshOutput VehicleAttribute PersonAttribute
        TableAttribute ScoreOutput""",
}
# What PaddleSeg 2.8.0 registers in paddleseg/models/losses
PADDLESEG = """BCELoss BootstrappedCrossEntropyLoss CrossEntropyLoss DistillCrossEntropyLoss
    RelaxBoundaryLoss DetailAggregateLoss DiceLoss EdgeAttentionLoss FocalLoss MultiClassFocalLoss
    DualTaskLoss KLLoss L1Loss LovaszSoftmaxLoss LovaszHingeLoss MaskFormerLoss MSELoss MixedLoss
    OhemCrossEntropyLoss OhemEdgeAttentionLoss PixelContrastCrossEntropyLoss PointCrossEntropyLoss
    RMILoss SemanticConnectivityLoss SECrossEntropyLoss"""


def rows(text, columns):
    """The cells of the tables' rows that have so many columns."""
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in cells if len(row) == columns]


def names(cell):
    return re.findall(r"`(\w+)`", cell)


def sections(columns):
    """{section: names of the second column} of the tables of so many columns."""
    found = {}
    for section, cell, *_ in rows(CLASSIFICATION, columns):
        found.setdefault(section, []).extend(names(cell))
    return found


@pytest.mark.parametrize("section", PADDLECLAS)
def test_every_name_of_paddleclas_is_told_once_and_rightly(section):
    taken, refused = sections(2)[section], sections(3)[section]
    assert sorted(taken + refused) == sorted(PADDLECLAS[section].split())
    assert [name for name in taken if name not in REGISTRIES[section]] == []
    assert [name for name in refused if name in REGISTRIES[section]] == []


def test_every_loss_of_paddleseg_is_told_once_and_rightly():
    taken, refused = SEGMENTATION.split("| not taken | why |")
    taken, refused = ([n for row in rows(t, 2) for n in names(row[0])] for t in (taken, refused))
    assert sorted(taken + refused) == sorted(PADDLESEG.split())
    assert sorted(taken) == sorted(SEGMENTATION_LOSSES)
    assert [name for name in refused if name in SEGMENTATION_LOSSES] == []


def test_the_losses_are_those_that_paddleseg_has():
    losses = pytest.importorskip("paddleseg.models.losses")
    from paddleseg.cvlibs import manager

    assert losses and set(manager.LOSSES.components_dict) == set(PADDLESEG.split())


def test_the_keys_of_global_are_those_that_are_refused():
    told = {names(key)[0]: value for key, value in rows(CLASSIFICATION, 2) if names(key)}
    accepted = {
        key: yaml.safe_load(value.strip("`")) if value != "none" else None
        for key, value in told.items()
    }
    assert accepted == {key: values[0] or values[-1] for key, values in REFUSED.items()} | {
        key: False for key, values in REFUSED.items() if False in values
    }


def test_what_a_row_names_instead_is_there():
    """The names in the last column, but for keys, values and what is told to be a host's."""
    everything = {name for registry in REGISTRIES.values() for name in registry}
    known = {*everything, "hosts", "DistillationModel", "RecModel"}
    meant = {name for row in rows(CLASSIFICATION, 3)[2:] for name in names(row[2])}
    assert sorted(meant - known) == []
