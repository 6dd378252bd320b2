"""What Paddle's C++ says on stderr while a program is recorded, without a line that means
nothing.
"""

import contextlib
import os
import sys
import tempfile
from typing import Iterator

__all__ = ["without_noise"]

NOISE = b"not support input out tensor for now"  # of every recording
STDERR = 2


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Within the block what goes to the process's stderr is kept back; after it, all but NOISE is
    written there. A setting of glog would help only where Paddle is not imported yet.
    """
    sys.stderr.flush()
    try:
        own = os.dup(STDERR)
    except OSError:  # a process without one
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(own, STDERR)
            os.close(own)
            kept.seek(0)
            for line in kept:
                if NOISE not in line:
                    os.write(STDERR, line)
