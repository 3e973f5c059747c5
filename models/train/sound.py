"""Distil the sound network from a teacher.

    python -m models.train.sound_corpus --clips shared/data/manifest.csv --out build/sound-corpus
    python -m models.train.sound --teacher yamnet.tflite --classes yamnet_class_map.csv --corpus build/sound-corpus \
        --out models/weights/sound.safetensors

Mixtures are labelled once (`models/train/sound_label.py`) and heard several times. The student learns the teacher's
class probabilities and, through a projection that is thrown away afterwards, its embedding (Hinton et al. 2015; Romero
et al. 2015).
"""

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.random import Generator
from torch import nn
from torch.nn import functional
from tqdm import tqdm  # type: ignore[import-untyped]  # types-tqdm is not worth a dependency

from models.errors import ModelError
from models.integrity import sha256_of
from models.load import load_compact_text
from models.sound_net import CLASSES, FEATURES, SoundBackbone
from models.train.sound_label import EMBEDDING, EMBEDDING_SCALE, EMBEDDING_ZERO, Chunk, label, teacher_logits

LOGIT_FLOOR = -9.0  # below this the teacher's order of impossible classes is noise
LOGIT_WEIGHT, EMBEDDING_WEIGHT = 0.2, 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a run is made of.

    Attributes:
        passes: Times that each mixture is heard.
        batch_clips: Clips of two labelled patches each.
        peak_rate: Learning rate after warming up; it falls to nothing along half a cosine.
        decay: Weight decay.
        seed: Of weights and order.
        threads: Of torch.
    """

    passes: int = 6
    batch_clips: int = 64
    peak_rate: float = 2e-3
    decay: float = 0.02
    seed: int = 2026
    threads: int = 1


class Student(nn.Module):
    """The network with what only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SoundBackbone(has_norm=True)
        self.to_teacher = nn.Linear(FEATURES, EMBEDDING)

    def forward(self, frames: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hear ``(N, 192, 64)`` at tokens ``(N, 2)``: logits ``(N, 2, 521)`` and embeddings ``(N, 2, 1024)``."""
        features = self.backbone.features(frames)
        features = features.gather(1, tokens[..., None].expand(-1, -1, features.shape[2]))
        return self.backbone.classifier(features), self.to_teacher(features)


def batches(chunk: Chunk, size: int, random: Generator) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield frames, tokens, logits and embeddings in random order, a few bands and frames blanked (SpecAugment)."""
    order = random.permutation(len(chunk.frames))
    for first in range(0, len(order) - size + 1, size):
        rows = np.sort(order[first : first + size])
        frames = torch.from_numpy(chunk.frames[rows].astype(np.float32))
        if random.random() < 0.3:
            band = int(random.integers(0, 56))
            frames[:, :, band : band + int(random.integers(1, 8))] = -3.0
        embeddings = (chunk.embeddings[rows].astype(np.float32) - EMBEDDING_ZERO) * EMBEDDING_SCALE
        yield (
            frames,
            torch.from_numpy(chunk.tokens[rows].astype(np.int64)),
            torch.from_numpy(teacher_logits(chunk.logits[rows])),
            torch.from_numpy(embeddings),
        )


def losses(
    logits: torch.Tensor, embeddings: torch.Tensor, true_logits: torch.Tensor, true_embeddings: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What is minimised, in parts: bits about each class, its logit, the embedding."""
    scores = true_logits.sigmoid()
    own_entropy = functional.binary_cross_entropy_with_logits(true_logits, scores, reduction="none").sum(-1).mean()
    classes = functional.binary_cross_entropy_with_logits(logits, scores, reduction="none").sum(-1).mean()
    floored = functional.smooth_l1_loss(logits.clamp_min(LOGIT_FLOOR), true_logits.clamp_min(LOGIT_FLOOR))
    direction = 1 - functional.cosine_similarity(embeddings, true_embeddings, dim=-1).mean()
    return {
        "classes": classes - own_entropy,
        "logits": LOGIT_WEIGHT * floored,
        "embedding": EMBEDDING_WEIGHT * direction,
    }


def distil(chunks: list[Path], checked: Path, recipe: Recipe, checkpoint: Path, start: Path | None = None) -> Student:
    """Train a student; write a checkpoint and a line of losses after each pass over the chunks."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    random = np.random.default_rng(recipe.seed)
    student = Student()
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a stub lacks it
    if start is not None:
        student.load_state_dict(torch.load(start, weights_only=True))
    optimizer = torch.optim.AdamW(student.parameters(), recipe.peak_rate, weight_decay=recipe.decay, fused=True)
    probe = Chunk.load(chunks[0])
    steps = recipe.passes * len(chunks) * (len(probe.frames) // recipe.batch_clips)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_rate, total_steps=steps, pct_start=0.1)
    with tqdm(total=steps, desc="distil", mininterval=5) as bar:
        for number in range(recipe.passes):
            student.train()
            sums: dict[str, float] = {}
            for path in random.permutation(np.array(chunks, dtype=object)):
                for frames, tokens, true_logits, true_embeddings in batches(
                    Chunk.load(path), recipe.batch_clips, random
                ):
                    with torch.autocast("cpu", torch.bfloat16):
                        logits, embeddings = student(frames, tokens)
                    parts = losses(logits.float(), embeddings.float(), true_logits, true_embeddings)
                    optimizer.zero_grad()
                    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
                    nn.utils.clip_grad_norm_(student.parameters(), 2.0)
                    optimizer.step()
                    schedule.step()
                    bar.update()
                    for name, value in parts.items():
                        sums[name] = 0.98 * sums.get(name, float(value.detach())) + 0.02 * float(value.detach())
            held_back = check(student, checked)
            tqdm.write(json.dumps({"pass": number + 1, "train": sums, "held_back": held_back}))
            torch.save(student.state_dict(), checkpoint)
    return student


@torch.inference_mode()
def check(student: Student, path: Path) -> dict[str, float]:
    """Losses on mixtures that were not trained on."""
    student.eval()
    sums: dict[str, list[float]] = {}
    for frames, tokens, true_logits, true_embeddings in batches(Chunk.load(path), 100, np.random.default_rng(0)):
        logits, embeddings = student(frames, tokens)
        for name, value in losses(logits, embeddings, true_logits, true_embeddings).items():
            sums.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in sums.items()}


def fold_norms(trained: SoundBackbone) -> SoundBackbone:
    """Put each batch norm into the convolution before it."""
    folded = SoundBackbone(has_norm=False)
    state = {k: v for k, v in trained.state_dict().items() if ".norm." not in k}
    for number, block in enumerate(trained.blocks):
        norm, conv = cast("nn.BatchNorm2d", block.norm), cast("nn.Conv2d", block.conv)
        if norm.running_var is None or norm.running_mean is None or conv.bias is None:
            raise ModelError("a batch norm without running statistics cannot be folded; train the student first")
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        state[f"blocks.{number}.conv.weight"] = conv.weight * gain[:, None, None, None]
        state[f"blocks.{number}.conv.bias"] = (conv.bias - norm.running_mean) * gain + norm.bias
    folded.load_state_dict(state)
    return folded.eval()


def export(student: Student, ordinary: Path, names: list[str], out: Path) -> str:
    """Write what `models/audio.py` loads, float16.

    Args:
        student: Trained.
        ordinary: Mixtures that were not trained on, for what the network says of sound in general.
        names: Of the classes.
        out: A safetensors file.

    Returns:
        Its SHA-256.
    """
    from safetensors.torch import save_file  # as in models/integrity.py

    backbone = fold_norms(student.backbone)
    with torch.inference_mode():
        frames = [frames for frames, *_ in batches(Chunk.load(ordinary), 100, np.random.default_rng(0))]
        logits = torch.cat([backbone(part).flatten(0, 1) for part in frames])
    tensors = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    tensors["logit_mean"], tensors["logit_deviation"] = logits.mean(0), logits.std(0)
    tensors["class_embeddings"] = torch.from_numpy(load_compact_text().encode(names))
    save_file({name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}, out)
    out.chmod(0o644)
    return sha256_of(out)


def class_names(path: Path) -> list[str]:
    """The 521 display names of the teacher's class map."""
    with path.open(encoding="utf-8", newline="") as file:
        names = [row["display_name"] for row in csv.DictReader(file)]
    if len(names) != CLASSES:
        raise SystemExit(f"{path} names {len(names)} classes, {CLASSES} are expected")
    return names


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="distil the sound network")
    parser.add_argument("--teacher", type=Path, required=True, help="int8 YAMNet that takes log-mel patches")
    parser.add_argument("--classes", type=Path, required=True, help="its class map")
    parser.add_argument("--corpus", type=Path, default=Path("build/sound-corpus"))
    parser.add_argument("--mixtures", type=Path, default=Path("build/sound-mixtures"))
    parser.add_argument("--chunks", type=int, default=40, help="of 1,000 mixtures; one more is held back")
    parser.add_argument("--passes", type=int, default=Recipe().passes)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--start", type=Path, help="a student's checkpoint to go on from")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    label(range(arguments.chunks + 1), arguments.corpus, arguments.teacher, arguments.mixtures, arguments.processes)
    chunks = [arguments.mixtures / f"mix-{n:04d}.npz" for n in range(arguments.chunks + 1)]
    checkpoint = arguments.out.with_suffix(".pt")
    recipe = Recipe(passes=arguments.passes)
    student = distil(chunks[1:], chunks[0], recipe, checkpoint, arguments.start)
    digest = export(student.eval(), chunks[0], class_names(arguments.classes), arguments.out)
    tqdm.write(f"{arguments.out}: SHA-256 {digest}; set SOUND_SHA256 in models/audio.py")


if __name__ == "__main__":
    main()
