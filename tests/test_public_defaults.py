"""What a YAML means where it says nothing: the default of every key that it may leave out, as
tests/public_defaults.json holds them.

A changed default changes the runs of everyone who relies on it. If it is meant, write the file anew
(`python tests/test_public_defaults.py`) and tell in CHANGELOG.md. Which defaults are the
references' is for test_published_constants.py to say.
"""

import dataclasses
import inspect
import json
from pathlib import Path

from ppcls_nextvit.config import sections
from ppcls_nextvit.data import BATCH_TRANSFORMS, DATASETS, JOINT_TRANSFORMS, SAMPLERS, TRANSFORMS
from ppcls_nextvit.engine.optim import OPTIMIZERS
from ppcls_nextvit.engine.schedule import SCHEDULES
from ppcls_nextvit.models import MODELS
from ppcls_nextvit.schema import yaml_parameters
from ppcls_nextvit.tasks.classification.losses import LOSSES
from ppcls_nextvit.tasks.segmentation.losses import LOSSES as SEGMENTATION_LOSSES

STORED = Path(__file__).with_name("public_defaults.json")
REGISTRIES = {
    "datasets": DATASETS,
    "samplers": SAMPLERS,
    "transforms": TRANSFORMS,
    "joint transforms": JOINT_TRANSFORMS,
    "batch transforms": BATCH_TRANSFORMS,
    "optimisers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "losses": LOSSES,
    "segmentation losses": SEGMENTATION_LOSSES,
    "models": MODELS,
}


def shown(default):
    """A default as text: a function's by its name, which has no address in it."""
    return default.__name__ if inspect.isroutine(default) else repr(default)


def defaults_of(factory):
    return {
        name: shown(parameter.default)
        for name, parameter in yaml_parameters(factory).items()
        if parameter.default is not inspect.Parameter.empty
    }


def section_defaults(section):
    """{field: default} of a dataclass of the configuration."""
    found = {}
    for field in dataclasses.fields(section):
        if field.default is not dataclasses.MISSING:
            found[field.name] = shown(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = shown(field.default_factory())
    return found


def all_defaults():
    """{registry: {name: {key: default}}}, and the configuration's sections."""
    own = {
        name: value
        for name, value in vars(sections).items()
        if dataclasses.is_dataclass(value) and value.__module__ == sections.__name__
    }
    registered = {
        kind: {name: defaults_of(registry.get(name)) for name in sorted(registry)}
        for kind, registry in REGISTRIES.items()
    }
    return registered | {
        "sections": {name: section_defaults(value) for name, value in sorted(own.items())}
    }


def test_defaults_are_what_they_were():
    stored, found = json.loads(STORED.read_text(encoding="utf-8")), all_defaults()
    assert list(found) == list(stored)
    for kind, entries in found.items():
        assert entries == stored[kind], kind


if __name__ == "__main__":
    text = json.dumps(all_defaults(), indent=1, sort_keys=False)
    STORED.write_text(text + "\n", encoding="utf-8")
