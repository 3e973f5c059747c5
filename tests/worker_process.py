"""A worker as a process of its own, with encoders that load at once: `python -m tests.worker_process SETTINGS`."""

import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.encoders import Encoders, PictureTokens
from streamer.cli.worker import serve
from streamer.logs import set_up_logging
from streamer.settings import load_settings
from streamer.worker import Worker
from tests.colours import ColourPictures, colour_encoders


class SlowPictures(ColourPictures):
    """Each call takes a while, so that a worker is met in the middle of its work."""

    def __init__(self, call_s: float) -> None:
        self._call_s = call_s

    def encode(self, pixels: NDArray[np.uint8]) -> PictureTokens:
        time.sleep(self._call_s)
        return super().encode(pixels)


def slow_encoders(call_s: float) -> Encoders:
    quick = colour_encoders()
    return Encoders(SlowPictures(call_s), quick.picture_text, quick.sound, quick.sound_text)


if __name__ == "__main__":
    settings = load_settings(Path(sys.argv[1]))
    set_up_logging(settings.log)
    serve(Worker(settings, slow_encoders(float(sys.argv[2]))), as_json=True)
