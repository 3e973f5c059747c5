"""Every window against every standing prompt, in one go, and the evidence for what matched."""

import base64
import hashlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.aligner import Aligner
from models.calibrate import Calibration, Calibrations, fuse, logit_of, probability_of
from models.encoders import Encoders, TextEncoder
from models.languages.multilingual import doubt_about
from models.learned import Learned, blend
from models.normalise import Normaliser, Scales, Scaling
from models.prompts import PromptEmbeddings, PromptText, embed_prompts, with_queries
from models.prototypes import LOOKS_SHARE, Looks
from streamer.learned import Parts, of_frames, of_motions, of_sounds, place_of_motion
from streamer.masks import rasterise
from streamer.prompt_table import PromptTable, TrackedPrompts
from streamer.prompts import Drawn, Marked, Prompt
from streamer.types import Alignment, Encoded, Evidence, Fresh, Polygon, Tokens

EXIT_RATIO = 0.8  # from this share of its threshold on a confidence can hold an event open, and is exact
REGION_SHARE = 0.6  # evidence: the fewest cells, most attended first, that hold this share of the attention

Judged = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]

_UNMARKED = {"marked": None}
_MAX_VIEWS = 4096
_FINE = 32  # regions are drawn this much finer than cells: drawn on the cells, each would reach a whole cell further
_CELL_SHARE = 0.25


class PromptSet:
    """One generation of standing prompts, ready for alignment.

    Attributes:
        generation: Of the prompts.
        table: The prompts as the tracker wants them; ``P`` columns.
        keys: ``(id, version)`` of each column.
        embeddings: Queries of both senses; of prompts with examples, those that were drawn towards them.
        allowed_cells: bool ``(P, S)``, or None where no prompt has a region.
        seen_floors: float32 ``(P,)``, the lowest picture score that can open an event or hold one open. Of very many
            prompts, one that stays under it has an estimate, under it too.
        heard_floors: float32 ``(P,)``, likewise for sound.
        seen_scaling: Makes picture scores comparable; floors are of scores before that.
        heard_scaling: Likewise for sound.
        parts: Which of them the trained senses answer, too.
        trained: Ids of those that a trained sense has most of the say about.
        marked: What marks of events came to, of those prompts that follow any, by id.
        bridge_shares: By ``seen`` and ``heard`` float32 ``(P,)``: how much of each score text has a say in.
    """

    def __init__(
        self,
        generation: int,
        prompts: Sequence[Prompt],
        embeddings: PromptEmbeddings,
        allowed_cells: Tensor | None,
        calibrations: Calibrations,
        exit_ratio: float = EXIT_RATIO,
        scalings: tuple[Scaling, Scaling] | None = None,
        parts: Parts | None = None,
    ) -> None:
        self.generation = generation
        self.table = PromptTable(prompts)
        self.keys = tuple((prompt.id, prompt.version) for prompt in prompts)
        self.embeddings = embeddings
        self.allowed_cells = allowed_cells
        self.parts = parts or Parts.of(None, embeddings)
        self.trained = frozenset(prompts[column].id for column in self.parts.columns())
        self.bridge_shares = _bridge_shares(self.parts, embeddings.looks, len(prompts))
        self.marked = {prompt.id: prompt.marked for prompt in prompts if prompt.marked is not None}
        self._own = _own_curves(prompts, self.marked)
        lowest, modality = exit_ratio * self.table.lowest, embeddings.modality
        unscaled = Scaling.none(len(prompts))
        self.seen_scaling, self.heard_scaling = scalings or (unscaled, unscaled)
        self.seen_floors = self.seen_scaling.back(
            _floors(calibrations.seen, lowest, modality, self._own["seen"], deaf_to="audio")
        )
        self.heard_floors = self.heard_scaling.back(
            _floors(calibrations.heard, lowest, modality, self._own["heard"], deaf_to="video")
        )
        if embeddings.looks is not None:  # an estimate would not do: it is only a part of the score
            self.seen_floors[embeddings.looks.rows] = float("-inf")
        self._views: dict[str, tuple[Mapping[str, str], TrackedPrompts]] = {}

    def judge(self, seen_raw: NDArray[np.float32], heard_raw: NDArray[np.float32]) -> Judged:
        """Confidence, the picture's own and the sound's own, each as ``(..., P)`` as what they come from.

        Args:
            seen_raw: Log-odds of the picture, less what is usual for the stream; NaN where there was none.
            heard_raw: Likewise of the sound.
        """
        if self.marked:
            seen_raw = self._own["seen"][0] * seen_raw + self._own["seen"][1]
            heard_raw = self._own["heard"][0] * heard_raw + self._own["heard"][1]
        seen, heard = probability_of(seen_raw), probability_of(heard_raw)
        confidence = fuse(seen, heard, self.embeddings.modality)
        confidence[np.isnan(seen) & np.isnan(heard)] = np.nan
        return confidence, seen, heard

    def of_stream(self, stream: str, labels: Mapping[str, str]) -> TrackedPrompts:
        """The prompts as one stream sees them."""
        known = self._views.get(stream)
        if known is None or known[0] != labels:
            if len(self._views) >= _MAX_VIEWS:  # streams that are gone: those that live are made again
                self._views.clear()
            known = (labels, self.table.of_stream(stream, labels))
            self._views[stream] = known
        return known[1]


