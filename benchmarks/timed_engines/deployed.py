"""Our exports in the engines that they are for, and the limit of the machine."""

import importlib
import sys
from pathlib import Path

from .classifiers import PaddleEager


class Deployed(PaddleEager):
    """One of our exports, run as the program that users copy (deploy/python) runs it."""

    def __init__(self, export, variant, size, threads, folder):
        from importlib import metadata

        import numpy

        target, precision = export
        programs = deploy_program("engines")
        directory = Path(folder) / str(size) / f"{target}_{precision}"
        description = deploy_program("description").read_description(directory)
        engine = programs.ENGINE_OF_TARGET[target]
        self.size, self.rng = size, numpy.random.default_rng(0)
        # its ImportError says what is not installed
        self.run = programs.ENGINES[engine](directory, description, "cpu", threads)
        package = programs.PACKAGES[engine]
        self.version = f"{package} {metadata.version(package)}"
        if precision == "bf16":
            self.version += f"; {said_of_bf16(programs)}"

    def latency(self, batch):
        images = self.images(batch)
        return lambda: self.run(images)


def said_of_bf16(programs):
    """Whether bf16 is native here, without which a row of it says nothing of other machines.
    programs: deploy/python's engines.
    """
    found, why = programs.native_precision()
    return f"bf16 is {'native' if found == 'bf16' else 'emulated'} here: {why}"


def deploy_program(name):
    """The module `name` of deploy/python: no package, it imports its neighbours by name."""
    folder = str(Path(__file__).parents[2] / "deploy" / "python")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


class Gemm:
    """The machine's own limit: a product of two float32 matrices, by the BLAS that numpy has."""

    SIDE = 1536

    def __init__(self, create, variant, size, threads, folder):
        import numpy

        self.a, self.b = numpy.random.default_rng(0).random((2, self.SIDE, self.SIDE), "float32")
        self.version = f"numpy {numpy.__version__}"

    def latency(self, batch):
        return lambda: self.a @ self.b
