"""YAMNet (Google; github.com/tensorflow/models, research/audioset/yamnet) from a LiteRT file that the user has.

It scores AudioSet's 521 classes for 0.96 s at a time. Its tokens are made of these scores exactly as those of `compact`
are, so prompts meet them in the same space. Both published forms are taken: from log-mel frames ``(1, 96, 64)``, and
from samples ``(15600,)``.
"""

import csv
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.audio import DIM, SOUND_SHA256, WEIGHTS, SoundText, load_sound_net
from models.encoders import SoundEncoder, SoundTokens, TextEncoder
from models.errors import ModelError
from models.integrity import sha256_of
from models.logmel import HOP_SAMPLES, MEL_BANDS, LogMel
from models.sound_net import CELL_FRAMES, CLASSES, TOKEN_CELLS, TOKEN_S, cells_of, sound_tokens, whole_cells

CLASS_MAP = "yamnet_class_map.csv"
PATCH_FRAMES = TOKEN_CELLS * CELL_FRAMES
PATCH_SAMPLES = 15_600  # 0.975 s: 96 frames and the rest of the last one's window
LARGEST_BYTES = 100_000_000
SCORE_FLOOR = 1 / 512  # half a step of an eight-bit score: what says zero may be anything below


def load_yamnet(model: str, text: TextEncoder, threads: int = 2) -> tuple[SoundEncoder, TextEncoder]:
    """Load YAMNet and the text side of `compact` sounds.

    Args:
        model: The ``.tflite`` file; ``yamnet_class_map.csv``, as Google publishes it, lies beside it.
        text: MiniLM.
        threads: For inference.

    Raises:
        ModelError: A file is missing, something else or unreadable, or `ai-edge-litert` is not installed.
    """
    file = Path(model).expanduser()
    if not file.is_file():
        raise ModelError(f"yamnet model {model!r} is not a file that exists; give the path of a YAMNet .tflite file")
    names = _class_names(file.with_name(CLASS_MAP))
    net, whitening = load_sound_net(WEIGHTS, SOUND_SHA256)
    vectors = whitening(torch.from_numpy(text.encode(names)))
    sounds = YamnetSounds(file, vectors, (net.logit_mean, net.logit_deviation), threads)
    return sounds, SoundText(text, whitening, sounds.sha256)


