"""The txt files of the chains: `===section===` lines and `key:value` lines, read by key.

The Paddle suites read theirs by line number; their files can be read here, too. What is unknown or
missing is a ParamsError with file and line.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ParamsError", "Section", "command_options", "read_params"]

HEADER = re.compile(r"=+\s*(.*?)\s*=+")
NO_SECTION = ""  # of Lite's files, which have none
NONE = ("", "null")


class ParamsError(ValueError):
    """A txt file that cannot be meant. The message says file, line, what came and what was
    expected.
    """


# Every key that a chain knows, on lines as scripts/make_tipc_configs.py writes them: the suites'
# keys on the suites' lines, but with our programs' options. Keys that only a suite's file has are
# in SUITES.
TRAIN = """\
model_name:NextViT_small_224
python:python
gpu_list:-1|0|0,1
-o Global.device:cpu|gpu|gpu
-o Global.auto_cast:null
-o Global.epochs:lite_train_lite_infer=2|whole_train_whole_infer=300
-o Global.output_dir:./output/
-o DataLoader.Train.sampler.batch_size:8
-o Global.pretrained_model:null
train_model_name:latest
train_infer_img_dir:./test_tipc/data/images
null:null
##
trainer:norm_train
norm_train:tools/train.py -c configs/NextViT_small_224.yaml
amp_train:tools/train.py -c configs/NextViT_small_224.yaml
pact_train:null
fpgm_train:null
distill_train:null
to_static_train:-o Global.to_static=True
null:null
##
"""
BENCHMARK = """\
batch_size:8
fp_items:fp32|amp
epoch:6
model_type:norm_train|to_static_train
num_workers:0
--profiler_options:null
flags:null
"""
SECTIONS = {
    "train_params": TRAIN,
    "eval_params": "eval:tools/eval.py -c configs/NextViT_small_224.yaml\nnull:null\n##\n",
    "infer_params": """\
-o Global.save_inference_dir:./inference
-o Global.pretrained_model:
norm_export:tools/export_model.py -c configs/NextViT_small_224.yaml
quant_export:null
fpgm_export:null
distill_export:null
kl_quant:tools/quantize.py -c configs/NextViT_small_224.yaml --to paddle
export2:null
pretrained_model_url:null
infer_model:./test_tipc/models/NextViT_small_224
infer_export:True
infer_quant:False
inference:deploy/python/predict.py
--device:cpu|gpu
--onednn:True|False
--threads:1|2
--batch-size:1|8
--tensorrt:False
--precision:fp32
--model:null
--images:./test_tipc/data/images
--json:null
--repeat:null
null:null
null:null
""",
    "train_benchmark_params": BENCHMARK,
    "infer_benchmark_params": "random_infer_input:[{float32,[3,224,224]}]\n",
    "cpp_infer_params": """\
model_name:NextViT_small_224
cpp_infer_type:cls
cls_inference_model_dir:./test_tipc/models/NextViT_small_224
cls_inference_url:null
infer_quant:False
inference_cmd:./deploy/cpp/build/classify
use_gpu:False|True
enable_mkldnn:True|False
cpu_threads:1|2
batch_size:1|8
use_tensorrt:False
precision:fp32
image_dir:./test_tipc/data/images
benchmark:False
""",
    "serving_params": """\
model_name:NextViT_small_224
python:python
inference_model_url:null
inference_model_dir:./test_tipc/models/NextViT_small_224
serving_dir:./deploy/serving
web_service:server.py
--device:cpu|gpu
--threads:1
--batch-size:1|8
pipeline:test_tipc/chains/client.py
--images:./test_tipc/data/images
""",
    "paddle2onnx_params": """\
model_name:NextViT_small_224
python:python
2onnx:tools/export_model.py -c configs/NextViT_small_224.yaml --to onnx
-o Global.pretrained_model:./test_tipc/models/NextViT_small_224.pdparams
-o Global.save_inference_dir:./test_tipc/models/NextViT_small_224_onnx
inference_model_url:null
inference:deploy/onnx/predict.py
--engine:onnxruntime
--threads:1|2
--batch-size:1|8
--images:./test_tipc/data/images
""",
    NO_SECTION: """\
