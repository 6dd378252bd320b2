"""Whether a configuration's images have one label each or several: every section that tells must
tell the same.
"""

from typing import Any, Iterator, Tuple

from ...config import Config
from ...data.datasets.registry import DATASETS
from ...schema import ConfigError, Registry, named_entries
from .losses import LOSSES
from .metrics import METRICS

__all__ = ["MULTI_LABEL", "is_multi_label"]

MULTI_LABEL = "MultiLabelThreshOutput"  # the PostProcess of several labels
KINDS = {False: "one label an image", True: "several labels an image"}


def is_multi_label(config: Config) -> bool:
    """True for several labels an image. ConfigError, naming both places, where two contradict each
    other; datasets, losses and metrics tell by `multi_label`.
    """
    told = list(_told(config))
    for place, kind in told[1:]:
        if kind != told[0][1]:
            raise ConfigError(
                f"{place}: is for {KINDS[kind]}, but {told[0][0]} for {KINDS[not kind]}; give "
                f"dataset, losses, metrics and Infer.PostProcess of one kind"
            )
    return told[0][1] if told else False


def _told(config: Config) -> Iterator[Tuple[str, bool]]:
    """(place, kind) of all that tells it."""
    if config.Global.use_multilabel is not None:
        yield f"Global.use_multilabel {config.Global.use_multilabel}", config.Global.use_multilabel
    for mode, content in config.DataLoader.items():
        name = content["dataset"]["name"]
        yield f"DataLoader.{mode}.dataset {name}", _kind(DATASETS, name)
    for section, registry in (("Loss", LOSSES), ("Metric", METRICS)):
        for mode, entries in getattr(config, section).items():
            for name, _, place in named_entries(entries, f"{section}.{mode}"):
                yield place, _kind(registry, name)
    post = config.Infer.PostProcess if config.Infer else {}
    if "name" in post:
        yield f"Infer.PostProcess.name {post['name']}", post["name"] == MULTI_LABEL


def _kind(registry: Registry, name: Any) -> bool:
    return bool(getattr(registry.get(name), "multi_label", False))
