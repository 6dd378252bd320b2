"""Classify images with an engine that build.py made: python infer.py --model DIRECTORY --images
FILE_OR_DIRECTORY [--labels LIST]

Copy this file, build.py and those of ../python (*.py) into one folder, and the directory.
Needs the TensorRT that built the engine, cuda-python, numpy and Pillow.
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))
try:
    import numpy as np
    from build import ENGINE, ONNX, RECORD, import_tensorrt
    from classify import common_arguments, predict
    from decoding import one_line
    from description import read_description
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: {error}. infer.py needs build.py and all of deploy/python/*.py beside it, numpy "
        f"and Pillow"
    ) from None


class Cuda:
    """The few calls of CUDA's runtime that a run needs, each checked. ValueError with CUDA's own
    name for what went wrong.
    """

    def __init__(self):
        try:
            from cuda.bindings import runtime
        except ImportError:
            try:
                from cuda import cudart as runtime  # cuda-python before 12.6
            except ImportError as error:
                raise ValueError(
                    f"cuda-python cannot be imported ({error}): pip install cuda-python"
                ) from None
        self.runtime = runtime
        self.kinds = runtime.cudaMemcpyKind

    def __call__(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self.runtime, name)(*arguments)
        if int(error):
            raise ValueError(f"{name}: {error}")
        return values[0] if values else None


class Engine:
    """`engine(batch)`: float32 [B, 3, H, W] -> the model's output, float32 [B, classes].

    A batch beyond the engine's range runs in parts, one below it filled up with zeros. ValueError
    for another image size.
    """

    def __init__(self, path: Path, trt: ModuleType, cuda: Cuda):
        self.cuda = cuda
        logger = trt.Logger(trt.Logger.WARNING)
        self.runtime = trt.Runtime(logger)  # must live as long as its engine
        self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise ValueError(
                f"{path}: this TensorRT ({trt.__version__}) or GPU cannot run it; build it on "
                f"this machine"
            )
        self.context = self.engine.create_execution_context()
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        self.input, self.output = (
            next(name for name in names if self.engine.get_tensor_mode(name) == mode)
            for mode in (trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT)
        )
        low, _, high = self.engine.get_tensor_profile_shape(self.input, 0)
        self.low = tuple(low)
        self.high = tuple(high)
        self.stream = cuda("cudaStreamCreate")
        self.buffers: dict = {}  # {tensor's name: (address, bytes)}

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        size = batch.shape[1:]
        if any(
            not low <= given <= high for low, given, high in zip(self.low[1:], size, self.high[1:])
        ):
            raise ValueError(
                f"images of {list(size)}: the engine was built for {list(self.low[1:])} to "
                f"{list(self.high[1:])}; "
                "build it with other --height and --width"
            )
        most = self.high[0]
        parts = [self._run(batch[start : start + most]) for start in range(0, len(batch), most)]
        return np.concatenate(parts)

    def _run(self, batch):
        count = len(batch)
        missing = max(0, self.low[0] - count)
        batch = np.pad(batch, [(0, missing), (0, 0), (0, 0), (0, 0)])
        batch = np.ascontiguousarray(batch, np.float32)
        self.context.set_input_shape(self.input, batch.shape)
        output = np.empty(tuple(self.context.get_tensor_shape(self.output)), np.float32)
        for name, array in ((self.input, batch), (self.output, output)):
            self.context.set_tensor_address(name, self._buffer(name, array.nbytes))
        self.cuda(
            "cudaMemcpyAsync",
            self.buffers[self.input][0],
            batch.ctypes.data,
            batch.nbytes,
            self.cuda.kinds.cudaMemcpyHostToDevice,
            self.stream,
        )
        if not self.context.execute_async_v3(self.stream):
            raise ValueError("TensorRT could not run the engine; its own messages are above")
        self.cuda(
            "cudaMemcpyAsync",
            output.ctypes.data,
            self.buffers[self.output][0],
            output.nbytes,
            self.cuda.kinds.cudaMemcpyDeviceToHost,
            self.stream,
        )
        self.cuda("cudaStreamSynchronize", self.stream)
        return output[:count]

    def _buffer(self, name, size):
        """The address of GPU memory of `size` bytes or more, kept for the next run."""
        address, held = self.buffers.get(name, (None, 0))
        if held < size:
            if address is not None:
                self.cuda("cudaFree", address)
            address = self.cuda("cudaMalloc", size)
            self.buffers[name] = address, size
        return address


def find_engine(folder: str | Path, description: dict) -> tuple[Path, dict]:
    """(path, record) of the engine in `folder`. FileNotFoundError without one, ValueError if it was
    built from another export.
    """
    folder = Path(folder)
    for name in (ENGINE, RECORD):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; run build.py --model {folder}")
    other = f"{folder}: the engine was built from another export; run build.py again"
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["onnx_sha256"] != description["Files"].get(ONNX, {}).get("sha256"):
            raise ValueError(other)
        return folder / ENGINE, {
            "rtx": bool(record["rtx"]),
            "precision": str(record["precision"]),
        }
    except (LookupError, TypeError, RecursionError, json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(f"{folder / RECORD}: not what build.py writes; build again") from None


def read_labels(path: str | Path) -> dict[str, int]:
    """{file name: class number} of a list with lines `path label`. ValueError names file and
    line.
    """
    labels = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            name, _, label = line.strip().rpartition(" ")
            if not name or not label.isdecimal():
                raise ValueError(f"{path}:{number}: expected 'path label', got {line!r}")
            labels[Path(name).name] = int(label)
    return labels


def top1(results: list[dict], labels: dict[str, int]) -> float:
    """Share of `results` whose best class is the labelled one. ValueError if an image has no
    label.
    """
    best = {
        result["file_name"]: result["class_ids"][0] for result in results if "error" not in result
    }
    missing = [path for path in best if Path(path).name not in labels]
    if missing or not best:
        first = f", first {missing[0]}" if missing else ""
        raise ValueError(
            f"--labels: {len(missing)} of {len(best)} images are not in the list{first}"
        )
    return sum(found == labels[Path(path).name] for path, found in best.items()) / len(best)


def main(argv: list[str] | None = None) -> int:
    parser = common_arguments(__doc__)
    parser.add_argument(
        "--labels",
        metavar="LIST",
        help="lines `path label`: print top-1, as int8's cost; needs --json",
    )
    args = parser.parse_args(argv)
    if args.labels and not args.json:
        parser.error("--labels needs --json, from which it counts")
    try:
        description = read_description(args.model)
        path, record = find_engine(args.model, description)
        labels = read_labels(args.labels) if args.labels else None
        status = predict(args, description, Engine(path, import_tensorrt(record["rtx"]), Cuda()))
        if labels is not None:
            results = json.loads(Path(args.json).read_text(encoding="utf-8"))
            print(
                f"top-1 of the {record['precision']} engine: {100 * top1(results, labels):.2f} % "
                f"of {len(results)} images"
            )
        return status
    except (OSError, ValueError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
