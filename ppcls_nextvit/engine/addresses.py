"""By which address the other machines of a run reach this one."""

import os
import socket
import struct
from typing import Any, Optional

from ..schema import ConfigError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["use_own_address"]

SIOCGIFADDR = 0x8915  # Linux's number of the question for an interface's address


def use_own_address() -> None:
    """Let gloo use the address that the launcher told the other machines. By itself it takes that
    of the machine's name, which often is 127.0.0.1, where no other machine finds it. ConfigError
    where the launcher, too, told the others such an address.
    """
    own = os.environ.get("PADDLE_CURRENT_ENDPOINT", "").rpartition(":")[0]
    hosts = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    if own.startswith("127.") and not all(host.startswith("127.") for host in hosts):
        raise ConfigError(
            f"this machine's name stands for {own}, where the other machines cannot reach it; give "
            "the launcher its address: --host=ADDRESS"
        )
    name = _interface_of(own)
    if name:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _interface_of(address: str) -> Optional[str]:
    """The network interface that has the IPv4 address; None where it is not found."""
    if fcntl is None:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                told = fcntl.ioctl(asked.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # it has none, or this is not Linux
                continue
            if socket.inet_ntoa(told[20:24]) == address:
                return name
    return None
