"""What a reader may still copy: a small file must not fill the memory."""

from .errors import FormatError

__all__ = ["Budget", "widening"]

WIDENED_SHARE = 8  # bytes for each of the file's; of one that is all bfloat16 it takes 2


class Budget:
    """Bytes that are left of `size`; why: what is said of a file that needs more."""

    def __init__(self, size: int, why: str) -> None:
        self.left = size
        self.why = why

    def take(self, count: int) -> None:
        """Spend `count` bytes. FormatError if they are not left."""
        self.left -= count
        if self.left < 0:
            raise FormatError(f"refused: {self.why}")


def widening(size: int) -> Budget:
    """For the float32 copies of the bfloat16 tensors of a file that holds `size` bytes."""
    return Budget(
        WIDENED_SHARE * size,
        "its tensors share storages so often that they hold more data than the file",
    )