class YamnetSounds:
    """A `SoundEncoder` over a YAMNet file.

    Args:
        file: The ``.tflite`` file.
        class_vectors: float32 ``(521, D - 1)``, unit length, the classes' names in the space of the prompts.
        ordinary: Mean and deviation of each class's logit in ordinary sound, ``(521,)`` each.
        threads: For inference.

    Raises:
        ModelError: See `load_yamnet`.
    """

    dim = DIM
    token_s = TOKEN_S

    def __init__(
        self, file: Path, class_vectors: torch.Tensor, ordinary: tuple[torch.Tensor, torch.Tensor], threads: int
    ) -> None:
        self.name = f"yamnet:{file.stem}"
        self._net = _interpreter(file, threads)
        self.sha256 = sha256_of(file)
        self._input, self._output, self._takes_samples = _ends(self._net, file)
        self._front_end = LogMel()
        self._class_vectors = class_vectors
        floor = torch.logit(torch.tensor(SCORE_FLOOR))
        self._mean, self._deviation = ordinary[0].clamp_min(float(floor)), ordinary[1]
        self._lock = threading.Lock()

    def encode(self, samples: NDArray[np.float32]) -> SoundTokens:
        """Encode float32 ``(N, M)``, 16 kHz mono, -1..1, to ``(N, U, 385)`` tokens, one each 0.32 s."""
        scores = self.scores(samples)
        surprise = (torch.logit(scores.clamp(SCORE_FLOOR, 1 - SCORE_FLOOR)) - self._mean) / self._deviation
        tokens = sound_tokens(scores, surprise, self._class_vectors)
        return SoundTokens(tokens[:, :-1], tokens[:, -1])

    @torch.inference_mode()
    def scores(self, samples: NDArray[np.float32]) -> torch.Tensor:
        """Score AudioSet's classes: float32 ``(N, M)`` to ``(N, U, 521)``, 0..1."""
        if samples.dtype != np.float32 or samples.ndim != 2:
            raise ModelError(f"sounds must be float32 (N, M), 16 kHz mono, not {samples.dtype} {samples.shape}")
        patches = self._patches(whole_cells(samples), cells_of(samples.shape[1]) - TOKEN_CELLS + 1)
        with self._lock:
            return torch.from_numpy(np.stack([[self._score(patch) for patch in sound] for sound in patches]))

    def _patches(self, rows: NDArray[np.float32], tokens: int) -> NDArray[np.float32]:
        """What the network takes, ``(N, U, ...)``, a new patch every 0.32 s."""
        if self._takes_samples:
            step = CELL_FRAMES * HOP_SAMPLES
            short = (tokens - 1) * step + PATCH_SAMPLES - rows.shape[1]
            padded = np.pad(rows, ((0, 0), (0, max(0, short))))
            return np.stack([padded[:, k * step : k * step + PATCH_SAMPLES] for k in range(tokens)], axis=1)
        frames = self._front_end(torch.from_numpy(rows)).numpy()
        return np.stack([frames[:, k * CELL_FRAMES :][:, :PATCH_FRAMES] for k in range(tokens)], axis=1)

    def _score(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        self._net.set_tensor(self._input, patch if self._takes_samples else patch[None])
        self._net.invoke()
        scores: NDArray[np.float32] = self._net.get_tensor(self._output).reshape(-1, CLASSES).mean(0)
        return scores


def _interpreter(file: Path, threads: int) -> Any:  # LiteRT has no types
    try:
        from ai_edge_litert.interpreter import Interpreter  # an optional package
    except ImportError as error:
        raise ModelError("yamnet needs the package ai-edge-litert; pip install 'watchword[yamnet]'") from error
    if file.stat().st_size > LARGEST_BYTES:
        raise ModelError(
            f"yamnet model {file} has {file.stat().st_size / 1e6:.0f} MB; YAMNet has 4 to 16: another file?"
        )
    try:
        net = Interpreter(model_content=file.read_bytes(), num_threads=threads)
        net.allocate_tensors()
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError(f"yamnet model {file} is not a LiteRT file that can be read; fetch it again") from error
    return net


def _ends(net: Any, file: Path) -> tuple[int, int, bool]:  # LiteRT has no types
    """Indices of the network's input and of its scores, and whether the input is samples.

    Raises:
        ModelError: It is another network.
    """
    inputs, outputs = net.get_input_details(), net.get_output_details()
    scores = [end for end in outputs if end["shape"][-1] == CLASSES and end["dtype"] == np.float32]
    shape = tuple(int(size) for size in inputs[0]["shape"])
    forms = {(1, PATCH_FRAMES, MEL_BANDS): False, (PATCH_SAMPLES,): True}
    if len(inputs) != 1 or not scores or shape not in forms or inputs[0]["dtype"] != np.float32:
        found = [tuple(int(size) for size in end["shape"]) for end in outputs]
        raise ModelError(
            f"{file} is not YAMNet: it takes {shape} and gives {found}, where float32 (1, 96, 64) or (15600,) to 521 "
            "scores is expected"
        )
    return int(inputs[0]["index"]), int(scores[0]["index"]), forms[shape]


def _class_names(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            names = [row["display_name"] for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise ModelError(
            f"{path} is missing or not YAMNet's class map ({type(error).__name__}); put it beside the model"
        ) from error
    if len(names) != CLASSES:
        raise ModelError(f"{path} names {len(names)} classes, YAMNet has {CLASSES}; fetch it again")
    return names
