"""A rule that holds in one place holds in its siblings: every call of the repository's programs
that decodes, unpickles, unpacks, runs code or starts a program is listed here, with what makes it
safe, and copies of one rule are equal.
"""

import ast
import re
import sys

import pytest

from ppcls_nextvit.data import images
from support.paths import ROOT
from support.programs import program_at

CALLS = re.compile(
    r"(?:.*\.)?Image\.open|(?:.*\.)?im(?:read|decode)\w*|(?:.*\.)?loadmat|(?:.*\.)?VideoCapture"
    r"|(?:c|cloud)?[pP]ickle\.\w+|(?:paddle|torch|np|numpy|joblib|onnx|marshal|dill)\.load"
    r"|(?:yaml|ruamel)\.(?:\w*load\w*|compose\w*|parse|scan)|subprocess\.\w+|os\.(?:system|popen|exec\w*|spawn\w*|startfile)"
    r"|(?:.*\.)?extract(?:all)?|zipfile\.\w+|tarfile\.\w+|gzip\.\w+|bz2\.\w+|lzma\.\w+"
    r"|zlib\.decompress\w*|shutil\.unpack_archive|eval|exec|compile|__import__"
    r"|(?:.*\.)?exec_module|(?:.*\.)?import_module|ctypes\.\w+|runpy\.\w+"
)
PROGRAMS = ("ppcls_nextvit", "deploy", "tools", "test_tipc", "benchmarks", "scripts")

OURS = "a module of this repository, by a name that stands in it"
TOOL = "a program that the caller's own command line or configuration file names"
BENCHMARKED = "a file that benchmarks/prepare.py wrote"
EXPORTED = "a file that this process wrote"
# {file: {call: what makes it safe}}
KNOWN = {
    "benchmarks/attention.py": {"subprocess.run": OURS},
    "benchmarks/data_scale.py": {"zipfile.ZipFile": "writes what it made up"},
    "benchmarks/deformable.py": {"subprocess.run": OURS},
    "benchmarks/exports.py": {"subprocess.run": OURS},
    "benchmarks/gpu/cases.py": {"np.load": "goldens of this repository, arrays alone"},
    "benchmarks/gpu/library.py": {
        "ctypes.CDLL": "the library that build-ops compiled of our sources",
        **dict.fromkeys(
            ("ctypes.byref", "ctypes.c_int", "ctypes.c_int64", "ctypes.c_void_p"), OURS
        ),
    },
    "benchmarks/query_models.py": {"subprocess.run": OURS},
    "benchmarks/timed_engines/classifiers.py": {
        "importlib.import_module": "PaddleClas's model file, installed by the user",
        "paddle.load": BENCHMARKED,
    },
    "benchmarks/timed_engines/deployed.py": {"importlib.import_module": OURS},
    "benchmarks/turns.py": {"subprocess.Popen": OURS},
    "deploy/onnx/predict.py": {"runpy.run_path": OURS},
    "deploy/python/decoding.py": {"Image.open": "FORMATS"},
    "deploy/python/description.py": {"yaml.safe_load": "plain data alone"},
    "deploy/serving/decoding.py": {"Image.open": "FORMATS"},
    "deploy/web/prepare.py": {"onnx.load": "a message of protobuf, which is data"},
    "ppcls_nextvit/__init__.py": {"importlib.import_module": OURS},
    "ppcls_nextvit/cli/dialects.py": {"importlib.import_module": OURS},
    "ppcls_nextvit/cli/main.py": {"importlib.import_module": OURS},
    "ppcls_nextvit/config/yaml_text.py": {"yaml.compose": "a SafeLoader, within budgets"},
    "ppcls_nextvit/data/datasets/files.py": {
        "zipfile.ZipFile": "the directory alone",
        "zlib.decompressobj": "as far as the directory says, and IMAGE_BYTES",
    },
    "ppcls_nextvit/data/images.py": {"Image.open": "FORMATS"},
    "ppcls_nextvit/data/shards/index.py": {"np.load": "arrays alone: allow_pickle is off"},
    "ppcls_nextvit/data/shards/samples.py": {"tarfile.open": "headers and bytes alone"},
    "ppcls_nextvit/data/shards/make.py": {
        "tarfile.TarInfo": "writes",
        "tarfile.open": "writes",
    },
    "ppcls_nextvit/data/memory.py": {"ctypes.CDLL": "the C library that the process has"},
    "ppcls_nextvit/engine/progress.py": dict.fromkeys(
        ("ctypes.CDLL", "ctypes.byref"), "the C library that the process has"
    ),
    "ppcls_nextvit/export/lite.py": {"np.load": EXPORTED, "subprocess.run": TOOL},
    "ppcls_nextvit/export/onnx.py": {"onnx.load": EXPORTED},
    "ppcls_nextvit/export/opened.py": {"yaml.safe_load": "plain data alone"},
    "ppcls_nextvit/export/quantize.py": {"onnx.load": EXPORTED},
    "ppcls_nextvit/hosts/__init__.py": {"importlib.import_module": OURS},
    "ppcls_nextvit/hosts/__main__.py": {"runpy.run_module": TOOL, "runpy.run_path": TOOL},
    "ppcls_nextvit/hosts/paddleseg.py": {
        "importlib.import_module": "PaddleSeg's own modules, by names that stand in the file"
    },
    "ppcls_nextvit/reproduce/classes.py": {"loadmat": "MATLAB 5: numbers and texts"},
    "ppcls_nextvit/tasks/check.py": {"importlib.import_module": "Global.imports, which say so"},
    "ppcls_nextvit/weights/formats/archive.py": {
        "zipfile.ZipFile": "the directory alone",
        "zlib.decompressobj": "as far as the directory says, and UNPACKED_BYTES",
    },
    "ppcls_nextvit/ops/building.py": {
        "subprocess.run": "the system's C++ compiler, on our sources"
    },
    "scripts/mutant_tests.py": {"subprocess.run": OURS},
    "scripts/api_pages.py": {"importlib.import_module": OURS},
    "scripts/make_configs.py": {"importlib.import_module": OURS},
    "scripts/make_tipc_configs.py": {"yaml.safe_load": OURS},
    "scripts/prepare_fashion_mnist.py": {
        "gzip.open": "up to LARGEST bytes",
        "zipfile.ZipFile": "written",
        "zipfile.ZipInfo": "written",
    },
    "scripts/prepare_nuclei.py": {"Image.open": "TIFF alone"},
    "test_tipc/chains/client.py": {"subprocess.Popen": TOOL},
    "test_tipc/chains/lite.py": {"subprocess.run": TOOL},
    "test_tipc/chains/prepare.py": {
        "stream.extractall": "zip's names are made safe by Python, tar's by its filter; check_room",
        "subprocess.run": TOOL,
        "tarfile.is_tarfile": "looks",
        "tarfile.open": "above",
        "zipfile.ZipFile": "above",
        "zipfile.is_zipfile": "looks",
    },
    "test_tipc/chains/run.py": {"subprocess.Popen": TOOL},
    "test_tipc/chains/stored.py": {"subprocess.run": TOOL},
}


