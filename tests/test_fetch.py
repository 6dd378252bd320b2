"""Weights by name: what a name means, and that a file from a server is whole and right, or not
there; against a server on this machine that behaves as file hosts do.
"""

import hashlib
import io
import logging
import multiprocessing
import re
import socket
from pathlib import Path

import numpy as np
import paddle
import pytest

import ppcls_nextvit as nv
from ppcls_nextvit import zoo
from ppcls_nextvit.cli.main import main
from ppcls_nextvit.engine.logger import _InOurForm
from ppcls_nextvit.hub import FetchError, fetch, place_of, places, pretrained_source, transfer
from ppcls_nextvit.hub.transfer import recorded
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config
from support.file_server import serving
from support.pictures import clothes
from support.random_models import random_model
from support.tiny_run import write_config

PADDLECLAS = "nextvit_small.in1k_224.paddleclas"


def weights_file(size=20_000, seed=0):
    """The bytes of a file that the safe reader reads."""
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.random.default_rng(seed).random(size // 8))
    return buffer.getvalue()


BODY = weights_file()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch, tmp_path):
    pauses = []
    monkeypatch.setattr(transfer, "SLEEP", pauses.append)
    for name in (*transfer.OFFLINE_VARIABLES, "HF_ENDPOINT", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PPCLS_NEXTVIT_WEIGHTS", str(tmp_path / "cache"))
    return pauses


@pytest.fixture
def server():
    with serving() as host:
        yield host


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "w.npz"


def only(target):
    """What lies beside `target`, without the lock."""
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_is_fetched_once_and_recorded(server, target):
    url = server.put("/w.npz", BODY)
    assert fetch(url, target, "w") == target and target.read_bytes() == BODY
    assert only(target) == ["w.npz", "w.npz.json"]
    record = recorded(target)
    assert (record.url, record.sha256) == (url, hashlib.sha256(BODY).hexdigest())
    fetch(url, target, "w")
    assert server.requests == [("/w.npz", "")]


def test_a_transfer_that_breaks_off_goes_on(server, target, no_pauses):
    url = server.put("/w.npz", BODY, cut=7000, times=2)
    fetch(url, target, "w")
    assert target.read_bytes() == BODY
    assert server.requests == [
        ("/w.npz", ""),
        ("/w.npz", "bytes=7000-"),
        ("/w.npz", "bytes=14000-"),
    ]
    assert no_pauses == [1.0, 2.0]


def test_what_is_said_while_fetching_has_the_form_of_a_run_s_lines(server, target, monkeypatch):
    # As in a process without a run: one that ended before here has left its own handlers.
    monkeypatch.setattr(transfer.logger, "propagate", True)
    monkeypatch.setattr(transfer.logger, "handlers", [_InOurForm()])
    paddles = "[%(asctime)s] [%(levelname)8s] %(filename)s:%(lineno)s - %(message)s"
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(logging.Formatter(paddles))
    logging.getLogger().addHandler(handler)
    try:
        with pytest.raises(FetchError):
            fetch(server.put("/w.npz", BODY, status=503, times=99), target, "w")
    finally:
        logging.getLogger().removeHandler(handler)
    lines = handler.stream.getvalue().splitlines()
    assert lines and all(re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d \S", line) for line in lines)


def test_an_interrupted_process_leaves_what_the_next_goes_on_with(server, target, monkeypatch):
    url = server.put("/w.npz", BODY, cut=7000, times=99)
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    with pytest.raises(FetchError, match="ended after 7000 of"):
        fetch(url, target, "w")
    assert not target.exists()
    server.files["/w.npz"].times = 0
    fetch(url, target, "w")
    assert server.requests[-1] == ("/w.npz", "bytes=7000-") and target.read_bytes() == BODY


def test_another_version_begins_anew(server, target, monkeypatch):
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    other = weights_file(seed=1)
    url = server.put("/w.npz", other, cut=7000, times=1)
    with pytest.raises(FetchError):
        fetch(url, target, "w")
    server.put("/w.npz", BODY)
    fetch(url, target, "w")
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("served", [{"ranges": False}, {"version": 'W/"weak"'}, {"length": False}])
def test_a_server_without_ranges_versions_or_lengths(server, target, served):
    cut = {} if "length" in served else {"cut": 7000, "times": 1}
    fetch(server.put("/w.npz", BODY, **served, **cut), target, "w")
    assert target.read_bytes() == BODY


def test_a_shorter_file_than_the_one_begun(server, target, monkeypatch):
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    url = server.put("/w.npz", BODY, version='"one"')
    target.parent.mkdir()
    target.with_name("w.npz.part").write_bytes(BODY + b"more")
    target.with_name("w.npz.part.version").write_text('"one"')
    fetch(url, target, "w")
    assert target.read_bytes() == BODY


def test_the_hub_s_hash_and_size_count(server, target):
    fetch(server.hub("/o/n/resolve/main/w", BODY), target, "w")
    assert target.read_bytes() == BODY
    for linked, message in (
        ({"sha256": "0" * 64}, "its SHA-256 is .*, not 0000"),
        ({"size": 5}, "the server sends .* bytes of a file of 5"),
    ):
        other = target.with_name("other.npz")
        with pytest.raises(FetchError, match=message):
            fetch(server.hub("/o/n/resolve/main/x", BODY, **linked), other, "w")
        assert [
            name for name in only(target) if name.startswith("other") and "lock" not in name
        ] in (
            [],
            ["other.npz.part.version"],
        )


@pytest.mark.parametrize("size", ["9" * 5000, "-1", "²", "1_000", ""])
def test_a_size_that_is_none_is_not_heeded(server, target, size):
    assert fetch(server.hub("/a", BODY, size=size), target, "a").read_bytes() == BODY


def test_a_hash_that_is_known(server, target):
    url = server.put("/w.npz", BODY)
    with pytest.raises(FetchError, match="not 1111"):
        fetch(url, target, "w", sha256="1" * 64)
    assert only(target) == []
    fetch(url, target, "w", sha256=hashlib.sha256(BODY).hexdigest())


def hostile():
    """A pickle that would run something."""
    import os
    import pickle

    class Bad:
        def __reduce__(self):
            return os.system, ("touch hacked",)

    return pickle.dumps({"model": Bad()}, protocol=2)


@pytest.mark.parametrize(
    "served, message, requests",
    [
        ({"status": 404, "times": 99}, "the server answers 404 Not Found", 1),
        ({"status": 403, "times": 99}, "the server answers 403", 1),
        ({"status": 503, "times": 99}, "answers 503 Service Unavailable, after 5 attempts", 5),
        ({"body": b"<html>please log in</html>"}, "what came is no file of weights", 1),
        ({"body": b""}, "what came is no file of weights", 1),
        ({"body": hostile()}, "what came is no file of weights", 1),
        ({"status": 302, "times": 99, "location": "file:///etc/passwd"}, "is not allowed", 1),
        ({"status": 302, "times": 99, "location": "ftp://127.0.0.1/x"}, "is not followed", 1),
        ({"status": 302, "times": 99, "location": "/w.npz"}, "302|redirect", None),
    ],
)
def test_what_is_refused(server, target, served, message, requests, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = server.put("/w.npz", **{"body": BODY, **served})
    with pytest.raises(FetchError, match=message) as raised:
        fetch(url, target, "w", hint="ask its author")
    assert str(raised.value).startswith(f"w: could not be fetched from {url}: ")
    assert str(raised.value).endswith(". By hand: ask its author")
    assert "\n" not in str(raised.value)
    assert not target.exists() and not (tmp_path / "hacked").exists()
    assert requests is None or len(server.requests) == requests


def test_a_server_that_is_busy_for_a_while(server, target, no_pauses):
    fetch(server.put("/w.npz", BODY, status=503, times=2), target, "w")
    assert target.read_bytes() == BODY and len(no_pauses) == 2


def test_a_file_without_end(server, target, monkeypatch):
    monkeypatch.setattr(transfer, "MOST_BYTES", 5000)
    for path, length in (("/a", False), ("/b", True)):
        with pytest.raises(FetchError, match="more than the"):
            fetch(server.put(path, BODY, length=length), target, "w")


def test_a_full_disk_is_said_before_the_transfer(server, target, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: type("", (), {"free": 10}))
    with pytest.raises(FetchError, match="bytes to come, but the disk has room for 10"):
        fetch(server.put("/w.npz", BODY), target, "w")


def test_no_network(target):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/w.npz"
        with pytest.raises(FetchError, match="no connection .*, after 5 attempts. By hand: get it"):
            fetch(url, target, "w", hint="get it")


@pytest.mark.parametrize("variable", ["PPCLS_NEXTVIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(server, target, variable, monkeypatch):
    url = server.put("/w.npz", BODY)
    monkeypatch.setenv(variable, "1")
    forbidden = f"is not on this disk, and --offline or .*{variable}.* forbids fetching"
    with pytest.raises(FetchError, match=forbidden):
        fetch(url, target, "w")
    assert server.requests == []
    monkeypatch.setenv(variable, "0")
    fetch(url, target, "w")
    monkeypatch.setenv(variable, "1")
    assert fetch(url, target, "w") == target


def _fetch(url, path):
    fetch(url, Path(path), "w")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="forks")
def test_of_two_processes_one_fetches(server, target):
    url = server.put("/w.npz", weights_file(4_000_000))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fetch, args=(url, str(target))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert target.stat().st_size > 4_000_000 and len(server.requests) == 1


# What a name means.


def test_every_record_has_a_place():
    assert {record.source for record in zoo.WEIGHTS.values()} == set(zoo.READ_IN)
    for record in zoo.WEIGHTS.values():
        assert record.where.startswith("https://")
        assert (record.url is None) == record.where.startswith("https://drive.google.com/")
    fetched = [record for record in zoo.WEIGHTS.values() if record.url]
    assert len(fetched) > 30 and len({record.file for record in fetched}) == len(fetched)


@pytest.mark.parametrize(
    "pretrained, network, name",
    [
        (True, "NextViT_small", PADDLECLAS),
        (True, "NextViT_base_384", "nextvit_base.in1k_384.paddleclas"),
        ("in1k6m", "NextViT_large", "nextvit_large.in1k6m_224.paddleclas"),
        ("in1k6m_384", "NextViT_small", "nextvit_small.in1k6m_384.paddleclas"),
        ("in1k6m", "NextViT_small_384", "nextvit_small.in1k6m_384.paddleclas"),
        (True, "TransNeXt_tiny", "transnext_tiny.in1k_224.official"),
        (True, "TransNeXt_base_384", "transnext_base.in1k_384.official"),
        (True, "TransNeXt_micro_AAAA", "transnext_micro_AAAA.in1k_256.official"),
        ("nextvit_small.in1k_224.timm", "NextViT_small", "nextvit_small.in1k_224.timm"),
        ("nextvit_small.in1k_224.official", "NextViT_small", "nextvit_small.in1k_224.official"),
    ],
)
def test_names(pretrained, network, name):
    place = place_of(pretrained, network)
    assert (place.name, place.record) == (name, zoo.get(name)) and place.url == zoo.get(name).url
    assert place.path == Path(zoo.cache_folder()) / zoo.get(name).file
    assert str(place.path) in place.hint


def test_ssld_and_the_hub_and_addresses(monkeypatch):
    assert place_of(True, "NextViT_small", ssld=True).name == "nextvit_small.in1k6m_224.paddleclas"
    hub = place_of("hf:me/mine", "NextViT_small")
    assert hub.url == "https://huggingface.co/me/mine/resolve/main/model.safetensors"
    deep = place_of("hf:me/mine/sub/w.pth@v1/x", "NextViT_small")
    assert deep.url == "https://huggingface.co/me/mine/resolve/v1%2Fx/sub/w.pth"
    assert deep.path.name == "me--mine--v1--x--sub--w.pth" and deep.path != hub.path
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror/")
    assert place_of("hf:me/mine", "NextViT_small").url.startswith("http://mirror/me/mine/resolve")
    assert place_of("nextvit_small.in1k_224.timm", "").url.startswith("http://mirror/timm/")
    one, two = (place_of(f"https://a/{x}/w.pth?y=1", "NextViT_small") for x in "bc")
    assert one.path != two.path and one.path.name.endswith("-w.pth")


@pytest.mark.parametrize(
    "pretrained, network, message",
    [
        ("in22k", "NextViT_small", "'in22k': no such weights are published for NextViT_small"),
        (True, "NextViT_small_window_pool", "no such weights are published"),
        ("hf:nobody", "NextViT_small", "expected hf:OWNER/NAME"),
        ("hf:a/b/../../c", "NextViT_small", "expected hf:OWNER/NAME"),
        ("ftp://a/b", "NextViT_small", "expected an address with http or https"),
        ("nextvit_small.in1k_225.timm", "NextViT_small", "unknown weights .*closest"),
    ],
)
def test_names_that_mean_nothing(pretrained, network, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        place_of(pretrained, network)
    with pytest.raises(ConfigError, match=message):
        load_config(write_config(tmp_path, Arch={"name": network, "pretrained": pretrained}))


def test_weights_that_only_a_person_can_get(tmp_path):
    with pytest.raises(FetchError, match="a program cannot fetch it: get https://drive.google.com"):
        pretrained_source("nextvit_small.in1k_224.official", "NextViT_small")


def test_where_files_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("PPCLS_NEXTVIT_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo.sys, "platform", "linux")
    assert zoo.cache_folder() == str(tmp_path / "xdg" / "ppcls_nextvit" / "weights")
    file = zoo.get(PADDLECLAS).file
    with pytest.raises(FileNotFoundError, match=f"Run `nextvit weights get {PADDLECLAS}`"):
        zoo.file_of(PADDLECLAS)
    for folder in (zoo.cache_folder(), "weights"):
        Path(folder).mkdir(parents=True)
        Path(folder, file).touch()
        assert zoo.file_of(PADDLECLAS) == str(Path(folder, file))


# Used.


@pytest.fixture
def published(server, monkeypatch):
    """The server in place of PaddleClas's, with weights of a shallow network."""
    body = io.BytesIO()
    state = {key: value.numpy() for key, value in random_model().state_dict().items()}
    np.savez(body, **state)
    file = zoo.get(PADDLECLAS).file
    url = server.put(f"/{file}", body.getvalue())
    monkeypatch.setattr(places, "_mirrored", lambda given: url if given else None)
    return server


@pytest.mark.slow
def test_pretrained_everywhere(published, tmp_path, capsys, monkeypatch):
    shallow = {"depths": (1, 1, 5, 1), "num_classes": 10}
    expected = random_model()
    model = nv.create_model("NextViT_small", pretrained=True, **shallow)
    image = paddle.randn([1, 3, 32, 32])
    model.eval()
    assert np.array_equal(model(image).numpy(), expected(image).numpy())
    other = nv.create_model("NextViT_small", pretrained=True, num_classes=3, depths=(1, 1, 5, 1))
    assert other.proj_head[0].weight.shape == [1024, 3]
    loaded = nv.load("NextViT_small", pretrained=True, depths=(1, 1, 5, 1), device="cpu")
    assert len(loaded.names) == 10
    with pytest.raises(ConfigError, match="not both"):
        nv.load("NextViT_small", pretrained=True, weights="w.pth")
    with pytest.raises(ConfigError, match="pretrained is for the name of a network"):
        nv.load("somewhere", pretrained=True)
    # in a YAML
    config = write_config(tmp_path, Arch={"pretrained": True}, train=8, test=8)
    folder = str(tmp_path / "photos")
    clothes(Path(folder), 1)
    assert main(["infer", "-c", str(config), "--images", folder]) == 0
    assert len(published.requests) == 1
    capsys.readouterr()
    assert main(["weights", "verify"]) == 0
    assert f"{PADDLECLAS}: " in (said := capsys.readouterr().out) and "as it was fetched" in said
    path = Path(zoo.file_of(PADDLECLAS))
    data = bytearray(path.read_bytes())
    data[-3000] ^= 1
    path.write_bytes(data)
    assert main(["weights", "verify", PADDLECLAS]) == 1
    assert "WRONG" in capsys.readouterr().out
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setenv("PPCLS_NEXTVIT_OFFLINE", "0")
        assert main(["infer", "-c", str(config), "--offline", "--images", folder]) == 1
    assert "is not on this disk" in capsys.readouterr().err and len(published.requests) == 1


def test_the_command(server, capsys, monkeypatch):
    assert main(["weights", "list", "*small*224*"]) == 0
    out = capsys.readouterr().out
    assert "nextvit_small.in1k_224.timm" in out and "addresses of timm: hf_hub_id of" in out
    assert main(["weights", "list", "resnet*"]) == 1
    assert main(["weights", "get", "nextvit_smal"]) == 1
    assert "unknown weights 'nextvit_smal'; closest" in capsys.readouterr().err
    url = server.put("/mine.npz", BODY)
    assert main(["weights", "get", url]) == 0
    assert Path(capsys.readouterr().out.strip()).read_bytes() == BODY
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.hub("/me/mine/resolve/main/model.safetensors", BODY)
    assert main(["weights", "get", "hf:me/mine"]) == 0
    assert Path(capsys.readouterr().out.strip()).read_bytes() == BODY
    assert main(["weights", "verify"]) == 0 and capsys.readouterr().out == ""
