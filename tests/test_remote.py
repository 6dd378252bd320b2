"""Images, lists and shards on a server: the same batches as from a disk, whatever the server does
in between, and a cache that keeps to its bytes.
"""

import errno
import multiprocessing
import os
import shutil
import time

import numpy as np
import pytest

pytest.importorskip("fsspec", reason="needs the extra `remote`")
pytest.importorskip("aiohttp", reason="needs the extra `remote`")

from ppcls_nextvit.cli.main import main  # noqa: E402
from ppcls_nextvit.data import build_loader, check_loader  # noqa: E402
from ppcls_nextvit.data.images import ImageError  # noqa: E402
from ppcls_nextvit.data.remote import RemoteError, RemoteOptions, RemoteStore  # noqa: E402
from ppcls_nextvit.data.remote import cache as cache_module  # noqa: E402
from ppcls_nextvit.data.remote import store as store_module  # noqa: E402
from ppcls_nextvit.data.remote.cache import HEADER, BlockCache  # noqa: E402
from ppcls_nextvit.schema import ConfigError  # noqa: E402
from support.paths import NUCLEI  # noqa: E402
from support.range_server import serving  # noqa: E402

IMAGES = sorted(os.listdir(NUCLEI / "images" / "training"))[:6]
OPS = [
    {"DecodeImage": None},
    {"ResizeImage": {"size": [16, 16]}},
    {"NormalizeImage": {"order": ""}},
    {"ToCHWImage": None},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`images` with a list, and `shards` of the same. Not to be changed."""
    folder = tmp_path_factory.mktemp("remote")
    (folder / "images").mkdir()
    names = [f"{'ü #' if n == 3 else ''}{name}" for n, name in enumerate(IMAGES)]
    for name, source in zip(names, IMAGES, strict=True):
        shutil.copy(NUCLEI / "images" / "training" / source, folder / "images" / name)
    lines = (f"{name} {number % 2}\n" for number, name in enumerate(names))
    (folder / "list.txt").write_text("".join(lines), encoding="utf-8")
    arguments = [str(folder / "shards"), "--image-root", str(folder / "images")]
    assert main(["shards", "make", *arguments, "--list", str(folder / "list.txt")]) == 0
    return folder


@pytest.fixture
def served(made):
    with serving(made) as host:
        yield host


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.01)


def remote(tmp_path, **more):
    return {"cache": str(tmp_path / "cache"), "timeout_s": 5, "patience_s": 5, **more}


def listed(root, tmp_path, workers=0, **more):
    dataset = {"name": "ImageNetDataset", "image_root": f"{root}/images"}
    return section(dataset | {"cls_label_path": f"{root}/list.txt"}, tmp_path, workers, **more)


def sharded(root, tmp_path, workers=0, **more):
    dataset = {"name": "ImageShards", "image_root": f"{root}/shards"}
    return section(dataset, tmp_path, workers, **more)


def section(dataset, tmp_path, workers, **more):
    return {
        "dataset": {**dataset, "transform_ops": OPS, "remote": remote(tmp_path, **more)},
        "sampler": {"batch_size": 2, "shuffle": True},
        "loader": {"num_workers": workers, "use_shared_memory": False},
    }


def loader(data):
    return build_loader(data, "Train", num_classes=2)


def batches(data, epoch=0):
    return [
        (batch["image"].numpy().tobytes(), batch["label"].numpy().tolist())
        for batch in loader(data).epoch(epoch)
    ]


# The same batches
# ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [listed, sharded])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_servers_batches_are_the_disks(made, served, tmp_path, kind, workers):
    there = kind(served.url, tmp_path, workers)
    here = kind(made, tmp_path)
    del here["dataset"]["remote"]
    check_loader(there, "Train")
    assert batches(there) == batches(here)
    before = len(served.requests)
    assert batches(there, 1) == batches(here, 1)
    read = [path for _, path, _ in served.requests[before:] if "index" not in path]
    assert not [path for path in read if path.endswith((".tar", ".png"))]


def test_every_fsspec_protocol(made, tmp_path):
    here = sharded(made, tmp_path)
    del here["dataset"]["remote"]
    assert batches(sharded(f"file://{made}", tmp_path)) == batches(here)


def test_a_new_list_is_noticed(made, tmp_path):
    shutil.copytree(made / "images", tmp_path / "images")
    for etags in (True, False):
        with serving(tmp_path) as host:
            host.etags = etags
            for lines in (1, 3):
                text = (made / "list.txt").read_text(encoding="utf-8").splitlines(True)
                (tmp_path / "list.txt").write_text("".join(text[:lines]), encoding="utf-8")
                for _ in range(2):
                    assert len(loader(listed(host.url, tmp_path)).dataset) == lines


def test_segmentation_and_detection(tmp_path, served, made):
    def load(root, **dataset):
        data = {"mode": "train", "transform_ops": [{"Normalize": None}], **dataset}
        if "://" in root:
            data["remote"] = remote(tmp_path)
        parts = {"dataset": data, "sampler": {"batch_size": 1}, "loader": {}}
        return build_loader(parts, "Train", num_classes=1).dataset.load(1, np.random.default_rng(0))

    pytest.importorskip("pycocotools", reason="needs the extra `det`")
    with serving(NUCLEI) as host:
        coco = [
            load(
                str(root),
                name="COCODataset",
                image_root=f"{root}/images/training",
                annotation_path=f"{root}/instances_training.json",
            )
            for root in (NUCLEI, host.url)
        ]
    assert all(np.array_equal(coco[0][key], coco[1][key]) for key in ("image", "boxes", "masks"))


# A server that fails
# ----------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [{"fail": 503}, {"fail": 429}, {"cut": 100}, {"garble": True}])
def test_troubles_that_pass_change_nothing(made, served, tmp_path, trouble):
    here = sharded(made, tmp_path)
    del here["dataset"]["remote"]
    data = loader(sharded(served.url, tmp_path, cache_bytes=0, connections=1))
    vars(served).update(trouble, times=1 if "garble" in trouble else 3)
    found = [batch["image"].numpy().tobytes() for batch in data.epoch(0)]
    assert found == [image for image, _ in batches(here)] and served.times == 0


def test_a_run_goes_on_after_the_server_returns(made, served, tmp_path, caplog, monkeypatch):
    data = loader(sharded(served.url, tmp_path, cache_bytes=0, patience_s=30, connections=1))
    iterator = data.epoch(0)
    found = [next(iterator)["label"].numpy().tolist()]
    served.stop()
    pauses = []

    def pause(seconds):
        """The server comes back while the loader waits."""
        pauses.append(seconds)
        if len(pauses) == 3:
            served.start()

    monkeypatch.setattr(store_module, "SLEEP", pause)
    found += [batch["label"].numpy().tolist() for batch in iterator]
    here = sharded(made, tmp_path)
    del here["dataset"]["remote"]
    assert found == [label for _, label in batches(here)]
    assert "failed reads so far); it is tried again for" in caplog.text
    assert "answers again" in caplog.text


def test_patience_ends(made, served, tmp_path):
    data = loader(listed(served.url, tmp_path, cache_bytes=0, patience_s=0.2))
    served.fail, served.times = 500, 10**9
    with pytest.raises(ImageError, match=r"status 500, in each of \d+ attempts within 0.2 s"):
        list(data.epoch(0))
    with pytest.raises(FileNotFoundError, match="list.txt: .*status 500"):
        loader(listed(served.url, tmp_path, patience_s=0.1))
    served.stop()
    with pytest.raises(ImageError, match=r"images/.*png: .*, in each of"):
        list(data.epoch(0))


def test_a_slow_server(served, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(store_module, "TOLD_EVERY_S", 0.05)
    data = loader(listed(served.url, tmp_path, cache_bytes=0))
    served.delay_s = 0.1
    assert len(list(data.epoch(0))) == 3
    assert "data come at" in caplog.text and "this process waited for them" in caplog.text
    served.delay_s = 1.0
    data = RemoteStore(served.url, RemoteOptions(timeout_s=0.1, patience_s=0, cache_bytes=0))
    with pytest.raises(RemoteError, match=r"no answer in time \(remote.timeout_s\)"):
        data.read(f"{served.url}/list.txt")


def test_images_are_read_ahead_together(served, tmp_path):
    data = loader(listed(served.url, tmp_path, cache_bytes=0))
    served.delay_s = 0.3
    since = time.monotonic()
    data.dataset.read_ahead(range(6))
    for index in range(6):
        data.dataset.read(index)
    assert time.monotonic() - since < 5 * 0.3


def test_a_server_that_lies_about_sizes(served, tmp_path):
    for lie in (-5, 7):
        served.lie = lie
        with pytest.raises((FileNotFoundError, ConfigError), match="index"):
            loader(sharded(served.url, tmp_path / str(lie), patience_s=0.1))
    served.lie = 0
    data = loader(sharded(served.url, tmp_path, cache_bytes=0))
    served.ranges = False
    with pytest.raises(ImageError, match=r"gave \d+ bytes where \d+ were asked for"):
        list(data.epoch(0))


def test_damage_is_told_and_not_kept(made, served, tmp_path):
    data = loader(sharded(served.url, tmp_path, connections=1))
    served.garble, served.times = True, 100
    with pytest.raises(ImageError, match="not the bytes that were indexed; the shard is damaged"):
        list(data.epoch(0))
    served.times = 0
    assert len(list(data.epoch(0))) == 3


def test_an_index_that_changed(made, tmp_path):
    shutil.copytree(made / "shards", tmp_path / "shards")
    with serving(tmp_path) as host:
        assert len(list(loader(sharded(host.url, tmp_path)).epoch(0))) == 3
        shutil.rmtree(tmp_path / "shards")
        arguments = ["--image-root", str(made / "images"), "--list", str(tmp_path / "list")]
        lines = (made / "list.txt").read_text(encoding="utf-8").splitlines(True)
        (tmp_path / "list").write_text("".join(lines[:2]), encoding="utf-8")
        assert main(["shards", "make", str(tmp_path / "shards"), *arguments]) == 0
        assert len(list(loader(sharded(host.url, tmp_path)).epoch(0))) == 1


def test_what_is_not_there(served, tmp_path):
    missing = listed(served.url, tmp_path)
    missing["dataset"]["image_root"] += "/none"
    with pytest.raises(FileNotFoundError, match="no such file, and it is the first of the list"):
        loader(missing)
    missing["dataset"]["cls_label_path"] += "x"
    with pytest.raises(FileNotFoundError, match="list.txtx: no such file"):
        loader(missing)
    folder = section({"name": "ImageFolder", "image_root": f"{served.url}/images"}, tmp_path, 0)
    del folder["dataset"]["remote"]
    with pytest.raises(ConfigError, match="folders are not listed there; make a list"):
        loader(folder)
    with pytest.raises(ConfigError, match="nosuch://a/shards: Protocol not known"):
        loader(sharded("nosuch://a", tmp_path))


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"cache_bytes": -1}, "expected cache_bytes >= 0"),
        ({"timeout_s": 0}, "expected timeout_s > 0"),
        ({"connections": 0}, "connections from 1 to 256"),
        ({"patience": 3}, "patience: unknown key. Did you mean 'patience_s'"),
    ],
)
def test_keys_that_cannot_be(tmp_path, keys, message):
    data = sharded("http://127.0.0.1:9", tmp_path, **keys)
    with pytest.raises(ConfigError, match=f"remote.*{message}"):
        check_loader(data, "Train")


# The cache
# ----------------------------------------------------------------------------


def taken(folder):
    """The bytes of the entries in a cache."""
    return sum(
        os.path.getsize(os.path.join(place, name))
        for place, _, names in os.walk(folder / "entries")
        for name in names
    )


def test_the_cache_keeps_to_its_bytes(tmp_path):
    cache = BlockCache(str(tmp_path), 10_000)
    rng = np.random.default_rng(0)
    for number in range(200):
        data = rng.bytes(int(rng.integers(1, 900)))
        cache.put(str(number), data)
        assert cache.get(str(number)) == data
        assert taken(tmp_path) == cache.usage() <= 10_000
    assert cache.usage() > 7_000
    cache.put("large", bytes(20_000))
    assert cache.get("large") is None and cache.get("0") is None


def test_what_was_read_last_stays(tmp_path):
    cache = BlockCache(str(tmp_path), 10 * (100 + HEADER.size))
    for number in range(10):
        cache.put(str(number), bytes(100))
        path = cache._path(str(number))
        os.utime(path, (number, number))
    assert cache.get("0") == bytes(100)
    cache.put("new", bytes(100))
    assert cache.get("0") and cache.get("9") and cache.get("new") and cache.get("1") is None


def test_damaged_entries_are_no_data(tmp_path, caplog):
    cache = BlockCache(str(tmp_path), 1 << 20)
    for damage in (b"", b"x" * 500, None):
        cache.put("a", bytes(300))
        path = cache._path("a")
        content = bytearray(open(path, "rb").read())
        content[40] ^= 4
        with open(path, "wb") as file:
            file.write(content if damage is None else damage)
        caplog.clear()
        assert cache.get("a") is None and "a damaged entry of the cache is removed" in caplog.text
        assert not os.path.exists(path)


def test_accounts_are_mended(tmp_path):
    cache = BlockCache(str(tmp_path), 5_000)
    for number in range(5):
        cache.put(str(number), bytes(100))
    whole = taken(tmp_path)
    for account in (b"", b"x", None):
        path = tmp_path / "usage"
        path.unlink() if account is None else path.write_bytes(account)
        assert cache.usage() == whole
    # someone was killed between the account and the entry
    (tmp_path / "usage").write_bytes(b"%-32d" % 4_990)
    draft = cache._path("0") + cache_module.DRAFT
    with open(draft, "wb") as file:
        file.write(bytes(50))
    cache.put("9", bytes(100))
    assert cache.usage() == taken(tmp_path) and not os.path.exists(draft)


def test_a_full_disk(tmp_path, caplog, monkeypatch, served):
    cache = BlockCache(str(tmp_path / "c"), 5_000)
    cache.put("a", bytes(100))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module.os, "replace", full)
        cache.put("b", bytes(100))
        assert cache.get("b") is None and cache.get("a") == bytes(100)
        assert "the cache cannot be written (No space left on device)" in caplog.text
        caplog.clear()
        cache.put("c", bytes(100))  # it rests
        assert not caplog.text and cache.usage() == taken(tmp_path / "c") == 100 + HEADER.size
        patch.setattr(cache_module, "REST_S", 0.0)
        assert len(list(loader(sharded(served.url, tmp_path)).epoch(0))) == 3
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        patch.setattr("pathlib.Path.rename", full)
        with pytest.raises(FileNotFoundError, match="cannot be copied .*No space left on device"):
            loader(sharded(served.url, tmp_path / "other"))


def _use(folder, seed):
    cache = BlockCache(folder, 20_000)
    rng = np.random.default_rng(seed)
    for _ in range(150):
        number = int(rng.integers(60))
        data = bytes([number]) * (200 + 20 * number)
        found = cache.get(str(number))
        if found is None:
            cache.put(str(number), data)
        elif found != data:
            os._exit(3)


@pytest.mark.slow
def test_two_runs_share_a_cache(tmp_path):
    if cache_module.fcntl is None:
        pytest.skip("no locks on this system")
    context = multiprocessing.get_context("fork")
    users = [context.Process(target=_use, args=(str(tmp_path), seed)) for seed in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
    assert [user.exitcode for user in users] == [0] * 4
    assert taken(tmp_path) == BlockCache(str(tmp_path), 20_000).usage() <= 20_000


@pytest.mark.slow
def test_a_store_crosses_a_fork(served):
    store = RemoteStore(served.url, RemoteOptions(cache_bytes=0, patience_s=2))
    text = store.read(f"{served.url}/list.txt")
    store.read_ahead(f"{served.url}/list.txt", None, None, None)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def child():
        results.put(store.read(f"{served.url}/list.txt"))

    children = [context.Process(target=child) for _ in range(2)]
    for process in children:
        process.start()
    for process in children:
        process.join(30)
    assert [process.exitcode for process in children] == [0, 0]
    assert results.get() == results.get() == text == store.read(f"{served.url}/list.txt")