runtime_device:x86|arm_cpu
clas_model_file:NextViT_small_224
2lite:tools/export_model.py -c configs/NextViT_small_224.yaml
-o Global.pretrained_model:./test_tipc/models/NextViT_small_224.pdparams
inference_cmd:./deploy/lite/build/image_classification
image_dir:./test_tipc/data/images
--num_threads_list:1|2
--batch_size_list:1|8
--precision_list:FP32|INT8
""",
}
# the suites' sections of dy2static
SECTIONS |= {
    "base_train": TRAIN,
    "amp_train": TRAIN,
    # their train_benchmark_params, out of use
    "disable_train_benchmark": BENCHMARK,
}
SUITES = {
    "train_params": ("-o DataLoader.Train.sampler.first_bs",),
    "infer_params": (
        "inference_dir",
        "inference_model_url",
        "-o Global.use_gpu",
        "-o Global.enable_mkldnn",
        "-o Global.cpu_num_threads",
        "-o Global.batch_size",
        "-o Global.use_tensorrt",
        "-o Global.use_fp16",
        "-o Global.inference_model_dir",
        "-o Global.rec_inference_model_dir",
        "-o Global.infer_imgs",
        "-o Global.save_log_path",
        "-o Global.benchmark",
    ),
    "cpp_infer_params": (
        "det_inference_model_dir",
        "det_inference_url",
        "feature_inference_model_dir",
        "data_dir",
        "transform_index_cmd",
        "generate_yaml_cmd",
    ),
    "serving_params": (
        "cls_inference_model_url",
        "det_inference_model_url",
        "trans_model",
        "--dirname",
        "--model_filename",
        "--params_filename",
        "--serving_server",
        "--serving_client",
        "--use_gpu",
        "pipline",
    ),
    "paddle2onnx_params": (
        "--model_dir",
        "--model_filename",
        "--params_filename",
        "--save_file",
        "--opset_version",
        "--enable_onnx_checker",
        "Global.use_onnx",
        "Global.inference_model_dir",
        "Global.rec_inference_model_dir",
        "Global.use_gpu",
        "-c",
    ),
    NO_SECTION: ("lite_arm_work_path", "lite_arm_so_path"),
}


def key_value(line):
    """(key, value) of a line, split at its first colon; value is None for null and nothing."""
    key, _, value = line.partition(":")
    return key.strip(), None if value.strip() in NONE else value.strip()


def known_keys(section):
    """{key: its line as an example, None for keys of the suites' files alone}."""
    lines = {key_value(line)[0]: line for line in SECTIONS[section].splitlines() if ":" in line}
    return {
        key: line
        for key, line in {**dict.fromkeys(SUITES.get(section, ())), **lines}.items()
        if key != "null"
    }


def nearest(name, options):
    """' Did you mean ...?', if there is a close one."""
    close = difflib.get_close_matches(name, list(options), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Section:
    """The lines of one section. entries: {key: [(value, line number)]}; a key that is asked for
    must be there once.
    """

    path: Path
    name: str
    entries: dict

    @property
    def place(self):
        return f"{self.path}: section {self.name}" if self.name else f"{self.path}"

    def key(self, *keys):
        """The one of several names of a key that the file has. ParamsError if it has none of them,
        or one twice.
        """
        found = next((key for key in keys if key in self.entries), None)
        if found is None:
            raise ParamsError(
                f"{self.place}: no line with the key {keys[0]!r}; write one such as "
                f"{known_keys(self.name)[keys[0]]!r}"
            )
        if len(self.entries[found]) > 1:
            lines = " and ".join(str(line) for _, line in self.entries[found])
            raise ParamsError(f"{self.path}, lines {lines}: {found} more than once; write it once")
        return found

    def optional(self, *keys):
        """The value of `keys` (see `key`); None for null. ParamsError for a missing line."""
        return self.entries[self.key(*keys)][0][0]

    def text(self, *keys):
        """The value of `keys`. ParamsError for a missing line, or one without a value."""
        value = self.optional(*keys)
        if value is None:
            raise self.wrong(keys, "a value", known_keys(self.name)[keys[0]])
        return value

    def list(self, *keys, of=None):
        """The values of `a|b|c`, each of which must be in `of`, if given; [None] for null."""
        value = self.optional(*keys)
        values = (
            [None]
            if value is None
            else [None if part.strip() in NONE else part.strip() for part in value.split("|")]
        )
        for part in values:
            if of is not None and part not in of:
                raise self.wrong(
                    keys, " or ".join("null" if option is None else option for option in of)
                )
        return values

    def flags(self, *keys):
        """The values of `True|False` as bools; also the suites' misspelt Fasle."""
        return [value == "True" for value in self.list(*keys, of=("True", "False", "Fasle"))]

    def numbers(self, *keys, or_none=False):
        """The values of `1|8` as ints; with `or_none`, [None] for null."""
        values = self.list(*keys)
        if or_none and values == [None]:
            return values
        for value in values:
            if value is None or not value.isdecimal() or int(value) < 1:
                raise self.wrong(keys, "whole numbers of 1 or more, such as 1|8")
        return [int(value) for value in values]

    def of_mode(self, mode, *keys):
        """The value for `mode` of `mode=value|mode=value`; a mode that is not named takes that of
        one with the same training.
        """
        values = dict(part.strip().partition("=")[::2] for part in self.text(*keys).split("|"))
        # lite_train of lite_train_whole_infer
        training = mode.partition("_infer")[0].rsplit("_", 1)[0]
        for name, value in [(mode, values.get(mode, "")), *values.items()]:
            if value and (name == mode or name.startswith(training)):
                return value
        raise self.wrong(keys, f"a value for {mode}", known_keys(self.name)[keys[0]])

    def wrong(self, keys, expected, example=None):
        """The ParamsError for the value of `keys`."""
        value, line = self.entries[self.key(*keys)][0]
        example = f", as in {example!r}" if example else ""
        return ParamsError(
            f"{self.path}, line {line}: {self.key(*keys)} is "
            f"{'null' if value is None else repr(value)}, "
            f"expected {expected}{example}"
        )


class Params(dict):
    """{section name: Section} of a file; asking for a section that it lacks is a ParamsError."""

    def __init__(self, path, sections):
        super().__init__(sections)
        self.path = path

    def __missing__(self, name):
        names = ", ".join(filter(None, self)) or "none"
        raise ParamsError(
            f"{self.path}: no section {name!r}, which this chain reads; the file has {names}"
        )


def read_params(path):
    """The file at `path` as Params. FileNotFoundError; ParamsError for a section or key that no
    chain knows.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one of test_tipc/configs")
    sections = {}
    name = NO_SECTION
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ParamsError(f"{path}: not a text file in UTF-8") from None
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        place = f"{path}, line {number}"
        if not line or line.startswith("##"):
            continue
        header = HEADER.fullmatch(line)
        if header:
            name = header[1]
            if name not in SECTIONS:
                raise ParamsError(
                    f"{place}: unknown section {name!r}.{nearest(name, filter(None, SECTIONS))}"
                )
            if name in sections:
                raise ParamsError(f"{place}: the section {name} a second time; write it once")
            sections[name] = Section(path, name, {})
            continue
        if ":" not in line:
            raise ParamsError(f"{place}: {line!r} is no `key:value` line")
        key, value = key_value(line)
        if key == "null":
            continue
        section = sections.setdefault(name, Section(path, name, {}))
        if key not in known_keys(name):
            raise ParamsError(
                f"{place}: unknown key "
                f"{key!r}{f' in {name}' if name else ''}.{nearest(key, known_keys(name))}"
            )
        section.entries.setdefault(key, []).append((value, number))
    return Params(path, sections)


def command_options(key, value):
    """The arguments that `key:value` adds to a command: `-o a.b=value`, `--key=value`, for a bool
    `--key` or `--no-key`; none for None.
    """
    if value is None:
        return []
    if key.startswith("-o "):
        return ["-o", f"{key[3:].strip()}={value}"]
    if isinstance(value, bool):
        return [key if value else f"--no-{key.removeprefix('--')}"]
    return [f"{key}={value}"]
