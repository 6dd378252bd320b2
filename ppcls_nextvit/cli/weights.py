"""List, fetch and check the published weights.

    nextvit weights list 'nextvit_small*'
    nextvit weights get nextvit_small.in1k_224.paddleclas
    nextvit weights verify

Files go into the folder that PPCLS_NEXTVIT_WEIGHTS names, else into the user's cache. `get` takes
names of the list, hf:OWNER/NAME and addresses too.
"""

import argparse
from pathlib import Path
from typing import List, Optional

from .common import add_offline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|get|verify")
    listing = actions.add_parser("list", help="names, where they are published, what is here")
    listing.add_argument("pattern", nargs="?", default="*", help="such as '*small*384*'")
    get = actions.add_parser("get", help="fetch some, if they are not here")
    get.add_argument(
        "names", nargs="+", metavar="NAME", help="of the list; hf:OWNER/NAME; an address"
    )
    add_offline(get)
    verify = actions.add_parser("verify", help="read files that are here, and compare their hashes")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: all that are here")


def run(args: argparse.Namespace) -> int:
    if args.action == "list":
        return _list(args.pattern)
    return _get(args.names) if args.action == "get" else _verify(args.names)


def _list(pattern: str) -> int:
    from .. import zoo

    names = zoo.list_weights(pattern)
    if not names:
        raise ValueError(f"no weights are called {pattern!r}; leave it out to see all")
    width = max(map(len, names))
    for name in names:
        path = _here(name)
        place = f"here: {path}" if path else zoo.get(name).where
        print(f"{name:{width}}  {place}")
    for source in dict.fromkeys(zoo.get(name).source for name in names):
        print(f"addresses of {source}: {zoo.READ_IN.get(source, 'its own')}")
    return 0


def _here(name: str) -> Optional[Path]:
    """The file of the weights `name`; None if it is not on this disk."""
    from .. import zoo

    try:
        return Path(zoo.file_of(name))
    except FileNotFoundError:
        return None


def _get(names: List[str]) -> int:
    from .. import zoo
    from ..hub import pretrained_source
    from ..weights.load import resolve

    for name in names:
        if not zoo.is_name(name) and not name.startswith("hf:") and "://" not in name:
            zoo.get(name)  # which names the nearest
        network = zoo.get(name).variant if zoo.is_name(name) else ""
        print(resolve(pretrained_source(name, network)))
    return 0


def _verify(names: List[str]) -> int:
    from .. import zoo

    wrong = 0
    for name in names or zoo.list_weights():
        path = Path(zoo.file_of(name)) if names else _here(name)
        if path is not None:
            said = _checked(path)
            wrong += said.startswith("WRONG")
            print(f"{name}: {path}: {said}", flush=True)
    return int(wrong > 0)


def _checked(path: Path) -> str:
    """What is known of a file: that it can be read, and that it is what was fetched."""
    from ..hub.transfer import recorded
    from ..weights import WeightFileError, read_file
    from ..weights.digest import sha256_of

    try:
        read_file(path)
    except WeightFileError as error:
        return f"WRONG: {error}"
    digest, record = sha256_of(path), recorded(path)
    if record is None:
        return f"can be read; SHA-256 {digest}, which nothing is known of"
    if record.sha256 != digest:
        return f"WRONG: SHA-256 {digest}, when it was fetched {record.sha256}"
    return f"as it was fetched, SHA-256 {digest}"