class PromptEmbedder:
    """Makes prompt sets; a text is embedded once for as long as some prompt uses it.

    Args:
        encoders: Their text encoders, and the picture's grid, which regions are laid on.
        calibrations: Say which score a threshold is.
        exit_ratio: From this share of its threshold on, a confidence can hold an event open.
        normaliser: Makes the scores of different prompts comparable.
        learned: What was trained for some kinds of event.
        contrast: What counts against prompts that name no contrast of their own.
    """

    def __init__(
        self,
        encoders: Encoders,
        calibrations: Calibrations,
        exit_ratio: float = EXIT_RATIO,
        normaliser: Normaliser | None = None,
        learned: Learned | None = None,
        *,
        contrast: Sequence[str] = (),
    ) -> None:
        self._learned = learned
        self._contrast = tuple(contrast)
        normaliser = normaliser or Normaliser()
        self._seen_bank = normaliser.seen
        self._scales = Scales(normaliser.seen), Scales(normaliser.heard)
        self._picture_text = _Remembering(encoders.picture_text)
        shares_text = encoders.sound_text is encoders.picture_text
        self._sound_text = self._picture_text if shares_text else _Remembering(encoders.sound_text)
        self._encoders = encoders
        self._calibrations = calibrations
        self._exit_ratio = exit_ratio

    def embed(self, generation: int, prompts: Sequence[Prompt]) -> PromptSet:
        """Embed what is new, and put the set together."""
        models = model_digest(self._encoders, self._learned)
        prompts = [prompt if _counts(prompt, models) else prompt.model_copy(update=_UNMARKED) for prompt in prompts]
        texts = [
            PromptText(prompt.text, prompt.phrasings, prompt.contrast or self._contrast, prompt.modality)
            for prompt in prompts
        ]
        encoders = Encoders(self._encoders.picture, self._picture_text, self._encoders.sound, self._sound_text)
        embeddings = embed_prompts(texts, encoders)
        used = {text for prompt in texts for text in (prompt.text, *prompt.phrasings, *prompt.contrast)}
        for encoder in {self._picture_text, self._sound_text}:
            encoder.keep(used)
        allowed = self._allowed_cells(prompts)
        drawn = self._drawn(prompts, embeddings)
        scalings = self._scales[0].of(drawn.picture.vectors), self._scales[1].of(drawn.sound.vectors)
        parts = Parts.of(self._learned, embeddings)
        return PromptSet(generation, prompts, drawn, allowed, self._calibrations, self._exit_ratio, scalings, parts)

    def _with_examples(self, prompts: Sequence[Prompt]) -> dict[int, Drawn]:
        """By row the examples of prompts that these very encoders drew."""
        mark = self._encoders.picture.sha256[:8] + self._encoders.sound.sha256[:8]
        return {
            row: prompt.examples
            for row, prompt in enumerate(prompts)
            if prompt.examples is not None and prompt.examples.of == mark
        }

    def _drawn(self, prompts: Sequence[Prompt], embeddings: PromptEmbeddings) -> PromptEmbeddings:
        """The queries of prompts with examples of these very encoders replaced. What was trained goes by text alone."""
        fit = self._with_examples(prompts)
        if not fit:
            return embeddings
        seen = {row: base64.b64decode(kept.seen) for row, kept in fit.items() if kept.seen is not None}
        heard = {row: base64.b64decode(kept.heard) for row, kept in fit.items() if kept.heard is not None}
        # It is known of whole frames alone, so a region goes without.
        looks = {
            row: base64.b64decode(kept.looks)
            for row, kept in fit.items()
            if kept.looks is not None and prompts[row].region is None
        }
        return replace(
            embeddings,
            picture=with_queries(embeddings.picture, seen),
            sound=with_queries(embeddings.sound, heard),
            looks=Looks.of(looks, self._seen_bank),
        )

    def doubts(self, prompts: Sequence[Prompt]) -> dict[str, str]:
        """By id, what the author of a prompt should know of how its text is read."""
        found = {prompt.id: doubt_about(prompt.text, self._encoders.picture_text) for prompt in prompts}
        return {prompt_id: doubt for prompt_id, doubt in found.items() if doubt}

    def _allowed_cells(self, prompts: Sequence[Prompt]) -> Tensor | None:
        if all(prompt.region is None for prompt in prompts):
            return None
        rows, columns = self._encoders.picture.grid
        allowed = np.ones((len(prompts), rows * columns), np.bool_)
        for row, prompt in enumerate(prompts):
            if prompt.region is not None:
                allowed[row] = cells_of(prompt.region, rows, columns).reshape(-1)
        return torch.from_numpy(allowed)


