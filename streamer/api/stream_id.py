"""Stream ids in paths."""

from typing import Annotated, Final

from fastapi import Path

STREAM_ID: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
StreamId = Annotated[str, Path(pattern=STREAM_ID, description="Stream id.", examples=["yard-1"])]
