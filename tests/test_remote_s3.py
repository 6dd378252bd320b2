"""Images, lists and shards in an S3 bucket: the same batches as from a disk. A server of this
machine that speaks S3's language stands for Amazon's.
"""

import os
import shutil

import pytest

pytest.importorskip("s3fs", reason="needs s3fs, which reads s3://")
moto = pytest.importorskip("moto.server", reason="needs moto[server], a server of S3's language")

pytestmark = pytest.mark.slow

from ppcls_nextvit.cli.main import main  # noqa: E402
from ppcls_nextvit.data import build_loader  # noqa: E402
from ppcls_nextvit.data.images import ImageError  # noqa: E402
from support.paths import NUCLEI  # noqa: E402

IMAGES = sorted(os.listdir(NUCLEI / "images" / "training"))[:6]
OPS = [
    {"DecodeImage": None},
    {"ResizeImage": {"size": [16, 16], "backend": "pil"}},
    {"NormalizeImage": {"order": ""}},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`images` with a list, and `shards` of the same. Not to be changed."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "images").mkdir()
    names = [f"{'ü #' if n == 3 else ''}{name}" for n, name in enumerate(IMAGES)]
    for name, source in zip(names, IMAGES, strict=True):
        shutil.copy(NUCLEI / "images" / "training" / source, folder / "images" / name)
    lines = (f"{name} {number % 2}\n" for number, name in enumerate(names))
    (folder / "list.txt").write_text("".join(lines), encoding="utf-8")
    arguments = [str(folder / "shards"), "--image-root", str(folder / "images")]
    assert main(["shards", "make", *arguments, "--list", str(folder / "list.txt")]) == 0
    return folder


@pytest.fixture(scope="module")
def server():
    host = moto.ThreadedMotoServer(port=0, verbose=False)
    host.start()
    yield "http://{}:{}".format(*host.get_host_and_port())
    host.stop()


@pytest.fixture(scope="module")
def options(server):
    """For fsspec's file system of s3://."""
    return {
        "endpoint_url": server,
        "key": "anyone",
        "secret": "anything",
    }


@pytest.fixture(scope="module")
def bucket(made, options):
    """The address of a bucket with what `made` has, written by s3fs."""
    import s3fs

    system = s3fs.S3FileSystem(skip_instance_cache=True, **options)
    system.call_s3("create_bucket", Bucket="pictures")
    for path in made.rglob("*"):
        if path.is_file():
            system.put_file(str(path), f"pictures/{path.relative_to(made).as_posix()}")
    return "s3://pictures"


def section(dataset, tmp_path, options, workers=0):
    remote = {"cache": str(tmp_path / "cache"), "patience_s": 0.5, "options": options}
    return {
        "dataset": {**dataset, "transform_ops": OPS, "remote": remote},
        "sampler": {"batch_size": 2, "shuffle": True},
        "loader": {"num_workers": workers, "use_shared_memory": False},
    }


def listed(root):
    return {
        "name": "ImageNetDataset",
        "image_root": f"{root}/images",
        "cls_label_path": f"{root}/list.txt",
    }


def sharded(root):
    return {"name": "ImageShards", "image_root": f"{root}/shards"}


def batches(data):
    return [
        (batch["image"].numpy().tobytes(), batch["label"].numpy().tolist())
        for batch in build_loader(data, "Train", num_classes=2).epoch(0)
    ]


@pytest.mark.parametrize("kind", [listed, sharded])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_buckets_batches_are_the_disks(made, bucket, options, tmp_path, kind, workers):
    there = batches(section(kind(bucket), tmp_path, options, workers))
    assert there == batches(section(kind(str(made)), tmp_path, {})) and len(there) == 3


def test_what_is_not_there(bucket, options, tmp_path):
    def load(dataset, **more):
        build_loader(section(dataset, tmp_path, {**options, **more}), "Train", num_classes=2)

    with pytest.raises(FileNotFoundError, match="s3://none/list.txt: no such file"):
        load(listed("s3://none"))
    missing = {**listed(bucket), "image_root": f"{bucket}/elsewhere"}
    with pytest.raises(FileNotFoundError, match="no such file, and it is the first of the list"):
        load(missing)
    with pytest.raises(FileNotFoundError, match="s3://pictures/list.txt: .*attempts within 0.5 s"):
        load(listed(bucket), endpoint_url="http://127.0.0.1:9")


def test_an_object_that_goes(made, bucket, options, tmp_path):
    import s3fs

    data = section(sharded(bucket), tmp_path, options)
    loader = build_loader(data, "Train", num_classes=2)
    system = s3fs.S3FileSystem(skip_instance_cache=True, **options)
    shard = loader.dataset.files.index.shards[0]
    system.rm_file(f"pictures/shards/{shard}")
    try:
        with pytest.raises(ImageError, match=f"s3://pictures/shards/{shard}.*no such file"):
            list(loader.epoch(0))
    finally:
        system.put_file(str(made / "shards" / shard), f"pictures/shards/{shard}")
    assert len(list(loader.epoch(0))) == 3
