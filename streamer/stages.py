"""The stages as the settings want them, wired the same for the worker and for whoever measures what it does."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from models.aligner import Aligner
from models.calibrate import NORMALISED_PRIOR, PRIOR, Calibrations
from models.encoders import Encoders
from models.learned import Learned
from models.load import load_chosen, load_learned, pick_device, pick_runtime
from models.normalise import Normaliser, load_normaliser
from streamer.align import AlignStage, PromptEmbedder, PromptSet, limit_torch
from streamer.decode import DecodeOptions
from streamer.encode import EncodeStage
from streamer.settings import Settings
from streamer.types import Polygon
from streamer.usual import Usual
from streamer.window import Windower

HEARD_S = 2.0  # of sound at once: as much as what was trained, and every curve that was fitted, heard at once


@dataclass(frozen=True, slots=True)
class Stages:
    """Makes each stage. All that one makes share encoders and calibrations. Made by `open_stages`.

    Attributes:
        settings: What everything follows.
        encoders: Pictures, sound and their texts.
        device: Where the encoders run.
        calibrations: Scores to confidences.
        normaliser: Makes the scores of different prompts comparable.
        learned: What was trained for some kinds of event; None: nothing, with these encoders.
    """

    settings: Settings
    encoders: Encoders
    device: Literal["cpu", "cuda"]
    calibrations: Calibrations
    normaliser: Normaliser
    learned: Learned | None = None

    def decode_options(self, stream: str, masks: Sequence[Polygon] | None = None) -> DecodeOptions:
        """How a stream's chunks are decoded; without ``masks``, with those of the settings."""
        hidden = self.settings.stream(stream).masks if masks is None else tuple(masks)
        return DecodeOptions.of(self.settings.decode, self.encoders.picture.size, hidden)

    def windower(self, clock: Callable[[], float] = time.monotonic) -> Windower:
        """Chunks into windows."""
        window = self.settings.window
        return Windower(window.span_s, window.hop_s, window.join_wait_s, window.idle_flush_s, clock)

    def encode(self, prompts: Callable[[], PromptSet] | None = None) -> EncodeStage:
        """Batches into tokens; how things move only where one of the prompts asks for it."""
        return EncodeStage(
            self.encoders,
            device=self.device,
            hop_s=self.settings.window.hop_s,
            stretch_s=min(HEARD_S, self.settings.window.span_s),
            reuse_max_age_s=self.settings.encode.reuse_max_age_s,
            reuse_noise=self.settings.encode.reuse_noise,
            rate_hz=self.settings.encode.rate_hz,
            wants_motion=lambda: prompts is not None and prompts().parts.moved is not None,
        )

    def embedder(self) -> PromptEmbedder:
        """Prompts into prompt sets."""
        return PromptEmbedder(
            self.encoders,
            self.calibrations,
            self.settings.track.exit_ratio,
            self.normaliser,
            self.learned,
            contrast=self.settings.calibrate.contrast,
        )

    def usual(self) -> Usual | None:
        """What streams always show; None: not wanted, or no bank of ordinary scores fits the encoders."""
        banks = self.normaliser.seen, self.normaliser.heard
        if not self.settings.calibrate.background or not any(banks):
            return None
        picture, sound = self.encoders.picture, self.encoders.sound
        dims = {"seen": picture.dim, "heard": sound.dim}
        return Usual(self.normaliser, self.calibrations, dims, picture.sha256[:8] + sound.sha256[:8])

    def align(self, prompts: Callable[[], PromptSet], aligner: Aligner | None = None) -> AlignStage:
        """Tokens against the prompts that stand."""
        return AlignStage(prompts, self.calibrations, self.encoders.picture.grid, aligner)


def open_stages(settings: Settings, encoders: Encoders | None = None) -> Stages:
    """Load what the settings say and limit this process's threads to what they allow.

    Args:
        settings: Of the worker.
        encoders: Already loaded ones, for those that have them.

    Raises:
        ModelError: A model cannot be loaded.
    """
    encode = settings.encode
    loaded = encoders or load_chosen(encode)
    device = pick_device(encode.device)
    limit_torch(encode.threads if pick_runtime(encode.runtime, device) == "torch" else 1)
    normaliser = load_normaliser(loaded) if settings.calibrate.normalise else Normaliser()
    calibrations = Calibrations(
        PRIOR.seen if normaliser.seen is None else NORMALISED_PRIOR.seen,
        PRIOR.heard if normaliser.heard is None else NORMALISED_PRIOR.heard,
    )
    learned = load_learned(loaded)
    return Stages(settings, loaded, device, calibrations, normaliser, None if learned is None else learned.to(device))
