"""The compiled operators, built once for all tests; they stay for the next run."""

import shutil

import pytest

from ppcls_nextvit.ops import building, loading


def require_ops():
    """Build and load them. Without a compiler the test is skipped."""
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler; apt-get install g++")
    building.build()
    # another test may have asked before they were there
    loading._failure.cache_clear()
    assert loading.is_loaded(), loading.status_line()
