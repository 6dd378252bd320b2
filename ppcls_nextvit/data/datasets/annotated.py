"""What datasets of annotated images (detection, segmentation) share."""

import numpy as np

from ...schema import ConfigError
from ..images import decode_image
from ..transforms.joint import JointPipeline, fixed_pipeline, padded
from .registry import SECTIONS

__all__ = ["AnnotatedDataset", "thinned"]


def thinned(items, count):
    """`count` of the items at equal distances; all of them for None, or if there are no more.
    ConfigError below 1.
    """
    if count is not None and count < 1:
        raise ConfigError(f"sample_num: expected 1 or more images, got {count}")
    return (
        items
        if count is None or count >= len(items)
        else [items[i * len(items) // count] for i in range(count)]
    )


class AnnotatedDataset:
    """What sets of images with annotations share. A subclass has `truth(i, shape)`, the annotations
    of image i as keys of a sample.

    files: FolderFiles or ZipFiles; mode: 'train', or 'val' without annotations in the samples.
    """

    def __init__(self, files, names, mode, transform_ops, bad_images):
        files.check(names)
        self.files, self.names, self.training = files, names, mode == "train"
        self.transform = JointPipeline(transform_ops)
        self.bad_images = SECTIONS.build("BadImages", bad_images, "bad_images")
        # three channels in float32, eight masks
        self.sample_bytes = int(self.transform.max_pixels(1 << 20) * 20)

    @staticmethod
    def check(arguments, mode, where):
        """ConfigError for transforms that cannot be built, for another `mode` than DataLoader's,
        and for chance in evaluation.
        """
        expected, build = {"Train": ("train", JointPipeline), "Eval": ("val", fixed_pipeline)}[mode]
        if arguments["mode"] != expected:
            raise ConfigError(
                f"{where}.mode: DataLoader.{mode} needs {expected!r}, got {arguments['mode']!r}"
            )
        build(arguments.get("transform_ops"), f"{where}.transform_ops")

    def __len__(self):
        return len(self.names)

    def name(self, i):
        """The path of image i, for messages."""
        return self.files.path(self.names[i])

    def image(self, i):
        """Image i as uint8 [H, W, 3], RGB. ImageError if it cannot be read."""
        return decode_image(self.files.read(self.names[i]), name=self.name(i))

    def load(self, i, rng):
        """One sample as the module's docstring has it, with `index` and the file's size,
        `original`; rng: a numpy Generator.
        """
        image = self.image(i)
        sample = {
            "image": image,
            "scale": (1.0, 1.0),
            "flip": False,
            **(self.truth(i, image.shape[:2]) if self.training else {}),
        }
        sample = self.transform(sample, rng, self.name(i))
        return {
            "shape": sample["image"].shape[:2],
            **sample,
            "index": i,
            "original": image.shape[:2],
        }

    def collate(self, samples, rng):
        """The batch: image float32 [B, 3, H, W] with zeros up to the largest, index int64 [B],
        shape and original int32 [B, 2], scale float32 [B, 2], flip bool [B]."""
        size = np.max([sample["image"].shape[:2] for sample in samples], axis=0)
        images = [
            padded(sample["image"].transpose(2, 0, 1).astype(np.float32, copy=False), size)
            for sample in samples
        ]
        kinds = {
            "index": np.int64,
            "shape": np.int32,
            "original": np.int32,
            "scale": np.float32,
            "flip": bool,
        }
        return {
            "image": np.stack(images),
            **{
                key: np.array([sample[key] for sample in samples], kind)
                for key, kind in kinds.items()
            },
        }
