"""Shards: images in tar files of WebDataset's layout, with an index for exact random access."""

from .files import ShardFiles
from .index import INDEX, ShardIndex, index_shards
from .make import make_shards
from .samples import Found

__all__ = ["INDEX", "Found", "ShardFiles", "ShardIndex", "index_shards", "make_shards"]
