"""The operators for a GPU by ctypes: plain functions of addresses, without Paddle or torch.

`Library(path)` opens what `nextvit build-ops --cuda` makes; ppcls_nextvit/ops/cuda/operators.h has
the functions. Addresses are those of dense arrays in the GPU's memory, 0 for none.
"""

import ctypes
from pathlib import Path
from typing import Sequence, Union

__all__ = ["TYPES", "Library", "LibraryError"]

TYPES = {"float32": 0, "float16": 1, "bfloat16": 2, "float64": 3}
SIZES = {"attention": 8, "deformable": 7}
ADDRESSES = {("attention", "inputs"): 10, ("attention", "grads"): 9}
DEFORMABLE_ADDRESSES = 3


class LibraryError(RuntimeError):
    """What an operator refused, or what the GPU's driver said."""


class Library:
    """The functions of one library. OSError if it cannot be opened."""

    def __init__(self, path: Union[str, Path]) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.nextvit_cuda_message.restype = ctypes.c_char_p

    def forward(
        self,
        name: str,
        dtype: str,
        sizes: Sequence[int],
        inputs: Sequence[int],
        out: int,
        shapes: Sequence[int] = (),
        stream: int = 0,
    ) -> None:
        """name: 'attention' or 'deformable', whose levels' height and width are `shapes`."""
        given = self._common(name, dtype, sizes, shapes)
        given += [self._addresses(name, "inputs", inputs), ctypes.c_void_p(out)]
        self._call(f"{name}_forward", *given, ctypes.c_void_p(stream))

    def workspace(self, name: str, dtype: str, sizes: Sequence[int]) -> int:
        """Bytes that a backward pass needs."""
        found = ctypes.c_int64()
        given = self._common(name, dtype, sizes)
        self._call(f"{name}_workspace", *given, ctypes.byref(found))
        return found.value

    def backward(
        self,
        name: str,
        dtype: str,
        sizes: Sequence[int],
        inputs: Sequence[int],
        out_grad: int,
        grads: Sequence[int],
        workspace: int,
        workspace_bytes: int,
        shapes: Sequence[int] = (),
        stream: int = 0,
    ) -> None:
        """grads: of the inputs that have one, in their order; see operators.h."""
        given = self._common(name, dtype, sizes, shapes)
        given += [self._addresses(name, "inputs", inputs), ctypes.c_void_p(out_grad)]
        given += [self._addresses(name, "grads", grads), ctypes.c_void_p(workspace)]
        given += [ctypes.c_int64(workspace_bytes), ctypes.c_void_p(stream)]
        self._call(f"{name}_backward", *given)

    def _common(self, name: str, dtype: str, sizes: Sequence[int], shapes: Sequence[int] = ()):
        if len(sizes) != SIZES[name]:
            raise ValueError(f"{name} has {SIZES[name]} sizes; got {len(sizes)}")
        given = [ctypes.c_int(TYPES[dtype]), (ctypes.c_int64 * len(sizes))(*sizes)]
        if shapes:
            # levels: the last size but one
            if len(shapes) != 2 * sizes[-2]:
                raise ValueError(
                    f"{sizes[-2]} levels have {2 * sizes[-2]} sides; got {len(shapes)}"
                )
            given.append((ctypes.c_int64 * len(shapes))(*shapes))
        return given

    def _addresses(self, name: str, kind: str, addresses: Sequence[int]):
        expected = ADDRESSES.get((name, kind), DEFORMABLE_ADDRESSES)
        if len(addresses) != expected:
            raise ValueError(f"{name} has {expected} {kind}; got {len(addresses)}")
        return (ctypes.c_void_p * len(addresses))(*addresses)

    def _call(self, name: str, *given: object) -> None:
        status = getattr(self.library, f"nextvit_cuda_{name}")(*given)
        if status:
            message = self.library.nextvit_cuda_message(status).decode(errors="replace")
            raise LibraryError(f"{name}: {message} (status {status})")
