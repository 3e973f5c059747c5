"""The sound network: log-mel frames to scores of AudioSet's classes, three times a second, and scores to tokens.

AudioSet: Gemmeke et al. 2017. The network is distilled from a teacher by `models/train/sound.py`.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from models.logmel import HOP_SAMPLES, MEL_BANDS, SAMPLE_RATE_HZ, WINDOW_SAMPLES, LogMel

CLASSES = 521
CELL_FRAMES = 32  # the network's stride in time
TOKEN_CELLS = 3  # 96 frames, the span that the teacher hears at once
TOKEN_S = TOKEN_CELLS * CELL_FRAMES * HOP_SAMPLES / SAMPLE_RATE_HZ
CENTRE, SCALE = -3.0, 3.0  # brings log-mel frames to about -1..2

STEM_CHANNELS = 48
STEM_KERNEL, STEM_STRIDE = 7, 4
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (384, 2))  # channels, stride
FEATURES = 768

SILENCE_CLASS = 494  # AudioSet's "Silence"
SILENCE_WEIGHT = 60.0  # several times what all classes sum up to in ordinary sound
SURPRISE_GAIN = 0.5  # of all gains tried, 0.5 to 1.5, the best on the rows that training may see
MAX_EXPONENT = 8.0


class Block(nn.Module):
    """A 3 × 3 convolution with a shortcut where shapes allow.

    Dense rather than depthwise-separable: as fast at these widths, and several times faster to train on a CPU.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, has_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.norm = nn.BatchNorm2d(outputs) if has_norm else nn.Identity()
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, T, F)`` to ``(N, outputs, T / stride, F / stride)``."""
        y = functional.relu(self.norm(self.conv(x)))
        return x + y if self.has_shortcut else y


class SoundBackbone(nn.Module):
    """Log-mel frames to class logits, a token each 0.32 s.

    Args:
        has_norm: With batch norms, as it is trained; without, as it is shipped, when they are folded.
    """

    def __init__(self, *, has_norm: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, STEM_CHANNELS, STEM_KERNEL, STEM_STRIDE, padding=STEM_KERNEL // 2)
        blocks, channels = [], STEM_CHANNELS
        for outputs, stride in BLOCKS:
            blocks.append(Block(channels, outputs, stride, has_norm=has_norm))
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(channels, FEATURES, (1, MEL_BANDS // CELL_FRAMES))
        self.classifier = nn.Linear(FEATURES, CLASSES)

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Turn ``(N, 32 cells, 64)`` log-mel frames into ``(N, cells - 2, 768)``."""
        x = functional.relu(self.stem((frames[:, None] - CENTRE) / SCALE))
        x = functional.relu(self.head(self.blocks(x))).squeeze(3)  # (N, 768, cells)
        return functional.avg_pool1d(x, TOKEN_CELLS, 1).transpose(1, 2)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Turn ``(N, 32 cells, 64)`` log-mel frames into logits ``(N, cells - 2, 521)``."""
        logits: torch.Tensor = self.classifier(self.features(frames))
        return logits


class SoundNet(nn.Module):
    """Samples to scores and tokens, in one graph.

    Args:
        class_vectors: float32 ``(521, D - 1)``, unit length, the classes' names in the space of the prompts.
    """

    class_vectors: torch.Tensor
    logit_mean: torch.Tensor
    logit_deviation: torch.Tensor

    def __init__(self, class_vectors: torch.Tensor) -> None:
        super().__init__()
        self.front_end = LogMel()
        self.backbone = SoundBackbone()
        self.register_buffer("class_vectors", class_vectors, persistent=False)
        # What the network says of ordinary mixtures.
        self.register_buffer("logit_mean", torch.zeros(CLASSES))
        self.register_buffer("logit_deviation", torch.ones(CLASSES))

    def forward(self, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Hear float32 ``(N, M)``, `whole_cells` long; see `meaning`."""
        frames = self.front_end(samples)
        return self.meaning(self.backbone(frames.to(self.backbone.classifier.weight.dtype)))

    def meaning(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Turn logits ``(N, U, 521)`` into what they say.

        Returns:
            Tokens ``(N, U, D)`` and whole ``(N, D)``, unit length, and class scores ``(N, U, 521)``, 0..1; float32.
        """
        logits = logits.float()
        scores = logits.sigmoid()
        surprise = (logits - self.logit_mean) / self.logit_deviation
        tokens = sound_tokens(scores, surprise, self.class_vectors)
        return tokens[:, :-1], tokens[:, -1], scores


def sound_tokens(scores: torch.Tensor, surprise: torch.Tensor, class_vectors: torch.Tensor) -> torch.Tensor:
    """Turn what is heard into places in the prompts' space.

    Classes weigh by how far they are beyond the ordinary, not by their score: speech and music always score a little,
    and would drown the rare classes that a prompt is mostly about.

    Args:
        scores: ``(..., U, 521)``, 0..1.
        surprise: ``(..., U, 521)``, deviations above the class's usual logit.
        class_vectors: ``(521, D - 1)``.

    Returns:
        ``(..., U + 1, D)``, unit length: one a time, then the whole, which is their sum. The last dimension is silence:
        no prompt has a part in it, so that nothing matches where nothing is heard.
    """
    weights = (surprise * SURPRISE_GAIN).clamp_max(MAX_EXPONENT).exp()
    heard = weights @ class_vectors
    unheard = SILENCE_WEIGHT * scores[..., SILENCE_CLASS : SILENCE_CLASS + 1]
    tokens = torch.cat((heard, unheard), dim=-1)
    return functional.normalize(torch.cat((tokens, tokens.mean(-2, keepdim=True)), dim=-2), dim=-1)


def cells_of(samples: int) -> int:
    """Cells of the network, 0.32 s each, that a sound of so many samples is cut or filled up to: at least three."""
    frames = 1 + (samples - WINDOW_SAMPLES) // HOP_SAMPLES if samples >= WINDOW_SAMPLES else 0
    return max(TOKEN_CELLS, (frames + CELL_FRAMES // 2) // CELL_FRAMES)


def whole_cells(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut or fill with silence ``(N, M)`` to a whole number of cells: 2 s lose 60 ms, which the next window has."""
    length = (cells_of(samples.shape[1]) * CELL_FRAMES - 1) * HOP_SAMPLES + WINDOW_SAMPLES
    kept = samples[:, :length]
    return np.ascontiguousarray(np.pad(kept, ((0, 0), (0, length - kept.shape[1]))), np.float32)
