"""What training adds to the dense bridge, for a few kinds of event: a learned cross-attention from prompt to tokens.

A prompt takes part as far as its text says that it means one of those kinds (its *route*); every other prompt has a
route of exactly 0 and keeps its score to the bit. One file holds the senses by name: ``seen`` looks at the cells of a
frame, ``moved`` at the motion tokens of a window, ``heard`` at the tokens of a stretch of sound.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.calibrate import Calibration
from models.encoders import PictureEncoder, SoundEncoder
from models.errors import ModelError
from models.heard import KindHeads
from models.integrity import load_safetensors, sha256_of
from models.runtime import cache_folder

SENSES = ("seen", "moved", "heard")
FORMAT = 1
DOUBT = -0.4  # a logit: from a confidence of 0.4 on a sense may hold back
COMPACT = frozenset({"efficientnet-lite0", "watchword-sound"})


class AttentionNet(nn.Module):
    """Logits of prompts from tokens: self-attention over tokens, then cross-attention from each prompt.

    What a prompt attends to, the tokens' mean and maximum, and the whole are compared with the prompt in a common
    space of few dimensions. A small flame is in the maximum, a burning house in the mean.

    Args:
        token_dim: Length of a token.
        query_dim: Length of a prompt's vector.
        width: Of the common space; a multiple of ``heads``.
        heads: Of the attention.
        layers: Of self-attention over the tokens, 0 or more.
        dropout: While training.
    """

    def __init__(
        self, token_dim: int, query_dim: int, width: int = 64, heads: int = 4, layers: int = 1, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.heads = heads
        self.token = nn.Linear(token_dim, width)
        self.query = nn.Linear(query_dim, width)
        self.mixing = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.gates = nn.Linear(width, 4 * width)
        self.bias = nn.Linear(width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, whole: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Compare.

        Args:
            tokens: float32 ``(N, S, D)``.
            whole: float32 ``(N, D)``.
            queries: float32 ``(R, Q)``.

        Returns:
            Logits ``(N, R)``, and the attention ``(N, R, S)``, each row summing to 1.
        """
        inner = self.dropout(self.token(tokens))
        for layer in self.mixing:
            inner = layer(inner)
        query = self.query(queries)
        count, places, width = inner.shape
        key = self.key(inner).view(count, places, self.heads, -1)
        asked = query.view(len(queries), self.heads, -1)
        likeness = torch.einsum("rhd,nshd->nrhs", asked, key) / (width / self.heads) ** 0.5
        attention = likeness.softmax(-1)
        value = self.value(inner)
        attended = torch.einsum("nrhs,nshd->nrhd", attention, value.view(count, places, self.heads, -1)).flatten(2)
        gate = self.gates(functional.gelu(query)).view(len(queries), 4, width)
        shared = torch.stack((value.mean(1), value.amax(1), self.value(self.token(whole))), 1)
        logits = torch.einsum("nrw,rw->nr", self.dropout(attended), gate[:, 0])
        logits = logits + torch.einsum("nkw,rkw->nr", self.dropout(shared), gate[:, 1:])
        return logits / width**0.5 + self.bias(functional.gelu(query)).T, attention.mean(2)


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """Which prompts mean one of ``K`` kinds of event.

    A prompt's route to a kind rises from 0 to 1 with its similarity to the nearest phrasing of it, and with how far
    that is ahead of the nearest text that means something else.

    Attributes:
        kinds: Names, ``K`` of them.
        texts: float32 ``(M, Q)``, unit length: phrasings of every kind, then texts that mean none.
        kind: int64 ``(M,)``, the kind of each; -1: none.
        near: Similarity at which the route begins to rise, and at which it is 1.
        ahead: Likewise how far ahead.
    """

    kinds: tuple[str, ...]
    texts: Tensor
    kind: Tensor
    near: tuple[float, float]
    ahead: tuple[float, float]

    def route(self, vectors: Tensor) -> Tensor:
        """Float32 ``(P, Q)``, unit length, to ``(P, K)``, 0 to 1, rows summing to at most 1."""
        if not len(vectors):
            return vectors.new_zeros((0, len(self.kinds)))
        likeness, kind = vectors @ self.texts.to(vectors).T, self.kind.to(vectors.device)
        own = torch.stack([likeness[:, kind == number].amax(1) for number in range(len(self.kinds))], 1)
        other = likeness[:, kind < 0].amax(1, keepdim=True) if (kind < 0).any() else own.new_tensor(-1.0)
        routes = _ramp(own, *self.near) * _ramp(own - other, *self.ahead)
        return routes / routes.sum(1, keepdim=True).clamp_min(1)


