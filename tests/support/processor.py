"""What this processor has."""

from pathlib import Path


def has_vnni():
    """Whether it has instructions for products of 8 bits summed in 32. Without them, engines'
    results in int8 are further from those in float.
    """
    return "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
