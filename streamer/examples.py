"""Example files of a prompt, decoded as guardedly as any stream, into what its document keeps of them.

A document keeps no picture and no sound, but the query that text and examples come to, and how pictures depart from
ordinary ones, in eight bits: 3 kB. It fits the encoders that made it, and the text that it was made with.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from models.encoders import TextEncoder
from models.normalise import Ordinary
from models.prompts import PromptText, embed_texts
from models.prototypes import MAX_EXAMPLES, Example, draw_towards, looks_of, pack, pictures_of, sound_of
from streamer.decode import decode_chunk
from streamer.errors import ChunkError, PromptError, WatchwordError
from streamer.evaluate.clips import Clip
from streamer.prompts import Drawn, Prompt
from streamer.stages import Stages
from streamer.types import Decoded

MAX_BYTES = 64 * 1024 * 1024
MAX_CHUNKS = 30  # of about a second: an example is of the event, not of the day
_PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True)
class ExampleReader:
    """Files to a prompt's query.

    Attributes:
        stages: Whose encoders, limits and bank count.
    """

    stages: Stages

    def draw(self, prompt: Prompt, files: Sequence[Path]) -> Prompt:
        """The prompt with the query that its text and the files come to.

        Raises:
            PromptError: Too many files, one that cannot be used, or encoders that have no bank of ordinary scenes.
        """
        normaliser, encoders = self.stages.normaliser, self.stages.encoders
        if not 0 < len(files) <= MAX_EXAMPLES:
            raise PromptError(f"{len(files)} examples were given; 1 to {MAX_EXAMPLES} files are allowed")
        if normaliser.seen is None and normaliser.heard is None:
            raise PromptError(
                "examples need calibrate.normalise: true and the compact encoders, whose ordinary scores are known"
            )
        read = [self._read(path) for path in files]
        seen = [picture for picture, _ in read if picture is not None]
        heard = [sound for _, sound in read if sound is not None]
        text = PromptText(prompt.text, prompt.phrasings)
        is_seen = bool(seen) and prompt.modality != "audio"
        looks = looks_of(seen, normaliser.seen) if is_seen and normaliser.seen is not None else None
        drawn = Drawn(
            of=encoders_mark(self.stages),
            count=len(files),
            seen=_drawn(text, seen, encoders.picture_text, normaliser.seen) if prompt.modality != "audio" else None,
            heard=_drawn(text, heard, encoders.sound_text, normaliser.heard) if prompt.modality != "video" else None,
            looks=None if looks is None else base64.b64encode(pack(looks)).decode(),
        )
        if drawn.seen is None and drawn.heard is None:
            raise PromptError(f"the examples hold nothing that a prompt of modality {prompt.modality} looks at")
        return prompt.model_copy(update={"examples": drawn})

    def _read(self, path: Path) -> tuple[Example | None, Example | None]:
        """Decode a file through the guarded decoder, and encode what it shows and sounds like."""
        try:
            if path.stat().st_size > MAX_BYTES:
                raise PromptError(f"example {path} is larger than {MAX_BYTES // 2**20} MB; cut out the event")
            clip = Clip("example", path, is_picture=path.suffix.lower() in _PICTURES)
            options = self.stages.decode_options(clip.name)
            found = [decode_chunk(chunk, options) for chunk in islice(clip.chunks(self.stages.settings), MAX_CHUNKS)]
        except OSError as error:
            raise PromptError(f"example {path} cannot be read: {error.strerror}") from error
        except (ChunkError, WatchwordError) as error:
            raise error if isinstance(error, PromptError) else PromptError(f"example {path}: {error}") from error
        picture, sound = self._seen(found), self._heard(found)
        if picture is None and sound is None:
            raise PromptError(f"example {path} holds neither picture nor sound")
        return picture, sound

    def _seen(self, found: Sequence[Decoded]) -> Example | None:
        frames = [decoded.pixels for decoded in found if len(decoded.pixels)]
        return pictures_of(np.concatenate(frames), self.stages.encoders.picture) if frames else None

    def _heard(self, found: Sequence[Decoded]) -> Example | None:
        samples = [decoded.samples for decoded in found if decoded.samples.any()]
        return sound_of(np.concatenate(samples), self.stages.encoders.sound) if samples else None


def encoders_mark(stages: Stages) -> str:
    """Which encoders drew a query: sixteen hex digits of them."""
    return stages.encoders.picture.sha256[:8] + stages.encoders.sound.sha256[:8]


def _drawn(
    text: PromptText, examples: Sequence[Example], encoder: TextEncoder, ordinary: Ordinary | None
) -> str | None:
    if not examples or ordinary is None:
        return None
    query = draw_towards(embed_texts([text], encoder).vectors[0], examples, ordinary)
    return base64.b64encode(pack(query)).decode()
