"""Tiny random models of each architecture, saved as the real ones are, so that tests load through the real path."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"]


@contextmanager
def _seeded() -> Iterator[None]:
    """Random weights that are the same every time, the global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        yield


def clip_tokenizer(longest: int = 24) -> Any:
    from transformers import CLIPTokenizer

    words = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=longest)


def save_clip(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = clip_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    tower = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {
        **tower,
        **ends,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 24,
        "pad_token_id": ends["eos_token_id"],
    }
    vision = {**tower, "image_size": 32, "patch_size": 8}
    with _seeded():
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return _save(folder, model, tokenizer, processor)


def save_siglip(folder: Path) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    tower = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokenizer = clip_tokenizer()
    text = {**tower, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 32}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    with _seeded():
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    return _save(folder, model, tokenizer, SiglipImageProcessorPil(size={"height": 32, "width": 32}))


def save_siglip2(folder: Path) -> Path:
    from transformers import Siglip2Config, Siglip2ImageProcessorPil, Siglip2Model

    tower = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokenizer = clip_tokenizer()
    text = {**tower, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 32}
    vision = {**tower, "num_patches": 16, "patch_size": 8}
    with _seeded():
        model = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))
    return _save(folder, model, tokenizer, Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16))


def save_clap(folder: Path, *, fused: bool) -> Path:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    tokenizer = RobertaTokenizer(
        vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=62
    )
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "max_position_embeddings": 64,
    }
    audio = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "window_size": 4,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "hidden_size": 32,
        "patch_embeds_hidden_size": 16,
        "num_hidden_layers": 2,
        "enable_fusion": fused,
        "num_classes": 8,
    }
    with _seeded():
        model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=16))
    extractor = ClapFeatureExtractor(
        feature_size=16,
        hop_length=2000,
        truncation="fusion" if fused else "rand_trunc",
        padding="repeatpad",
    )
    return _save(folder, model, tokenizer, extractor)


def save_ulip(file: Path, *, coloured: bool = False, towers: bool = True) -> Path:
    """A checkpoint as ULIP publishes it: `module.` before every key, options of the training beside the arrays."""
    from isthmus.encoders.models.pointbert import PointBert, PointBertShape
    from isthmus.encoders.models.slip import Slip, SlipShape

    with _seeded():
        points = PointBert(
            PointBertShape(
                channels=6 if coloured else 3,
                depth=2,
                width=64,
                hidden=96,
                first=(16, 32),
                second=(64, 48),
                position=24,
                dim=40,
            )
        )
        state = {f"module.{key}": value for key, value in points.state_dict().items()}
        if towers:
            shape = SlipShape(
                vision_width=64,
                vision_depth=2,
                vision_hidden=96,
                patch=8,
                patches=16,
                text_width=64,
                text_depth=2,
                text_hidden=96,
                vocabulary=len(clip_tokenizer()),
                context=20,
                dim=40,
            )
            state |= {f"module.{key}": value for key, value in Slip(shape).state_dict().items()}
    options = argparse.Namespace(model="ULIP_PointBERT", lr=0.003, betas=(0.9, 0.98))
    torch.save({"state_dict": state, "epoch": 3, "best_acc1": 0.5, "args": options}, file)
    return file


def save_sentence_transformer(folder: Path) -> Path:
    """A text model of sentence-transformers: a transformer, a mean, a dense layer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts
    from transformers import BertConfig, BertModel, BertTokenizer

    plain = folder.with_name(folder.name + "-plain")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)}, model_max_length=16)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=16,
    )
    with _seeded():
        _save(plain, BertModel(config), tokenizer)
        transformer = parts.Transformer(str(plain), max_seq_length=16)
        dense = parts.Dense(in_features=32, out_features=20)
    SentenceTransformer(modules=[transformer, parts.Pooling(32), dense], device="cpu").save_pretrained(str(folder))
    return folder


def save_multimodal_sentence_transformer(folder: Path) -> Path:
    """A CLIP within sentence-transformers: images and text."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts

    plain = save_clip(folder.with_name(folder.name + "-plain"))
    SentenceTransformer(modules=[parts.Transformer(str(plain))], device="cpu").save_pretrained(str(folder))
    return folder


def save_sounding_sentence_transformer(folder: Path) -> Path:
    """A CLAP within sentence-transformers: sounds and text."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts

    plain = save_clap(folder.with_name(folder.name + "-plain"), fused=False)
    SentenceTransformer(modules=[parts.Transformer(str(plain))], device="cpu").save_pretrained(str(folder))
    return folder


def _save(folder: Path, *parts: Any) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder
