"""A YAML file in PaddleClas's dialect becomes a frozen, typed Config; nothing unknown survives.

Types and nothing else: what a registry's entry may hold is verified by `tasks.check`, which
`tasks.load_config` calls for every program.
"""

from ..schema import ConfigError
from .reading import dialect_of, dump_config, read_config
from .sections import Config

__all__ = ["Config", "ConfigError", "dialect_of", "dump_config", "read_config"]
