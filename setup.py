"""Installation; all other settings are in pyproject.toml."""
from setuptools import find_packages, setup

setup(
    name="ppcls_nextvit",
    version="0.1.0",
    description="Next-ViT on PaddlePaddle: train from a YAML, load every published checkpoint, ship it",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["ppcls_nextvit*", "weight_conversion*"]),
    install_requires=[
        "paddlepaddle>=3.0,<3.4",        # on a GPU machine install paddlepaddle-gpu of the same version instead
        "numpy>=1.26,<2.4",              # Paddle 3.3 cannot turn shape-[1] tensors into numbers with numpy 2.4
        "setuptools<81",                 # imported by paddle, which does not declare it
        "PyYAML>=6",
        "Pillow>=10.1",
    ],
    extras_require={
        "train": ["tqdm", "matplotlib>=3.8"],                         # ppcls_nextvit/engine: progress bar, curves
        "cv2": ["opencv-python-headless>=4.10,<5"],                   # ppcls_nextvit/data: backend: cv2
        "visualdl": ["visualdl"],                                     # Global.use_visualdl
        "devkit": ["scipy"],                                          # ppcls_nextvit/evaluation: meta.mat of the ILSVRC devkit
        "torch": ["torch", "timm", "safetensors"],                    # tests marked `torch`, tools/benchmark.py's peers
        "test": ["pytest>=8", "ruff"],                                # tests/
    },
)