class AlignStage:
    """Scores batches against the prompts that stand now. Owned by one thread.

    A frame's scores do not depend on the window it is in, so they are kept with its tokens while windows still share
    them, and a window takes its best frame. The same holds for stretches of sound.

    Args:
        prompts: Gives the newest prompt set.
        calibrations: Scores to probabilities.
        grid: Rows and columns of a picture's cells.
        aligner: The cross-attention.
    """

    def __init__(
        self,
        prompts: Callable[[], PromptSet],
        calibrations: Calibrations,
        grid: tuple[int, int],
        aligner: Aligner | None = None,
    ) -> None:
        self._prompts = prompts
        self._calibrations = calibrations
        self._grid = grid
        self._aligner = aligner or Aligner()
        self._scored_with: PromptSet | None = None
        self._seen: weakref.WeakKeyDictionary[Encoded, NDArray[np.float32]] = weakref.WeakKeyDictionary()
        self._heard: weakref.WeakKeyDictionary[Encoded, NDArray[np.float32]] = weakref.WeakKeyDictionary()

    @property
    def prompts(self) -> PromptSet:
        """The prompts that stand now."""
        return self._prompts()

    def align(self, tokens: Tokens) -> tuple[Alignment, PromptSet]:
        """Score every window of a batch against every prompt; gives the set that was used, too."""
        prompts = self._prompts()
        if prompts is not self._scored_with:
            self._seen.clear()
            self._heard.clear()
            self._scored_with = prompts
        self._score(tokens.fresh_frames, tokens.frames, self._seen, lambda block: self._see(block, prompts))
        self._score(tokens.fresh_sounds, tokens.sounds, self._heard, lambda block: self._hear(block, prompts))
        count = len(prompts.table)
        best = _best(tokens.frames, self._seen, count)
        if prompts.parts.moved is not None:
            of_motions(best, tokens, prompts.parts.moved, self._calibrations.seen)
        seen = self._calibrations.seen.logit(best)
        heard = self._calibrations.heard.logit(_best(tokens.sounds, self._heard, count))
        return Alignment(*prompts.judge(seen, heard), seen, heard), prompts

    def audit(self, tokens: Tokens) -> list[float]:
        """By how much reuse changed the confidence of the prompt it changed most, for each audited frame."""
        errors = []
        for taken, own in tokens.audits:
            if taken in self._seen and own in self._seen and len(self._seen[own]):
                pair = self._calibrations.seen.probability(np.stack((self._seen[taken], self._seen[own])))
                errors.append(float(np.abs(pair[0] - pair[1]).max()))
        return errors

    def evidence(self, tokens: Tokens, row: int, column: int, prompts: PromptSet) -> Evidence:
        """Where and when one prompt matches one window best; no place where only sound can match.

        Args:
            tokens: Of the batch that was aligned last.
            row: The window.
            column: The prompt.
            prompts: The set that `align` used.
        """
        window, frames = tokens.windows[row], tokens.frames[row]
        span_us = (window.start_us, window.end_us)
        since_us = min(window.start_us, frames[0].encoded_us) if frames else window.start_us
        if not frames or prompts.table.prompts[column].modality == "audio":
            return Evidence(None, None, (), span_us, since_us)
        best = max(range(len(frames)), key=lambda index: float(self._seen[frames[index]][column]))
        allowed = None if prompts.allowed_cells is None else prompts.allowed_cells[column]
        motion = place_of_motion(tokens, row, column, prompts.parts.moved, self._grid)
        if motion is not None:
            middle_us, grid = motion
            nearest = int(np.abs(window.times_us - middle_us).argmin())
            return Evidence(region_of(grid), int(window.times_us[nearest]), _rounded(grid), span_us, since_us)
        query = prompts.embeddings.picture.vectors[column].to(frames[best].tokens.device)
        weights = self._aligner.attention(frames[best].tokens, query, allowed, self._grid)
        if prompts.parts.seen is not None:
            weights = prompts.parts.seen.attention(weights, frames[best].tokens, column, allowed)
        grid = weights.cpu().numpy().reshape(self._grid).astype(np.float64)
        return Evidence(region_of(grid), int(window.times_us[best]), _rounded(grid), span_us, since_us)

    def _score(
        self,
        fresh: Fresh | None,
        needed: Sequence[Sequence[Encoded]],
        known: "weakref.WeakKeyDictionary[Encoded, NDArray[np.float32]]",
        score: Callable[[Fresh], Tensor],
    ) -> None:
        """Score what is fresh as the block it comes in, and what lacks scores because the prompts changed."""
        missing = {item for items in needed for item in items if item not in known}
        if fresh is not None:
            known.update(zip(fresh.items, score(fresh).cpu().numpy(), strict=True))
            missing.difference_update(fresh.items)
        if missing:
            items = tuple(missing)
            tokens = torch.stack([item.tokens for item in items])
            whole = torch.stack([item.whole for item in items])
            known.update(zip(items, score(Fresh(items, tokens, whole)).cpu().numpy(), strict=True))

    def _see(self, block: Fresh, prompts: PromptSet) -> Tensor:
        queries = prompts.embeddings.picture.to(block.tokens.device)
        floors = prompts.seen_floors
        scores = self._aligner.pictures(block.tokens, block.whole, queries, prompts.allowed_cells, floors)
        scores = _of_looks(prompts.seen_scaling(scores), block, prompts.embeddings.looks)
        if prompts.parts.seen is None:
            return scores
        return of_frames(scores, block, prompts.parts.seen, self._calibrations.seen, prompts.allowed_cells)

    def _hear(self, block: Fresh, prompts: PromptSet) -> Tensor:
        queries = prompts.embeddings.sound.to(block.tokens.device)
        scores = self._aligner.sounds(block.tokens, block.whole, queries, prompts.heard_floors)
        scores = prompts.heard_scaling(scores)
        if prompts.parts.heard is None:
            return scores
        return of_sounds(scores, block, prompts.parts.heard, self._calibrations.heard)


