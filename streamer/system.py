"""Events about the cameras themselves: dark, frozen, silent.

Dark and frozen are judged on each window's thumbnails and go through the same tracker as every prompt. Silence is
judged by the worker's clock, because nothing arrives that could carry a time; its event starts where the stream broke
off.

A frozen picture is one whose thumbnail differs from frame to frame by no more than `STILL_LEVELS`. Measured with x264
at 720p25, one frame a second: a picture that is fed again and again settles under 0.01 levels, keyframes included.
Within a group of pictures the encoder may hide the noise of a living sensor altogether, but a new keyframe shows it:
0.06 levels and more for half a level a pixel. So a scene without motion looks frozen where keyframes lie further apart
than ``frozen_after_s``; and a frozen camera is not noticed where its encoder is starved (500 kbit/s) and never stops
refining.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ContractError
from streamer.prompt_table import PromptTable
from streamer.prompts import SYSTEM_PROMPTS, Prompt
from streamer.settings import System
from streamer.track import TrackOptions, WindowScores, advance, finish, note, transition
from streamer.track_state import NEVER_US, Run, StreamState, from_document, to_document
from streamer.types import EventState, Transition, Window

DARK, FROZEN, SILENT = "system-dark", "system-frozen", "system-silent"
NO_UPDATES_US: Final = 2**62  # a little darker still is no news
STILL_LEVELS: Final = 0.02  # mean absolute difference of two thumbnails, in luma levels of 255


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What the pictures of a stream last looked like.

    Attributes:
        thumb: uint8 ``(THUMB_SIDE, THUMB_SIDE)``, luma of the last frame; None before the first.
        dark: Confidence that it is dark, NaN before the first frame.
        frozen: Confidence that it is frozen, NaN before the second frame.
    """

    thumb: NDArray[np.uint8] | None = None
    dark: float = float("nan")
    frozen: float = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """What is remembered of a stream.

    Attributes:
        tracked: Dark and frozen, as the tracker keeps them.
        look: Of its pictures.
        end_us: Capture time of the end of its last window.
        silence: The open event about its silence.
        has_ended: It ended by itself: nothing more is expected.
    """

    tracked: StreamState = field(default_factory=StreamState)
    look: Look = field(default_factory=Look)
    end_us: int = NEVER_US
    silence: Run | None = None
    has_ended: bool = False


def look_at(before: Look, thumbs: NDArray[np.uint8], dark_below: float) -> Look:
    """Judge the pictures of one window. A window without any keeps the judgement of the one before.

    Args:
        before: As of the window before.
        thumbs: uint8 ``(T, THUMB_SIDE, THUMB_SIDE)``, luma.
        dark_below: Mean luma, of 255, under which a picture is dark; there the confidence is 0.5.
    """
    if not len(thumbs):
        return before
    luma = float(thumbs.reshape(len(thumbs), -1).mean(axis=1).max())
    dark = max(0.0, 1.0 - luma / (2.0 * dark_below)) if dark_below > 0 else 0.0
    row = thumbs if before.thumb is None else np.concatenate((before.thumb[None], thumbs))
    frozen = before.frozen
    if len(row) > 1:
        moved = np.abs(np.diff(row.astype(np.int16), axis=0)).mean(axis=(1, 2))
        # A black picture is the same black picture: that is one event, not two.
        frozen = float(moved.max() < STILL_LEVELS and dark < 0.5)
    return Look(thumbs[-1], dark, frozen)