def _ramp(values: Tensor, low: float, high: float) -> Tensor:
    return ((values - low) / (high - low)).clamp(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class LearnedSense:
    """One sense's trained part.

    Attributes:
        name: One of `SENSES`.
        gate: Who takes part.
        net: From tokens and queries to ``(logits (N, R), attention (N, R, S))``.
        curves: float32 ``(K, 2)``: slope and bias of each kind that turn the net's logit into a calibrated one; or
            ``(K, 3)``, then the calibrated logit from which on it is more likely than not, see `bend`.
        shape: The net's arguments.
        note: What it was trained on, for the model card.
    """

    name: str
    gate: Gate
    net: nn.Module
    curves: Tensor
    shape: Mapping[str, float]
    note: Mapping[str, str] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it was trained for."""
        return self.gate.kinds

    @property
    def asking(self) -> Tensor:
        """What each kind is asked for with, its first phrasing: ``(K, Q)``."""
        first = [int((self.gate.kind == number).nonzero()[0]) for number in range(len(self.kinds))]
        return self.gate.texts[first]

    def route(self, vectors: Tensor) -> Tensor:
        """See `Gate.route`."""
        return self.gate.route(vectors)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.curves.device

    def logits(self, tokens: Tensor, whole: Tensor, queries: Tensor) -> Tensor:
        """Calibrated logits: ``(N, S, D)``, ``(N, D)`` and ``(R, Q)`` to ``(N, R)``."""
        return self.calibrated(tokens, whole, queries, self.curves_of(queries))

    def curves_of(self, queries: Tensor) -> Tensor:
        """How each query's logits are calibrated: ``(R, Q)`` to slope, bias and what else there is, ``(R, 2 or 3)``.

        As the kinds are that it is routed to; one that is routed nowhere as all of them.
        """
        shares = self.route(queries)
        shares = torch.where(shares.sum(1, keepdim=True) > 0, shares, torch.ones_like(shares))
        return (shares / shares.sum(1, keepdim=True)) @ self.curves.to(queries)

    @torch.inference_mode()
    def calibrated(self, tokens: Tensor, whole: Tensor, queries: Tensor, curves: Tensor) -> Tensor:
        """`logits`, for queries whose curves are known."""
        raw, _ = self.net(tokens, whole, queries)
        calibrated: Tensor = raw * curves[:, 0] + curves[:, 1]
        return calibrated if curves.shape[1] < 3 else bend(calibrated, curves[:, 2])

    @torch.inference_mode()
    def attention(self, tokens: Tensor, query: Tensor) -> Tensor:
        """Where one prompt looks in one frame: ``(S, D)`` and ``(Q,)`` to ``(S,)``, summing to 1."""
        _, weights = self.net(tokens[None], tokens.mean(0, keepdim=True), query[None])
        inside: Tensor = weights[0, 0]
        return inside

    def to(self, device: torch.device | str) -> "LearnedSense":
        """The same on another device; the net itself moves."""
        gate = Gate(self.kinds, self.gate.texts.to(device), self.gate.kind.to(device), self.gate.near, self.gate.ahead)
        return LearnedSense(self.name, gate, self.net.to(device), self.curves.to(device), self.shape, self.note)


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """All trained senses of one family of encoders.

    Attributes:
        senses: By name; any may be missing.
        sha256: Of the weight file.
        encoder: The picture encoder that it was trained on.
    """

    senses: Mapping[str, LearnedSense]
    sha256: str = ""
    encoder: str = ""

    @property
    def seen(self) -> LearnedSense | None:
        """Over cells of a frame."""
        return self.senses.get("seen")

    @property
    def moved(self) -> LearnedSense | None:
        """Over motion tokens of a window."""
        return self.senses.get("moved")

    @property
    def heard(self) -> LearnedSense | None:
        """Over tokens of a stretch of sound."""
        return self.senses.get("heard")

    def to(self, device: torch.device | str) -> "Learned":
        """The same on another device."""
        return Learned({name: sense.to(device) for name, sense in self.senses.items()}, self.sha256, self.encoder)


def bend(logits: Tensor, even: Tensor) -> Tensor:
    """Hold a calibrated logit under even odds until it reaches ``even``, and go on from there as before.

    What labelled clips are fitted to is one thing, what a camera hears all day another: on the street a logit that half
    of the clips with it deserve is met by accident every few minutes. Up to `DOUBT` nothing changes; from there to
    ``even`` a logit rises to 0, slowly but always, so that no order is lost.

    Args:
        logits: ``(..., R)``.
        even: ``(R,)``, 0 or more: 0 changes nothing.
    """
    slow = -DOUBT / (even - DOUBT)
    held = torch.minimum((logits - DOUBT).clamp_min(0), even - DOUBT)
    return logits.clamp_max(DOUBT) + slow * held + (logits - even).clamp_min(0)


def score_units(logits: Tensor, prior: Calibration) -> Tensor:
    """Calibrated logits as the scores to which the prior curve gives the same probability."""
    return (logits - prior.bias) / prior.slope


def blend(scores: Tensor, learned: Tensor, routes: Tensor, rows: Tensor) -> Tensor:
    """Bridge and learned scores of the routed prompts mixed, the others as they are.

    Args:
        scores: ``(N, P)``.
        learned: ``(N, R)``, in units of score.
        routes: ``(R,)``, 0 to 1: the share of the learned score.
        rows: int64 ``(R,)``, the prompts' columns.
    """
    mixed = scores.clone()
    mixed[:, rows] = torch.lerp(scores[:, rows], learned, routes)
    return mixed


def fit_gate(kinds: Sequence[str], texts: Sequence[Tensor], others: Tensor) -> Gate:
    """Make a gate from the phrasings of each kind ``(n, Q)`` and texts that mean none of them ``(m, Q)``.

    Where it opens is told from what is usual, how near a phrasing is to the nearest other one of its kind (the lower
    quartile), and what is foreign, how near the other texts come (the median): it begins to open a third of the way
    from foreign to usual, and is open at two thirds.
    """
    nearest, alien = [], []
    for mine in texts:
        likeness = mine @ mine.T
        nearest.append(likeness.fill_diagonal_(-1).amax(1))
        alien.append((others @ mine.T).amax(1))
    usual = float(torch.cat(nearest).quantile(0.25))
    foreign = float(torch.cat(alien).quantile(0.5))
    step = max(0.02, (usual - foreign) / 3)
    kind = torch.cat([torch.full((len(mine),), number) for number, mine in enumerate(texts)])
    kind = torch.cat((kind, torch.full((len(others),), -1)))
    return Gate(tuple(kinds), torch.cat((*texts, others)), kind, (usual - 2 * step, usual - step), (0.0, step / 2))


def save_senses(path: Path, senses: Mapping[str, LearnedSense], encoder: str) -> str:
    """Write senses over those of the same name in a file, keep its others, and return the file's digest.

    Args:
        path: Of the weights; a header beside it, ``.json``, says what they are and their digest.
        senses: By name, one of `SENSES`.
        encoder: Name of the encoder that the tokens come from.

    Raises:
        ModelError: A file that is there is altered, or a sense is called otherwise.
    """
    from safetensors.torch import save_file  # models import with torch and numpy alone

    strange = set(senses) - set(SENSES)
    if strange:
        raise ModelError(f"no sense is called {', '.join(sorted(strange))}; there are {', '.join(SENSES)}")
    kept = dict(load_learned_file(path).senses) if path.is_file() else {}
    kept.update(senses)
    tensors: dict[str, Tensor] = {}
    header: dict[str, object] = {"format": FORMAT, "encoder": encoder}
    described = {}
    for name, sense in sorted(kept.items()):
        parts = {"gate.texts": sense.gate.texts, "gate.kind": sense.gate.kind, "curves": sense.curves}
        parts |= {f"net.{key}": value for key, value in sense.net.state_dict().items()}
        for key, value in parts.items():
            small = value.half() if value.is_floating_point() and key != "curves" else value
            tensors[f"{name}.{key}"] = small.detach().cpu().contiguous()
        described[name] = {
            "kinds": list(sense.kinds),
            "near": list(sense.gate.near),
            "ahead": list(sense.gate.ahead),
            "net": dict(sense.shape),
            "note": dict(sense.note),
        }
    save_file(tensors, path)
    digest = sha256_of(path)
    header |= {"sha256": digest, "senses": described}
    path.with_suffix(".json").write_text(json.dumps(header, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return digest


def learned_file(encoder: PictureEncoder | SoundEncoder, folder: Path) -> Path:
    """Where the weights for an encoder lie: those for the default ones in ``folder``, others in the cache."""
    if encoder.name in COMPACT:
        return folder / "learned.safetensors"
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", encoder.name)
    return cache_folder() / f"learned-{plain}-{encoder.sha256[:12]}.safetensors"


def load_learned_file(path: Path) -> Learned:
    """Read what `save_senses` wrote.

    Raises:
        ModelError: A file is missing or altered, or of another format.
    """
    described = path.with_suffix(".json")
    try:
        header = json.loads(described.read_text(encoding="utf-8"))
        expected, entries, encoder = header["sha256"], header["senses"], header["encoder"]
        version = header["format"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{described} is missing or no header of trained weights; install watchword again") from error
    if version != FORMAT:
        raise ModelError(f"{path} has format {version}, this version reads {FORMAT}; train it again")
    found = sha256_of(path) if path.is_file() else "missing"
    if found != expected:
        raise ModelError(
            f"trained weights {path} are altered: SHA-256 {found[:16]}, expected {expected[:16]}; install them again"
        )
    tensors = load_safetensors(path)
    return Learned({name: _sense(name, entry, tensors) for name, entry in entries.items()}, expected, encoder)


def _sense(name: str, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LearnedSense:
    try:
        shape = entry["net"]
        net: nn.Module = KindHeads(**shape) if "kinds" in shape else AttentionNet(**shape)
        prefix = f"{name}.net."
        net.load_state_dict(
            {key.removeprefix(prefix): value.float() for key, value in tensors.items() if key.startswith(prefix)}
        )
        near, ahead = entry["near"], entry["ahead"]
        gate = Gate(
            tuple(entry["kinds"]),
            functional.normalize(tensors[f"{name}.gate.texts"].float(), dim=-1),
            tensors[f"{name}.gate.kind"].long(),
            (near[0], near[1]),
            (ahead[0], ahead[1]),
        )
        return LearnedSense(name, gate, net.eval(), tensors[f"{name}.curves"].float(), shape, entry["note"])
    except (KeyError, IndexError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the trained weights of {name!r} do not fit this version: {reason}; train them again"
        ) from error
