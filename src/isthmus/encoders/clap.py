"""CLAP of Hugging Face transformers, fused and unfused: sounds and text.

A clip of any length is cut into fixed windows whose embeddings are averaged, so that it gives the same embedding every
time. transformers' own extractor takes random windows of clips over ten seconds, and of a fused model it declares a
random clip of a batch to be a long one; neither happens here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.encoders.hub import Checkpoint, find_checkpoint
from isthmus.encoders.item_decoders import AudioDecoder, TextDecoder
from isthmus.encoders.protocol import Decoder
from isthmus.encoders.registry import check_installed
from isthmus.encoders.torch_encoder import FROM_DATA, TorchEncoder, embedding_of, loading_faults, quiet_loading
from isthmus.errors import EncoderError
from isthmus.items.decoding.audio import pool_windows

MAX_TOKENS = 77
"""Tokens of a caption that LAION trained CLAP with; the text tower itself would take 512."""


def load(
    checkpoint: str,
    *,
    device: str | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    hop_seconds: float = 10.0,
) -> ClapEncoder:
    """Load a CLAP.

    Args:
        checkpoint: Repository of the Hub, or folder as `save_pretrained` writes it.
        device: Where the model goes; None takes the best there is.
        dtype: float32, bfloat16 or float16, for the model's own arithmetic.
        revision: Branch, tag or commit of the Hub.
        hop_seconds: Seconds from one window of a long clip to the next, at most.

    Raises:
        DependencyError: transformers, soundfile or soxr is not installed.
        EncoderError: There is no such model, or it is of another family.
    """
    check_installed("clap")
    return ClapEncoder(find_checkpoint(checkpoint, revision=revision), device=device, dtype=dtype, hop=hop_seconds)


class ClapEncoder(TorchEncoder):
    """A dual encoder of sounds and captions.

    Args:
        files: The model's files.
        device: Where the model goes; None takes the best there is.
        dtype: Number format of the model's own arithmetic.
        hop: Seconds from one window of a long clip to the next, at most.
    """

    modalities = ("audio", "text")

    def __init__(
        self, files: Checkpoint, *, device: str | None = None, dtype: str = "float32", hop: float = 10.0
    ) -> None:
        from transformers import AutoConfig, AutoTokenizer, ClapFeatureExtractor, ClapModel

        with loading_faults(files.given, "CLAP model"):
            config = AutoConfig.from_pretrained(files.folder, **FROM_DATA)
            if config.model_type != "clap":
                raise EncoderError(f"{files.given} is a model of type {config.model_type!r}. Expected a CLAP.")
            extractor = ClapFeatureExtractor.from_pretrained(files.folder, **FROM_DATA)
            self.tokenizer = AutoTokenizer.from_pretrained(files.folder, **FROM_DATA)
            with quiet_loading():
                model = ClapModel.from_pretrained(files.folder, **FROM_DATA)
        super().__init__(model, device=device, dtype=dtype)
        self.name, self.identity = f"clap:{files.given}", files.identity("transformers")
        self.dim = int(config.projection_dim)
        self.fused = bool(config.audio_config.enable_fusion)
        self.mel = LogMel.of(extractor)
        positions = int(config.text_config.max_position_embeddings) - 2  # RoBERTa counts from 2
        self.max_tokens = min(MAX_TOKENS, positions, int(self.tokenizer.model_max_length))
        rate, seconds = int(extractor.sampling_rate), float(extractor.max_length_s)
        self.cut = AudioDecoder(rate, seconds, hop, pad="zero" if extractor.padding == "pad" else "repeat")

    def decoder(self, modality: str) -> Decoder:
        """Files to windows of samples, texts to themselves."""
        return TextDecoder() if modality == "text" else self.cut

    def preprocessing(self, modality: str) -> dict[str, Any]:
        """Rate, windows and pooling of sounds; token limit of captions."""
        if modality == "text":
            return {"max_tokens": self.max_tokens}
        return {**self.cut.describe(), "is_longer": False, "mel": self.mel.scale}

    def size(self, decoded: Any) -> int:
        """Characters of a caption; windows are equally long."""
        return len(decoded) if isinstance(decoded, str) else 0

    @torch.inference_mode()
    def encode_batch(self, batch: Sequence[Any], modality: str) -> Any:
        """Embeddings of a batch of captions, or of sounds: windows (k, samples), or mono signals (samples,) to be cut.

        A sound's embedding is the mean of its windows' unit embeddings.
        """
        if modality == "text":
            tokens = self.tokens(batch, self.tokenizer, max_length=self.max_tokens, padding="longest")
            return embedding_of(self.model.get_text_features(**tokens))
        sounds = [np.asarray(sound, dtype=np.float32) for sound in batch]
        windows = [sound if sound.ndim == 2 else self.cut.cut(sound) for sound in sounds]
        flat = [window for sound in windows for window in sound]
        chunks = (flat[start : start + len(batch)] for start in range(0, len(flat), len(batch)))
        embedded = np.concatenate([self._embed_windows(np.stack(chunk)) for chunk in chunks])
        return pool_windows(embedded, [len(sound) for sound in windows])

    def _embed_windows(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings of windows of samples."""
        mel = self.mel(torch.from_numpy(windows).to(self.device)).to(self.dtype)[:, None]
        if self.fused:
            mel = mel.expand(-1, 4, -1, -1)  # only the first is read of a clip that is not declared long
        longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=self.device)
        output = self.model.get_audio_features(input_features=mel, is_longer=longer)
        return np.asarray(embedding_of(output).float().cpu().numpy(), dtype=np.float32)


class LogMel:
    """The mel spectrogram in decibels of transformers' CLAP extractor, for a batch at once and on any device.

    Args:
        filters: (frequencies, mels) weights.
        fft: Samples of a frame.
        hop: Samples from one frame to the next.
        scale: Name of the filters' scale, for the record.
    """

    def __init__(self, filters: NDArray[np.float64], *, fft: int, hop: int, scale: str) -> None:
        self.filters, self.fft, self.hop, self.scale = torch.as_tensor(filters), fft, hop, scale

    @classmethod
    def of(cls, extractor: Any) -> LogMel:
        """The spectrogram that an extractor computes: its filters hang on how it treats long clips."""
        fusion = extractor.truncation == "fusion"
        filters = extractor.mel_filters if fusion else extractor.mel_filters_slaney
        scale = "htk" if fusion else "slaney"
        return cls(np.asarray(filters), fft=int(extractor.fft_window_size), hop=int(extractor.hop_length), scale=scale)

    def __call__(self, samples: Tensor) -> Tensor:
        """Spectrograms of (n, samples) waveforms: (n, frames, mels) float32, in decibels."""
        precise = torch.float32 if samples.device.type == "mps" else torch.float64
        samples, filters = samples.to(precise), self.filters.to(samples.device, precise)
        window = torch.hann_window(self.fft, dtype=precise, device=samples.device)
        spectrum = torch.stft(samples, self.fft, self.hop, window=window, pad_mode="reflect", return_complex=True)
        mel = spectrum.abs().square().transpose(1, 2) @ filters
        return (10.0 * mel.clamp_min(1e-10).log10()).float()
