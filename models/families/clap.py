"""CLAP (Wu et al. 2023, "Large-scale contrastive language-audio pretraining"): sounds and their descriptions.

CLAP hears 48 kHz. The rest of the system carries 16 kHz mono, so sound is resampled first and everything over 8 kHz is
missing: hisses and clinks lose some of what the network was trained to hear.
"""

from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.encoders import SoundEncoder, SoundTokens, TextEncoder
from models.families.checkpoint import (
    Checkpoint,
    compute_dtype,
    find_checkpoint,
    load_network,
    load_part,
    usable_device,
)
from models.families.resample import Resampler
from models.families.text import FamilyText, load_tokenizer, longest_text
from models.logmel import SAMPLE_RATE_HZ
from models.memory import Uploader, in_halves

POWER_FLOOR = 1e-10  # -100 dB


def load_clap(model: str, device: str = "auto", precision: str = "auto") -> tuple[SoundEncoder, TextEncoder]:
    """Load CLAP's two sides.

    Args:
        model: Folder or hub id.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: Of the sound tower: ``auto`` (bfloat16 where the processor has it), ``bfloat16`` or ``float32``.

    Raises:
        ModelError: Not found, not CLAP, without safetensors, damaged, or too large for the device.
    """
    from transformers import ClapFeatureExtractor, ClapModel  # models import with torch and numpy alone

    place = usable_device(device)
    checkpoint = find_checkpoint(model, "clap", ("clap",), place)
    net = load_network(checkpoint, ClapModel, place)
    spectrum = Spectrum(load_part(checkpoint, ClapFeatureExtractor), place)

    def features(input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        made: torch.Tensor = net.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return made

    text = net.config.text_config
    tokenizer = load_tokenizer(checkpoint, text.vocab_size)
    # RoBERTa counts positions from the one after its padding id.
    max_tokens = longest_text(tokenizer, text.max_position_embeddings - text.pad_token_id - 1)
    return (
        ClapSound(checkpoint, net, spectrum, place, compute_dtype(place, precision)),
        FamilyText(checkpoint, tokenizer, features, dim=net.config.projection_dim, device=place, max_tokens=max_tokens),
    )


class Spectrum:
    """The checkpoint's own log-mel front end, in batches on the device.

    Spectra are computed in double precision: a quiet band next to a loud one spans more than float32's FFT resolves,
    and the logarithm would show it.

    Args:
        extractor: A `ClapFeatureExtractor`, for its numbers.
        device: Where to compute.
    """

    def __init__(self, extractor: Any, device: torch.device) -> None:  # transformers has no types
        is_fused = extractor.truncation == "fusion"  # the two published recipes differ in their mel scale
        filters = extractor.mel_filters if is_fused else extractor.mel_filters_slaney
        self.rate_hz = int(extractor.sampling_rate)
        self.max_samples = int(extractor.nb_max_samples)
        self._mel = torch.from_numpy(np.ascontiguousarray(filters.T, np.float64)).to(device)
        self._fft = int(extractor.fft_window_size)
        self._hop = int(extractor.hop_length)
        self._hann = torch.hann_window(self._fft, dtype=torch.float64, device=device)
        self._padding = str(extractor.padding)

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """Turn float64 ``(N, L)``, ``1 <= L <= max_samples``, into float32 decibels ``(N, 1, T, bands)``."""
        bins = torch.stft(
            self._fill(samples), self._fft, self._hop, window=self._hann, center=True, return_complex=True
        )
        power = self._mel @ (bins.real.square() + bins.imag.square())
        return (10.0 * power.clamp(min=POWER_FLOOR).log10()).float().transpose(1, 2).unsqueeze(1)

    def _fill(self, samples: torch.Tensor) -> torch.Tensor:
        """Lengthen a short sound to ``max_samples`` as the checkpoint was trained: mostly by repeating it."""
        length = samples.shape[1]
        copies = {"repeatpad": self.max_samples // length, "repeat": ceil(self.max_samples / length)}
        filled = samples.repeat(1, copies.get(self._padding, 1))[:, : self.max_samples]
        return functional.pad(filled, (0, self.max_samples - filled.shape[1]))


class ClapSound:
    """A `SoundEncoder` over CLAP's sound tower.

    The tower's last map has bands and time. A token is the mean over the bands of one step in time (0.31 s with the
    published checkpoints) through the projection that the mean of the whole map takes; a short sound is repeated to
    fill the tower's span, and its tokens are those of the first repetition. Longer sound than the span is encoded in
    pieces, whose mean is the whole; the reference cuts pieces out at random instead.

    Args:
        checkpoint: Names it.
        net: A `ClapModel` on the device.
        spectrum: Its front end.
        device: Where it lies.
        dtype: What to compute in.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        net: Any,  # transformers has no types
        spectrum: Spectrum,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.name = checkpoint.name
        self.sha256 = checkpoint.sha256
        self.dim = int(net.config.projection_dim)
        steps = _steps(net.config.audio_config)
        self.token_s = spectrum.max_samples / spectrum.rate_hz / steps
        self._samples_per_token = spectrum.max_samples / steps
        self._net = net
        # Fusion looks closer at sound that is longer than the span; ours never is. Off, nothing waits for the device.
        net.audio_model.audio_encoder.enable_fusion = False
        net.audio_model.audio_encoder.patch_embed.enable_fusion = False
        self._spectrum = spectrum
        self._resample = Resampler(SAMPLE_RATE_HZ, spectrum.rate_hz, device)
        self._upload = Uploader(device)
        self._device = device
        self._dtype = dtype

    def encode(self, samples: NDArray[np.float32]) -> SoundTokens:
        """Encode float32 ``(N, M)``, 16 kHz mono, -1..1, ``M >= 1``, to ``(N, U, D)`` and ``(N, D)``.

        ``U`` is the sound's length in tokens, rounded up.

        Raises:
            ModelError: The device has no room for a single sound.
        """
        return in_halves(self._encode, _join, samples, self.name)

    @torch.inference_mode()
    def _encode(self, samples: NDArray[np.float32]) -> SoundTokens:
        pieces = torch.split(self._resample(self._upload(samples)), self._spectrum.max_samples, dim=1)
        made = [self._encode_piece(piece) for piece in pieces]
        whole = torch.stack([vector * piece.shape[1] for (_, vector), piece in zip(made, pieces, strict=True)]).sum(0)
        return SoundTokens(torch.cat([tokens for tokens, _ in made], dim=1), functional.normalize(whole, dim=-1))

    def _encode_piece(self, piece: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Autocast instead of bfloat16 weights: decibels must reach the tower's batch norm in full.
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            made = self._net.audio_model(input_features=self._spectrum(piece))
            steps = made.last_hidden_state.mean(2).transpose(1, 2)
            steps = steps[:, : ceil(piece.shape[1] / self._samples_per_token)]
            projected = self._net.audio_projection(torch.cat((steps, made.pooler_output.unsqueeze(1)), dim=1)).float()
        unit = functional.normalize(projected, dim=-1)
        return unit[:, :-1], unit[:, -1]


def _steps(audio: Any) -> int:  # transformers has no types
    """Steps in time of the tower's last map: its picture folds ``spec_size / bands`` stretches of time over another."""
    stride = audio.patch_stride if isinstance(audio.patch_stride, int) else audio.patch_stride[1]
    side = audio.spec_size // 2 ** (len(audio.depths) - 1) // stride
    folds = audio.spec_size // audio.num_mel_bins
    return int(side // (side // folds) * side)


def _join(first: SoundTokens, second: SoundTokens) -> SoundTokens:
    return SoundTokens(torch.cat((first.tokens, second.tokens)), torch.cat((first.whole, second.whole)))
