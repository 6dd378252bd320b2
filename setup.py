"""Installation; all other settings are in pyproject.toml."""

from setuptools import find_packages, setup

# OpenCV 5 rounds hues otherwise than the recipes' own
OPENCV = "opencv-python-headless>=4.10,<5"
ONNX = [
    "paddle2onnx==2.1.0",
    "onnx==1.17.0",
    "onnxslim>=0.1.80",
    "onnxconverter-common>=1.16",
    "onnxruntime>=1.20",
    # the last is what paddle2onnx imports and does not declare
    "packaging",
]

EXTRAS = {
    # ppcls_nextvit/engine: progress bar, curves
    "train": ["tqdm", "matplotlib>=3.8"],
    # ppcls_nextvit/data/{coco,dense}.py: detection and segmentation
    "det": ["pycocotools>=2.0.7", OPENCV],
    # ppcls_nextvit/data: backend: cv2
    "cv2": [OPENCV],
    "visualdl": ["visualdl"],  # Global.use_visualdl
    # ppcls_nextvit/evaluation: meta.mat of the ILSVRC devkit
    "devkit": ["scipy"],
    # ppcls_nextvit/export/onnx.py, deploy/onnx
    "onnx": ONNX,
    # ppcls_nextvit/export/openvino.py
    "openvino": [*ONNX, "openvino>=2025.0"],
    # ppcls_nextvit/export/quantize.py
    "int8": [*ONNX, "openvino>=2025.0", "nncf>=3.4,<4"],
    # deploy/tensorrt without a GPU
    "tensorrt": ["tensorrt-rtx-cu13-libs==1.7.1.116", "tensorrt-rtx-cu13-bindings==1.7.1.116"],
    # ppcls_nextvit/export/coreml.py
    "coreml": [*ONNX, "coremltools>=9.0,<10"],
    # deploy/serving
    "serving": ["litserve==0.2.19", "prometheus-client>=0.20", "python-multipart>=0.0.9"],
    "hosts": [
        "prettytable",
        "scikit-learn",
        "faiss-cpu",
        "six",
        "requests",
        "tqdm",
        "pandas",
        "scipy",
        "matplotlib>=3.8",
        # ppcls_nextvit/hosts: what the suites' wheels import
        "pycocotools>=2.0.7",
        "shapely",
        OPENCV,
    ],
    # tests marked `torch`, tools/benchmark.py's peers
    "torch": ["torch", "timm", "safetensors"],
}

setup(
    name="ppcls_nextvit",
    version="0.1.0",
    description="Next-ViT on PaddlePaddle: train from a YAML, load every published checkpoint, "
    "ship it",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["ppcls_nextvit*", "weight_conversion*"]),
    install_requires=[
        # on a GPU machine install paddlepaddle-gpu of the same version instead
        "paddlepaddle>=3.0,<3.4",
        # Paddle 3.3 cannot turn shape-[1] tensors into numbers with numpy 2.4
        "numpy>=1.26,<2.4",
        "setuptools<81",  # imported by paddle, which does not declare it
        "PyYAML>=6",
        "Pillow>=10.1",
    ],
    extras_require={
        **EXTRAS,
        # all that the tests use, but for torch, whose tests are skipped without it
        "test": [
            "pytest>=8",
            "pytest-xdist>=3",
            "ruff",
            *sorted({package for name in EXTRAS if name != "torch" for package in EXTRAS[name]}),
        ],
    },
)
