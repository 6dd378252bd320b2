"""How much memory is free on the device that will train."""

import os
from pathlib import Path

import paddle

__all__ = ["free_memory"]

UNKNOWN = 4 << 30  # where the system does not tell
MEMINFO = Path("/proc/meminfo")
LIMITS = (  # of containers: what may be used, and what is
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def free_memory(device: str) -> int:
    """Bytes that are free on `device`: of a GPU its own; else the machine's, within the limit of
    the container.
    """
    if device == "gpu":
        properties = paddle.device.cuda.get_device_properties()
        return int(properties.total_memory) - int(paddle.device.cuda.memory_reserved())
    found = [_of_machine()]
    for limit, used in LIMITS:
        try:
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # none, or `max`
            continue
    return max(min(found), 0)


def _of_machine() -> int:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, ValueError, KeyError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return UNKNOWN