def _of_looks(scores: Tensor, block: Fresh, looks: Looks | None) -> Tensor:
    """Scores ``(N, P)``, those of prompts with examples mixed with how much each frame looks like them."""
    features = [item.features for item in block.items if item.features is not None]
    if looks is None or len(features) != len(block.items):
        return scores
    share = torch.full((len(looks.rows),), LOOKS_SHARE, device=scores.device)
    return blend(scores, looks(torch.stack(features)).to(scores.device), share, looks.rows.to(scores.device))


class _Remembering:
    """A text encoder that embeds a text once."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._known: dict[str, NDArray[np.float32]] = {}
        self.name, self.sha256, self.dim = encoder.name, encoder.sha256, encoder.dim

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``K`` texts to float32 ``(K, D)``."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode(new), strict=True))
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return np.stack([self._known[text] for text in texts])

    def keep(self, used: set[str]) -> None:
        """Forget every other text."""
        for text in self._known.keys() - used:
            del self._known[text]


def limit_torch(threads: int) -> None:
    """Let torch use so many threads of this process from now on.

    By default it takes every core, and its threads wait for each other by spinning: beside decoders and an encoder
    with threads of its own that costs more than it gains.
    """
    torch.set_num_threads(threads)


def cells_of(region: Polygon, rows: int, columns: int) -> NDArray[np.bool_]:
    """The cells, ``(rows, columns)``, of which a region covers a fair part; at least the one it covers most of."""
    fine = rasterise([region], rows * _FINE, columns * _FINE)
    share = fine.reshape(rows, _FINE, columns, _FINE).mean(axis=(1, 3))
    return np.asarray(share >= min(_CELL_SHARE, float(share.max())))


def _rounded(grid: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(float(value), 4) for value in line) for line in grid)


def region_of(grid: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """The box ``(x0, y0, x1, y1)``, 0..1, around the fewest cells that hold `REGION_SHARE` of the attention."""
    order = np.argsort(-grid, axis=None, kind="stable")
    total = np.cumsum(grid.reshape(-1)[order])
    count = int(np.searchsorted(total, REGION_SHARE * total[-1])) + 1
    rows, columns = np.unravel_index(order[:count], grid.shape)
    height, width = grid.shape
    return (
        float(columns.min() / width),
        float(rows.min() / height),
        float((columns.max() + 1) / width),
        float((rows.max() + 1) / height),
    )


def _best(
    items: Sequence[Sequence[Encoded]], known: Mapping[Encoded, NDArray[np.float32]], count: int
) -> NDArray[np.float32]:
    """The best score of each window, float32 ``(B, P)``; NaN where it has nothing."""
    best = np.full((len(items), count), np.nan, np.float32)
    for row, mine in enumerate(items):
        for item in set(mine):
            np.fmax(best[row], known[item], out=best[row])
    return best


def model_digest(encoders: Encoders, learned: Learned | None) -> str:
    """What judges: a digest of the encoders and of what was trained."""
    trained = "" if learned is None else learned.sha256
    return hashlib.sha256(f"{encoders.picture.sha256}{encoders.sound.sha256}{trained}".encode()).hexdigest()


def _counts(prompt: Prompt, models: str) -> bool:
    """Whether a prompt's own curve, if it has one, is of these models and of what it asks."""
    marked = prompt.marked
    return marked is None or (marked.asks == prompt.asks and models.startswith(marked.of))


