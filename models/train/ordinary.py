"""The recipe of ``models/weights/ordinary.safetensors``: tokens of ordinary pictures, names of sounds.

    python -m models.train.ordinary MANIFEST ROOT models/weights/ordinary.safetensors

Pictures: frames of the licensed rows of `train` on which no label holds, of every second group, so that curves can be
fitted on the rest. Tokens are means of class names' embeddings: no picture can be made of them again.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from models.audio import SOUND_SHA256, WEIGHTS, load_sound_net
from models.encoders import Encoders
from models.integrity import load_safetensors, sha256_of
from models.load import load_encoders
from models.normalise import digest_of
from models.train.token_cache import Case, TokenCache, read_cases

FRAMES = 96
OF_A_VIDEO = 3


def is_in_bank(case: Case) -> bool:
    """Whether a case may be in the bank, and so may not be fitted on: by a lot that its group draws."""
    is_ordinary = case.split == "train" and case.is_licensed and not case.labels and case.kind != "audio"
    return is_ordinary and hashlib.sha256(case.group.encode()).digest()[0] % 2 == 0


def gather(cases: Sequence[Case], cache: TokenCache) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames of ordinary pictures, as many of videos as of photos if there are.

    Returns:
        Tokens ``(N, S, D)``, wholes ``(N, D)`` and features ``(N, F)``.
    """
    order = np.random.default_rng(0).permutation(len(cases))
    chosen = [cases[place] for place in order if is_in_bank(cases[place])]
    tokens, whole, features = [], [], []
    for kind in ("video", "image"):
        count = 0
        for case in (case for case in chosen if case.kind == kind):
            found = cache.of(case.path, kind)
            rows = torch.linspace(0, len(found.whole) - 1, min(OF_A_VIDEO, len(found.whole))).long()
            count += len(rows)
            tokens.append(found.tokens[rows])
            whole.append(found.whole[rows])
            features.append(cache.features(case.path, kind)[rows])
            if count >= FRAMES // 2:
                break
    return torch.cat(tokens)[:FRAMES], torch.cat(whole)[:FRAMES], torch.cat(features)[:FRAMES]


def round_to_bytes(vectors: torch.Tensor) -> torch.Tensor:
    """Unit vectors to int8, each by its own largest value: its length is made 1 again when it is read."""
    return (vectors / vectors.abs().amax(-1, keepdim=True) * 127).round().to(torch.int8)


def sound_names() -> torch.Tensor:
    """Embeddings of the sound classes' names in the space of sound tokens: ``(521, D)``."""
    _, whitening = load_sound_net(WEIGHTS, SOUND_SHA256)
    names = functional.normalize(load_safetensors(WEIGHTS)["class_embeddings"].float(), dim=-1)
    return functional.pad(whitening(names), (0, 1))


def main(manifest: Path, root: Path, out: Path, encoders: Encoders, folder: Path) -> None:
    """Write the bank, print its digest and what a typical prompt's mean and spread are."""
    tokens, whole, features = gather(read_cases(manifest), TokenCache(root, folder, encoders))
    bank = {
        "seen_tokens": round_to_bytes(tokens),
        "seen_whole": round_to_bytes(whole),
        "seen_features": features.half(),
        "seen_of": digest_of(encoders.picture.sha256),
        "heard_whole": round_to_bytes(sound_names()),
        "heard_of": digest_of(encoders.sound.sha256),
    }
    save_file({name: tensor.contiguous() for name, tensor in bank.items()}, out)
    sys.stdout.write(f"{out}: {len(tokens)} frames, SHA-256 {sha256_of(out)}\n")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        Path(sys.argv[3]),
        load_encoders(),
        Path(sys.argv[4] if len(sys.argv) > 4 else "build/tokens"),
    )
