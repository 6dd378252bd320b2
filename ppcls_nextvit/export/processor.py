"""What this machine's processor computes in natively."""

from pathlib import Path
from typing import Sequence, Tuple

__all__ = ["automatic_precision", "native_bf16"]

CPUINFO = Path("/proc/cpuinfo")
BF16_FLAGS = ("amx_bf16", "avx512_bf16")  # the faster first


def native_bf16() -> Tuple[str, ...]:
    """The processor's instructions for bfloat16, as Linux calls them; none where that is not
    known.
    """
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return tuple(flag for flag in BF16_FLAGS if flag in flags.split())


def automatic_precision(precisions: Sequence[str]) -> Tuple[str, str]:
    """(the one of a target's `precisions` that suits this processor, why)."""
    if "bf16" not in precisions:
        return "fp32", "the target has no bf16"
    found = native_bf16()
    if not found:
        return "fp32", "this processor is not known to compute in bfloat16"
    return "bf16", f"this processor computes in it ({found[0]})"