class SystemWatch:
    """Watches the streams of one worker. Every method is for the batch loop's thread.

    Args:
        settings: When a camera counts as dark, frozen or silent.
        options: How confidences become events.
    """

    def __init__(self, settings: System, options: TrackOptions) -> None:
        self._settings = settings
        self._options = replace(options, update_interval_us=NO_UPDATES_US)
        self._prompts = PromptTable(_timed_prompts(settings)).of_stream("", {})
        self._cameras: dict[str, Camera] = {}
        self._arrived_s: dict[str, float] = {}

    def arrived(self, stream: str, now_s: float) -> None:
        """Something that could be used came from a stream.

        Args:
            stream: Stream id.
            now_s: Monotonic seconds.
        """
        self._arrived_s[stream] = now_s

    def observe(self, window: Window) -> tuple[Transition, ...]:
        """Judge a window. One that was judged before changes nothing."""
        camera = self._cameras.get(window.stream, Camera())
        if not self._settings.enabled or window.start_us <= camera.tracked.watermark_us:
            return ()
        changes: tuple[Transition, ...] = ()
        if camera.silence is not None:
            heard = replace(camera.silence, last_us=max(camera.silence.start_us, window.start_us))
            changes = (transition(heard, EventState.CLOSED, window.stream, is_peak=False),)
        look = look_at(camera.look, window.thumbs, self._settings.dark_below)
        scores = np.array([look.dark, look.frozen], np.float32)
        if not window.has_picture:
            scores[:] = np.nan
        seen = WindowScores(window.stream, window.start_us, window.end_us, scores, scores, np.full_like(scores, np.nan))
        tracked, told, _ = advance(camera.tracked, seen, self._prompts, self._options)
        self._cameras[window.stream] = Camera(tracked, look, window.end_us)
        return (*changes, *told)

    def silent(self, now_s: float, is_expected: Callable[[str], bool] = lambda _: False) -> tuple[Transition, ...]:
        """Open an event for each stream from which nothing came for too long.

        Args:
            now_s: Monotonic seconds.
            is_expected: Something of a stream is on its way here: then it is late, not silent.
        """
        opened = []
        for stream, camera in self._cameras.items():
            waited_s = now_s - self._arrived_s.setdefault(stream, now_s)
            is_told = camera.silence is not None or camera.has_ended or not self._settings.enabled
            if is_told or waited_s < self._settings.silent_after_s or is_expected(stream):
                continue
            end_us = camera.end_us + round(waited_s * 1e6)
            run = Run(camera.end_us, end_us, 1.0, 1.0, None, None, note(SYSTEM_PROMPTS[SILENT]))
            self._cameras[stream] = replace(camera, silence=run)
            opened.append(transition(run, EventState.OPEN, stream, is_peak=False))
        return tuple(opened)

    def excuse(self, now_s: float) -> None:
        """Kafka was away or the worker was busy: that nothing arrived so far says nothing about the cameras."""
        self._arrived_s = dict.fromkeys(self._arrived_s, now_s)

    def finish(self, stream: str) -> tuple[Transition, ...]:
        """The stream ended by itself: close what is open, and do not wait for more."""
        camera = self._cameras.get(stream)
        if camera is None:
            return ()
        tracked, closed = finish(camera.tracked, stream, self._prompts)
        if camera.silence is not None:
            closed = (*closed, transition(camera.silence, EventState.CLOSED, stream, is_peak=False))
        self._cameras[stream] = Camera(tracked, end_us=camera.end_us, has_ended=True)
        return closed

    def has_ended(self, stream: str) -> bool:
        """It ended by itself, and nothing came since."""
        camera = self._cameras.get(stream)
        return camera is not None and camera.has_ended

    def state(self, stream: str) -> dict[str, Any] | None:
        """What a successor needs to go on, ready for JSON; None: nothing is remembered.

        The last thumbnail is left out: to compare one pair of frames it would be nine tenths of what a commit writes.
        """
        camera = self._cameras.get(stream)
        if camera is None:
            return None
        look = camera.look
        return {
            "tracked": to_document(camera.tracked),
            "dark": None if np.isnan(look.dark) else look.dark,
            "frozen": None if np.isnan(look.frozen) else look.frozen,
            "end_us": camera.end_us,
            "silence": None
            if camera.silence is None
            else {"start_us": camera.silence.start_us, "last_us": camera.silence.last_us},
            "has_ended": camera.has_ended,
        }

    def restore(self, stream: str, document: Mapping[str, Any] | None, now_s: float) -> None:
        """Go on from what `state` wrote; from then on its silence is counted.

        Raises:
            ContractError: Something else wrote it.
        """
        if document is None:
            self.forget(stream)
            return
        try:
            self._cameras[stream] = _camera(document, stream)
        except (KeyError, TypeError, ValueError) as error:
            raise ContractError(
                f"what is known of camera {stream!r} cannot be read ({type(error).__name__}); delete its partition:N "
                "key to start afresh"
            ) from error
        self._arrived_s[stream] = now_s

    def forget(self, stream: str) -> None:
        """Another worker has it now."""
        self._cameras.pop(stream, None)
        self._arrived_s.pop(stream, None)


def _camera(document: Mapping[str, Any], stream: str) -> Camera:
    silence = document["silence"]
    if silence is not None:
        times = (int(silence["start_us"]), int(silence["last_us"]))
        silence = Run(*times, 1.0, 1.0, None, None, note(SYSTEM_PROMPTS[SILENT]))
    look = Look(None, _or_nan(document["dark"]), _or_nan(document["frozen"]))
    return Camera(
        from_document(document["tracked"], stream), look, int(document["end_us"]), silence, bool(document["has_ended"])
    )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _timed_prompts(settings: System) -> tuple[Prompt, Prompt]:
    """Dark and frozen, with how long each must last."""
    return (_lasting(SYSTEM_PROMPTS[DARK], settings.hold_s), _lasting(SYSTEM_PROMPTS[FROZEN], settings.frozen_after_s))


def _lasting(prompt: Prompt, duration_s: float) -> Prompt:
    return Prompt.model_validate(prompt.model_dump() | {"min_duration": f"{round(duration_s * 1000)}ms"})
