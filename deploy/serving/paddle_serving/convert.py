"""Paddle Serving's folders from a Paddle Inference model: python convert.py --model DIRECTORY
--server DIRECTORY --client DIRECTORY

DIRECTORY is what `tools/export_model.py --to paddle --format pdmodel` wrote. The program and
weights are copied as they are; what is written are the descriptions of input and output that Paddle
Serving 0.9 reads, as text and in binary. Needs paddle, to ask the program for the name of its
output. Paddle Serving's own converter imports paddle.fluid, which Paddle has had no more since 2.5.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
try:
    from fields import check_fields
except ModuleNotFoundError as error:
    raise SystemExit(f"error: {error}. convert.py needs the folder above it, too") from None

FLOAT32 = 1  # Paddle Serving's number for it


def varint(number: int) -> bytes:
    """Protocol Buffers' encoding of a number of 0 or more."""
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def variable(kind: str, name: str, alias: str, shape: list[int]) -> tuple[str, bytes]:
    """(text, binary) of a message FeedVar or FetchVar; kind: feed or fetch. shape: without the
    batch.
    """
    shapes = "".join(f"  shape: {size}\n" for size in shape)
    text = (
        f'{kind}_var {{\n  name: "{name}"\n  alias_name: "{alias}"\n  is_lod_tensor: false\n  '
        f"{kind}_type: {FLOAT32}\n{shapes}}}\n"
    )
    strings = b"".join(
        bytes([field << 3 | 2]) + varint(len(value.encode())) + value.encode()
        for field, value in ((1, name), (2, alias))
    )
    numbers = b"".join(
        bytes([field << 3]) + varint(value)
        for field, value in ((3, 0), (4, FLOAT32), *((5, size) for size in shape))
    )
    body = strings + numbers
    return text, bytes([(1 if kind == "feed" else 2) << 3 | 2]) + varint(len(body)) + body


def output_name(model: Path) -> str:
    """The name that the program has for its output."""
    from paddle import inference

    config = inference.Config(str(model / "inference.pdmodel"), str(model / "inference.pdiparams"))
    config.disable_glog_info()
    return inference.create_predictor(config).get_output_names()[0]


def convert(model: Path, server: Path, client: Path) -> None:
    """Fill the folders `server` and `client`. ValueError for an export of another kind."""
    try:
        description = json.loads((model / "export.json").read_text(encoding="utf-8"))
        check_fields(description)
        source = description["Model"]["input"]["name"]
        height, width = description["Model"]["input"]["image_size"] or (None, None)
        if height is None:  # of an export for any size, which this is not for
            raise ValueError("Model.input.image_size is missing")
        classes = description["Model"]["class_num"]
        output = description["Export"]["outputs"][0]
    except (ValueError, LookupError, RecursionError) as error:
        raise ValueError(
            f"{model}: export.json is no description of an exported classifier: {error}"
        ) from None
    if "inference.pdmodel" not in description["Files"]:
        raise ValueError(
            f"{model}: expected a classifier exported with --to paddle --format pdmodel"
        )
    feed = variable("feed", source, source, [3, height, width])
    fetch = variable("fetch", output_name(model), output, [classes])
    for folder, name in ((server, "serving_server_conf"), (client, "serving_client_conf")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.prototxt").write_text(feed[0] + fetch[0] + "\n")
        (folder / f"{name}.stream.prototxt").write_bytes(feed[1] + fetch[1])
    for name in ("inference.pdmodel", "inference.pdiparams"):
        shutil.copy(model / name, server)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, type=Path, metavar="DIR")
    parser.add_argument("--server", type=Path, metavar="DIR", default=Path("serving_server"))
    parser.add_argument("--client", type=Path, metavar="DIR", default=Path("serving_client"))
    args = parser.parse_args(argv)
    try:
        convert(args.model, args.server, args.client)
    except (OSError, ValueError, ImportError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
