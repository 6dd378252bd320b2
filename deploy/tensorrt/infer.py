"""Classify images with an engine that build.py made: python infer.py --model DIRECTORY --images
FILE_OR_DIRECTORY [--labels LIST]

Copy this file, ../onnx/predict.py (preprocessing, printing) and the directory. Needs the TensorRT
that built the engine, cuda-python, numpy and Pillow.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

ENGINE, RECORD, ONNX = "inference.engine", "inference.engine.json", "inference.onnx"


def neighbour(name, *folders):
    """The module in the first of `folders` that has the file `name`. FileNotFoundError if none
    has.
    """
    for folder in folders:
        if (folder / name).is_file():
            spec = importlib.util.spec_from_file_location(
                f"{folder.name}_{Path(name).stem}", folder / name
            )
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise FileNotFoundError(f"{folders[0] / name}: no such file; copy {name} there")


HERE = Path(__file__).resolve().parent
common = neighbour("predict.py", HERE, HERE.parent / "onnx")


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
        self.runtime, self.kinds = runtime, runtime.cudaMemcpyKind

    def __call__(self, name, *arguments):
        error, *values = getattr(self.runtime, name)(*arguments)
        if int(error):
            raise ValueError(f"{name}: {error}")
        return values[0] if values else None


class Engine:
    """`engine(batch)`: float32 [B, 3, H, W] -> the model's output, float32 [B, classes].

    A batch beyond the engine's range runs in parts, one below it filled up with zeros. ValueError
    for another image size.
    """

    def __init__(self, path, trt, cuda):
        self.trt, self.cuda, logger = trt, cuda, trt.Logger(trt.Logger.WARNING)
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
        low, _, high = (
            tuple(shape) for shape in self.engine.get_tensor_profile_shape(self.input, 0)
        )
        self.low, self.high = low, high
        self.stream, self.buffers = cuda("cudaStreamCreate"), {}

    def __call__(self, batch):
        size = batch.shape[1:]
        if any(
            not low <= given <= high for low, given, high in zip(self.low[1:], size, self.high[1:])
        ):
            raise ValueError(
                f"images of {list(size)}: the engine was built for {list(self.low[1:])} to "
                f"{list(self.high[1:])}; "
                "build it with other --height and --width"
            )
        return np.concatenate(
            [
                self._run(batch[start : start + self.high[0]])
                for start in range(0, len(batch), self.high[0])
            ]
        )

    def _run(self, batch):
        count = len(batch)
        batch = np.ascontiguousarray(
            np.pad(batch, [(0, max(0, self.low[0] - count)), (0, 0), (0, 0), (0, 0)]), np.float32
        )
        self.context.set_input_shape(self.input, batch.shape)
        output = np.empty(tuple(self.context.get_tensor_shape(self.output)), np.float32)
        for name, array in ((self.input, batch), (self.output, output)):
            self.context.set_tensor_address(name, self._buffer(name, array.nbytes))
        kinds, source = self.cuda.kinds, batch.ctypes.data
        self.cuda(
            "cudaMemcpyAsync",
            self.buffers[self.input][0],
            source,
            batch.nbytes,
            kinds.cudaMemcpyHostToDevice,
            self.stream,
        )
        if not self.context.execute_async_v3(self.stream):
            raise ValueError("TensorRT could not run the engine; its own messages are above")
        self.cuda(
            "cudaMemcpyAsync",
            output.ctypes.data,
            self.buffers[self.output][0],
            output.nbytes,
            kinds.cudaMemcpyDeviceToHost,
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


def find_engine(folder, description):
    """(path, record) of the engine in `folder`. FileNotFoundError without one, ValueError if it was
    built from another export.
    """
    for name in (ENGINE, RECORD):
        if not (Path(folder) / name).is_file():
            raise FileNotFoundError(
                f"{Path(folder) / name}: no such file; run build.py --model {folder}"
            )
    record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
    if record["onnx_sha256"] != description["Files"][ONNX]["sha256"]:
        raise ValueError(f"{folder}: the engine was built from another export; run build.py again")
    return Path(folder) / ENGINE, record


def read_labels(path):
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


def top1(results, labels):
    """Share of `results` whose best class is the labelled one. ValueError if an image has no
    label.
    """
    results = [result for result in results if "error" not in result]
    missing = [
        result["file_name"] for result in results if Path(result["file_name"]).name not in labels
    ]
    if missing or not results:
        raise ValueError(
            f"--labels: {len(missing)} of {len(results)} images are not in the "
            f"list{', first ' * bool(missing)}"
            f"{''.join(missing[:1])}"
        )
    return sum(
        result["class_ids"][0] == labels[Path(result["file_name"]).name] for result in results
    ) / len(results)


def main(argv=None) -> int:
    parser = common.common_arguments()
    parser.description = __doc__.partition("\n")[0]
    parser.add_argument(
        "--labels",
        metavar="LIST",
        help="lines `path label`: print top-1, as int8's cost; needs --json",
    )
    args = parser.parse_args(argv)
    if args.labels and not args.json:
        parser.error("--labels needs --json, from which it counts")
    try:
        description = common.read_hashed(args.model, json.loads)
        path, record = find_engine(args.model, description)
        labels = read_labels(args.labels) if args.labels else None
        build = neighbour("build.py", HERE)
        status = common.predict(
            args, description, Engine(path, build.import_tensorrt(record["rtx"]), Cuda())
        )
        if labels is not None:
            results = json.loads(Path(args.json).read_text(encoding="utf-8"))
            print(
                f"top-1 of the {record['precision']} engine: {100 * top1(results, labels):.2f} % "
                f"of {len(results)} images"
            )
        return status
    except (OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
