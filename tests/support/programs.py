"""The programs in tools/, scripts/ and deploy/ as modules."""

import importlib.util
import sys
from unittest import mock

from .paths import ROOT


def program_at(path):
    """The module of a program in tools/ or deploy/, which are no packages. While it is imported its
    folder is first on the path, as when Python runs it.
    """
    spec = importlib.util.spec_from_file_location(
        path.replace("/", "_").removesuffix(".py"), ROOT / path
    )
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(sys, "path", [str((ROOT / path).parent), *sys.path]):
        spec.loader.exec_module(module)
    return module