def calls(path):
    """(name, syntax) of the calls of a file that can do harm."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and CALLS.fullmatch(ast.unparse(node.func)):
            yield ast.unparse(node.func), node


FOUND = {
    str(path.relative_to(ROOT)): list(calls(path))
    for folder in PROGRAMS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "node_modules" not in path.parts
}


def test_every_call_that_can_do_harm_is_known():
    found = {path: {name for name, _ in listed} for path, listed in FOUND.items() if listed}
    assert found == {path: set(listed) for path, listed in KNOWN.items()}


def test_a_call_is_noticed(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "import pickle, os\npickle.load(f)\nos.system('x')\nPIL.Image.open(p)\ncv2.imread(p)\n"
        "np.load(p)\nstream.extractall(t)\nself.loads(x)\n"
    )
    assert [name for name, _ in calls(path)] == [
        "pickle.load",
        "os.system",
        "PIL.Image.open",
        "cv2.imread",
        "np.load",
        "stream.extractall",
    ]


def listed(name):
    return [
        (path, node) for path, found in FOUND.items() for called, node in found if called == name
    ]


def test_every_decoder_says_which_formats_it_reads():
    opened = listed("Image.open")
    assert len(opened) >= 4
    assert [path for path, node in opened if "formats" not in {k.arg for k in node.keywords}] == []


def test_nothing_is_unpacked_without_a_limit():
    assert listed("zlib.decompress") == listed("gzip.decompress") == []
    for path, node in listed("np.load"):
        assert "allow_pickle" not in {k.arg for k in node.keywords}, path


def test_no_shell():
    starting = [
        (path, node)
        for path, found in FOUND.items()
        for name, node in found
        if name.startswith("subprocess.")
    ]
    assert len(starting) >= 6
    assert [path for path, node in starting if "shell" in {k.arg for k in node.keywords}] == []


@pytest.fixture(scope="module")
def copied():
    """deploy's decoding.py."""
    return program_at("deploy/python/decoding.py")


def test_the_copies_are_equal(copied):
    def text(path):
        return (ROOT / path).read_text(encoding="utf-8")

    assert text("deploy/python/decoding.py") == text("deploy/serving/decoding.py")
    notes = {text(f"{place}/notes.py") for place in ("deploy/python", "deploy/serving")}
    assert notes == {text("ppcls_nextvit/data/notes.py")}
    startups = {text(f"{place}/startup.py") for place in ("deploy/python", "deploy/serving")}
    assert startups == {text("ppcls_nextvit/startup.py")}
    agreements = {text(f"{place}/agreement.py") for place in ("deploy/python", "deploy/serving")}
    assert agreements == {text("ppcls_nextvit/export/agreement.py")}
    assert text("deploy/python/two_stage.py") == text("ppcls_nextvit/export/two_stage.py")
    for name in ("FORMATS", "EXTENSIONS", "MAX_PIXELS", "UPRIGHT"):
        assert getattr(copied, name) == getattr(images, name)
    assert copied.MAX_BYTES == images.IMAGE_BYTES
    assert program_at("test_tipc/chains/client.py").EXTENSIONS == images.EXTENSIONS
    endings = re.search(r"endings = \{(.*?)\}", text("deploy/cpp/src/files.cc"), re.DOTALL)[1]
    assert tuple(re.findall(r'"(\.\w+)"', endings)) == images.EXTENSIONS
    assert text("deploy/python/fields.py") == text("deploy/serving/fields.py")


def test_no_other_list_of_endings():
    own = {
        "ppcls_nextvit/data/images.py",
        "deploy/python/decoding.py",
        "deploy/serving/decoding.py",
        "test_tipc/chains/client.py",
    }
    several = re.compile(r"\.bmp\b.{1,20}\.gif\b|\.png\b.{1,20}\.ppm\b", re.IGNORECASE)
    found = {path for path in FOUND if several.search((ROOT / path).read_text(encoding="utf-8"))}
    assert found == own


def test_pillow_s_other_formats_are_not_reached():
    from PIL import Image

    Image.init()
    assert {"EPS", "WMF", "FPX", "MIC", "PSD", "FITS"} & set(images.FORMATS) == set()
    assert set(images.FORMATS) <= set(Image.OPEN) | {"AVIF"}
    assert sys.modules["PIL.EpsImagePlugin"]  # which is there, and not asked
