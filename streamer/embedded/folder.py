"""The folder a server keeps its data in: the user's, or a temporary one that is cleared away."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from streamer.errors import UnavailableError

_PREFIX = "watchword-"
_LOCK = ".watchword.lock"


class Folder:
    """A folder locked for one server.

    A temporary one is removed by `close`. Should this process be killed before that, the lock goes with it, and the
    next `Folder` of anyone with the same user id clears the remains away.

    Args:
        kind: Name of the server.
        path: The user's own, made where it is missing and kept; None: a temporary one.

    Raises:
        UnavailableError: Another process uses the folder, or it cannot be written.
    """

    def __init__(self, kind: str, path: Path | None) -> None:
        self.is_temporary = path is None
        if path is None:
            _remove_abandoned()
            path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-"))
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = _lock(path)
        except OSError as error:
            raise UnavailableError(
                f"data folder {path} of the embedded {kind} cannot be used: {error.strerror}; name another folder"
            ) from error
        if lock is None:
            raise UnavailableError(
                f"data folder {path} is in use by another embedded {kind}; stop that one or name another folder"
            )
        self.path = path.resolve()
        self._lock = lock

    def close(self) -> None:
        """Release the folder, and remove it if it is temporary."""
        if self.is_temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Keep others out of a folder meanwhile; waits for its turn."""
    descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int | None:
    descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        # Another user's folder, or one that somebody else clears at this moment, is not ours to complain about.
        with contextlib.suppress(OSError):
            if path.is_symlink() or path.stat().st_uid != os.getuid() or not (path / _LOCK).exists():
                continue
            lock = _lock(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
