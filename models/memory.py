"""Bytes onto a device, and what to do where it has no room."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from models.errors import ModelError

Element = TypeVar("Element", bound=np.generic)
Made = TypeVar("Made")

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


class Uploader:
    """Copies arrays to one device; on CUDA beside the kernels that run there, and without waiting for either."""

    def __init__(self, device: torch.device) -> None:
        """Copy to a device, on a stream of this object's own."""
        self.device = device
        is_cuda = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if is_cuda else None  # type: ignore[no-untyped-call]  # torch's own

    def __call__(self, array: NDArray[Element]) -> torch.Tensor:
        """Copy an array. On a CPU the result shares its memory where it is writable: treat it as read-only."""
        if self.stream is None:
            # torch warns of an array that is read-only, and would let the tensor be written to.
            return torch.from_numpy(array if array.flags.writeable else array.copy())
        dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        pinned = torch.empty(array.shape, dtype=dtype, pin_memory=True)
        pinned.numpy()[...] = array
        with torch.cuda.stream(self.stream):
            placed = pinned.to(self.device, non_blocking=True)
        user = torch.cuda.current_stream(self.device)
        user.wait_stream(self.stream)
        placed.record_stream(user)  # or its memory could be given away while kernels still read it
        return placed


def free_bytes(device: torch.device) -> int | None:
    """Memory that a device can still give, or None where nobody can tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [bytes_ for bytes_ in (_available_bytes(), _cgroup_bytes()) if bytes_ is not None]
    return min(limits, default=None)


def require_room(needed_bytes: int, device: torch.device, what: str) -> None:
    """Refuse what cannot fit, before minutes are spent on loading it.

    Raises:
        ModelError: With what is needed and what is free.
    """
    free = free_bytes(device)
    if free is not None and needed_bytes > free:
        raise ModelError(
            f"{what} needs {needed_bytes / 1e9:.1f} GB on {device}, of which {free / 1e9:.1f} GB are free; "
            "choose a smaller model, another device, or stop what else runs there"
        )


def in_halves(
    encode: Callable[[NDArray[Element]], Made],
    join: Callable[[Made, Made], Made],
    rows: NDArray[Element],
    what: str,
) -> Made:
    """Encode a batch; where the device has no room for it, its halves one after the other.

    Args:
        encode: Rows ``(N, ...)`` to what is made of them.
        join: Two results to one, in order.
        rows: ``N >= 1`` of them.
        what: Named in the error.

    Raises:
        ModelError: Not even one row fits.
    """
    try:
        return encode(rows)
    except torch.OutOfMemoryError as error:
        if len(rows) == 1:
            raise ModelError(
                f"{what} has no room for a batch of one: {str(error).splitlines()[0]}; free memory on the device, "
                "or choose a smaller model"
            ) from error
    middle = len(rows) // 2
    return join(in_halves(encode, join, rows[:middle], what), in_halves(encode, join, rows[middle:], what))


def _available_bytes() -> int | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kibibytes = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return next((value * 1024 for value in kibibytes), None)


def _cgroup_bytes() -> int | None:
    """What the container's limit leaves (cgroup v2); file cache that can be dropped counts as free."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        cache = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used + int(cache.get("inactive_file", 0)))