def _own_curves(prompts: Sequence[Prompt], marked: Mapping[str, Marked]) -> dict[str, NDArray[np.float32]]:
    """By sense float32 ``(2, P)``: scale and shift of log-odds, of most prompts 1 and 0."""
    own = {name: np.array([[1.0], [0.0]], np.float32).repeat(len(prompts), 1) for name in ("seen", "heard")}
    for column, prompt in enumerate(prompts):
        if (mine := marked.get(prompt.id)) is not None:
            own["seen"][:, column], own["heard"][:, column] = mine.seen or (1, 0), mine.heard or (1, 0)
    return own


def _bridge_shares(parts: Parts, looks: Looks | None, count: int) -> dict[str, NDArray[np.float32]]:
    shares = {"seen": np.ones(count, np.float32), "heard": np.ones(count, np.float32)}
    for name, part in (("seen", parts.seen), ("seen", parts.moved), ("heard", parts.heard)):
        if part is not None:
            shares[name][part.rows.numpy()] *= 1 - part.shares.numpy()
    if looks is not None:
        shares["seen"][looks.rows.numpy()] *= 1 - LOOKS_SHARE
    return shares


def _floors(
    calibration: Calibration,
    lowest: NDArray[np.float32],
    modality: NDArray[np.str_],
    own: NDArray[np.float32],
    *,
    deaf_to: str,
) -> Tensor:
    """The lowest score of one sense that can bring a confidence to ``lowest``; infinite where it has no say.

    Two senses that are each under ``1 - sqrt(1 - p)`` stay under ``p`` together (noisy or).
    """
    probability = np.where(modality == "any", 1 - np.sqrt(1 - lowest), lowest).astype(np.float32)
    common = probability_of((logit_of(probability) - own[1]) / own[0])
    floors = np.where(modality == deaf_to, np.float32(np.inf), calibration.score(common))
    return torch.from_numpy(floors.astype(np.float32))
