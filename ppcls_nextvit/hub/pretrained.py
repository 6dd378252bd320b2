"""Networks with published weights in them."""

from typing import Any, Union

from paddle import nn

from .. import models
from ..engine.logger import logger
from ..models.registry import is_backbone
from ..schema import ConfigError
from ..weights import load_weights
from .places import place_of, pretrained_source

__all__ = ["create_model"]


def create_model(name: str, pretrained: Union[bool, str] = False, **arguments: Any) -> nn.Layer:
    """A model by its name: see `models.create_model`, also for `arguments`.

    pretrained: True, a name of `list_weights()`, the middle of one ('in1k6m_384'), hf:OWNER/NAME,
    an address, or a file: weights that are loaded into it, fetched into the cache if they are not
    on this disk. A head of another class count, or none, starts anew; a detector or segmentor takes
    weights of its backbone, or of all of it. ConfigError, FetchError, LoadError say on one line
    what to do.
    """
    model = models.create_model(name, **arguments)
    if not pretrained:
        return model
    backbone = arguments.get("backbone")
    network = backbone["name"] if isinstance(backbone, dict) else name
    record = place_of(pretrained, network).record
    whole = record is not None and record.task == models.MODELS.get(name).task
    if record is not None and not (whole or is_backbone(record.model)):
        raise ConfigError(f"pretrained: {record.name} are weights for {record.task}, not {name}")
    source = pretrained_source(pretrained, network)
    report = load_weights(
        model,
        source,
        head="fresh_on_mismatch",
        backbone_only=backbone is not None and not whole,
    )
    logger.info("weights from %s: %s", source, report)
    return model
