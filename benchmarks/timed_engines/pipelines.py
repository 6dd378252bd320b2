"""The training transforms of one recipe, from the bytes of a JPEG on: ours and timm's."""

import io

AVERAGE = 500, 375  # of ImageNet's files
LARGE = 2000, 1500


def pictures(count, size):
    """Made-up photos, as JPEG files in memory: smooth colours under noise, of `size` = (width,
    height).
    """
    import numpy
    from PIL import Image

    width, height = size
    rng, files = numpy.random.default_rng(0), []
    for _ in range(count):
        smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), numpy.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        noisy = numpy.asarray(smooth) + rng.normal(0, 12, (height, width, 3))
        file = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(numpy.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


class OursPipeline:
    """The training transforms of configs/NextViT_small_224.yaml, from JPEG bytes to a float32
    array. made_by: (size of the pictures, 'pil' or 'cv2', whether decoding is scaled).
    """

    def __init__(self, made_by, variant, size, threads, folder):
        from pathlib import Path

        import numpy
        import PIL

        from ppcls_nextvit.data.transforms.pipeline import Pipeline
        from ppcls_nextvit.tasks import load_config

        config = load_config(Path(__file__).parents[2] / "configs" / "NextViT_small_224.yaml")
        recipe = config.DataLoader["Train"]["dataset"]["transform_ops"]
        self.pictures, backend, scaled = made_by
        if scaled:
            recipe[0]["DecodeImage"]["scaled"] = True
        for entry in recipe:
            for name, arguments in entry.items():
                if "backend" in (arguments or {}):
                    entry[name] = {**arguments, "backend": backend}
        self.transform, self.version = Pipeline(recipe), f"Pillow {PIL.__version__}"
        self.rng = numpy.random.default_rng(0)

    def data(self, batch):
        files = pictures(batch, self.pictures)

        def run():
            for file in files:
                self.transform(file, self.rng)

        return run


class TimmPipeline:
    """timm's own transform with the recipe's settings; it needs torchvision. pictures: the size."""

    def __init__(self, pictures, variant, size, threads, folder):
        import timm
        import torch
        import torchvision
        from PIL import Image
        from timm.data import create_transform

        torch.set_num_threads(threads)
        self.pictures = pictures
        self.open = Image.open
        self.version = f"timm {timm.__version__}, torchvision {torchvision.__version__}"
        self.transform = create_transform(
            size,
            is_training=True,
            interpolation="bicubic",
            auto_augment="rand-m9-mstd0.5-inc1",
            re_prob=0.25,
            re_mode="pixel",
            re_count=1,
        )

    def data(self, batch):
        files = pictures(batch, self.pictures)

        def run():
            for file in files:
                self.transform(self.open(io.BytesIO(file)).convert("RGB"))

        return run
