"""Datasets of labelled images in shards."""

from typing import List, Optional, Sequence

from ...schema import ConfigError, shown_text
from ..shards import ShardFiles
from .classification import LabelledFiles
from .files import remote_options
from .registry import DATASETS

__all__ = ["ImageShards"]


@DATASETS.register
class ImageShards(LabelledFiles):
    """The images of the shards in the folder `image_root`, tar files of WebDataset's layout with
    the index of `nextvit shards`, and their labels. It may be an address, PROTOCOL://..., read as
    `remote` says. `class_names`: those of the folders that the
    shards were made of.
    """

    files: ShardFiles

    def __init__(
        self,
        class_num: Optional[int],
        *,
        image_root: str,
        transform_ops: Optional[list] = None,
        batch_transform_ops: Optional[list] = None,
        bad_images: Optional[dict] = None,
        remote: Optional[dict] = None,
    ):
        options = remote_options(remote)
        if not ShardFiles.are_in(image_root, options):
            raise FileNotFoundError(
                f"image_root: {shown_text(image_root)}: no folder of shards with an index; run "
                "`nextvit shards index` on it"
            )
        files = ShardFiles(image_root, options)
        lowest, highest = int(files.index.labels.min()), int(files.index.labels.max())
        if lowest < 0:
            raise ConfigError(f"{image_root}: its index has no labels; index it with them")
        if class_num is not None and highest >= class_num:
            raise ConfigError(
                f"{image_root}: label {highest} is out of range; expected 0 to {class_num - 1} "
                f"(the model has {class_num} classes)"
            )
        self.class_names: Optional[List[str]] = files.index.class_names
        super().__init__(
            class_num,
            image_root,
            files,
            files.index.names,
            files.index.labels,
            transform_ops,
            batch_transform_ops,
            bad_images,
        )

    def read_ahead(self, indices: Sequence[int]) -> None:
        """Begin to read these images, which are loaded next."""
        self.files.read_numbers_ahead(indices)

    def read(self, index: int) -> bytes:
        """The bytes of an image. ImageError if they are not those that were indexed."""
        return self.files.read_number(index)
