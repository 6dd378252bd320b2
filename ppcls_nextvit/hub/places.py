"""What a user calls pretrained weights, as a place: True, a name of the zoo or its middle part, a
repository on the Hugging Face hub, an address, a file.
"""

import hashlib
import os
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from .. import zoo
from ..models.registry import MODELS
from ..schema import ConfigError, nearest, shown
from .transfer import FetchError, fetch

__all__ = ["Place", "place_of", "pretrained_source"]

HUB_VARIABLE = "HF_ENDPOINT"  # as huggingface_hub has it, for mirrors
HUB = "https://huggingface.co"
HUB_FILE = "model.safetensors"
HUB_NAME = re.compile(r"hf:([\w.-]+)/([\w.-]+)(?:/([\w./-]+?))?(?:@([\w./-]+))?")
SSLD = "in1k6m"
LONGEST_NAME = 150  # bytes of a file's in the cache; endings are yet to come


@dataclass(frozen=True)
class Place:
    """Where weights are. name: for messages. path: on this disk, where they are or will be. url: to
    fetch them from; None where no program can, and `hint` says how a person does. record: the
    zoo's, if they are in it.
    """

    name: str
    path: Path
    url: Optional[str] = None
    hint: str = ""
    record: Optional[zoo.Weights] = None


def place_of(pretrained: Union[bool, str], network: str, ssld: bool = False) -> Place:
    """The Place of `pretrained` weights for the `network`, an entry of MODELS. Nothing is fetched.

    pretrained: True, the weights that are published for it (with `ssld` those that saw 6 million
    images first); a name of the zoo; what such a name has in the middle, such as 'in1k6m_384';
    hf:OWNER/NAME, hf:OWNER/NAME/FILE, either with @REVISION; an address; or a file. ConfigError for
    anything else.
    """
    if pretrained is True:
        return _of_record(_default(network, SSLD if ssld else None))
    text = str(pretrained)
    if text.startswith("hf:"):
        return _on_hub(text)
    if "://" in text:
        return _at_address(text)
    for path in (text, f"{text}.pdparams"):
        if os.path.exists(path):
            return Place(text, Path(path))
    if zoo.is_name(text):
        return _of_record(_known(text))
    if re.fullmatch(r"[a-z0-9]+k\w*", text):
        return _of_record(_default(network, text))
    return Place(text, Path(text))


def pretrained_source(pretrained: Union[bool, str], network: str, ssld: bool = False) -> str:
    """What `load_weights` takes for the `pretrained` weights of the `network` (see place_of): a
    name of the zoo, or a path. They are fetched into the cache if they are not on this disk;
    FetchError, which says how to get them by hand, where that cannot be.
    """
    place = place_of(pretrained, network, ssld)
    if place.url is not None:
        fetch(place.url, place.path, place.name, hint=place.hint)
    elif place.hint and not place.path.is_file():
        raise FetchError(f"{place.name}: a program cannot fetch it: {place.hint}")
    return place.record.name if place.record else str(place.path)


def _known(name: str) -> zoo.Weights:
    try:
        return zoo.get(name)
    except ValueError as error:
        raise ConfigError(f"pretrained: {error}") from None


def _default(network: str, tag: Optional[str]) -> zoo.Weights:
    """The first record of the network's that a program can fetch, else the first. tag: what its
    name has in the middle, or begins with there; None: ImageNet-1K.
    """
    written = re.fullmatch(r"(.+?)(?:_(\d{3}))?", network)
    model, pixels = (written[1], written[2]) if written else (network, None)
    wanted = tag or "in1k"
    of_network = [
        record
        for record in zoo.WEIGHTS.values()
        if record.model in (model, network) and record.task == MODELS.get(network).task
    ]
    tags = {record.name.split(".")[1]: None for record in of_network}
    named = [each for each in tags if each == wanted or each.rpartition("_")[0] == wanted]
    if pixels and wanted not in tags:
        named = [each for each in named if each.endswith(f"_{pixels}")]
    found = [record for record in of_network if named and record.name.split(".")[1] == named[0]]
    if not found:
        raise ConfigError(
            f"pretrained: {shown(tag or True)}: no such weights are published for {network}; "
            + (
                f"there are: {', '.join(tags)}{nearest(wanted, list(tags))}"
                if tags
                else "give the path of a file, hf:OWNER/NAME, or a name of list_weights()"
            )
        )
    return next((record for record in found if record.url), found[0])


def _of_record(record: zoo.Weights) -> Place:
    try:
        return Place(record.name, Path(zoo.file_of(record.name)), record=record)
    except FileNotFoundError:
        path = Path(zoo.cache_folder()) / record.file
        hint = f"get {record.where} and save it as {path}"
        return Place(record.name, path, _mirrored(record.url), hint, record)


def _mirrored(url: Optional[str]) -> Optional[str]:
    """`url`, if it is the hub's at the endpoint that the environment names."""
    endpoint = os.environ.get(HUB_VARIABLE)
    if url is None or not endpoint or not url.startswith(f"{HUB}/"):
        return url
    return endpoint.rstrip("/") + url[len(HUB) :]


def _on_hub(text: str) -> Place:
    match = HUB_NAME.fullmatch(text)
    if not match or ".." in text:
        raise ConfigError(
            f"pretrained: {shown(text)}: expected hf:OWNER/NAME, or hf:OWNER/NAME/FILE, with "
            f"@REVISION if need be"
        )
    owner, name, file, revision = match.groups()
    file, revision = file or HUB_FILE, revision or "main"
    url = f"{HUB}/{owner}/{name}/resolve/{urllib.parse.quote(revision, safe='')}/{file}"
    stored = "--".join([owner, name, revision, file]).replace("/", "--")
    if len(stored.encode()) > LONGEST_NAME:
        stored = _short(text, stored)
    path = Path(zoo.cache_folder()) / "hf" / stored
    return Place(text, path, _mirrored(url), f"get {url} and save it as {path}")


def _at_address(text: str) -> Place:
    try:
        parts = urllib.parse.urlsplit(text)
        named = bool(parts.hostname) and parts.port != 0 and text.isprintable()
    except ValueError:  # of what stands for the host or its port
        named = False
    if not named or parts.scheme not in ("http", "https"):
        raise ConfigError(f"pretrained: {shown(text)}: expected an address with http or https")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "pretrained: an address with a user's name or password in it: such are not used; get "
            "the file and give its path"
        )
    path = Path(zoo.cache_folder()) / "url" / _short(text, parts.path.rpartition("/")[2])
    return Place(text, path, text, f"get {text} and give its path")


def _short(text: str, name: str) -> str:
    """The name of a file for what a user calls `text`: a digest of it and the end of `name`."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{digest}-{re.sub('[^A-Za-z0-9_.-]', '_', name)[-100:] or 'weights'}"
