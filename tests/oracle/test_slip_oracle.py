"""SLIP's towers against transformers' own ViT and CLIP text model, given the same weights under their names."""

from __future__ import annotations

import pytest
import torch

from isthmus.encoders.models.slip import Slip, SlipShape

SHAPE = SlipShape(
    vision_width=128,
    vision_depth=3,
    vision_hidden=200,
    patch=8,
    patches=16,
    text_width=64,
    text_depth=3,
    text_hidden=150,
    vocabulary=90,
    context=20,
    dim=40,
)


@pytest.fixture(scope="module")
def towers() -> Slip:
    torch.manual_seed(0)
    model = Slip(SHAPE)
    for name, value in model.state_dict().items():
        if value.ndim == 1:
            value.copy_(torch.randn_like(value) * 0.2 + (1.0 if name.endswith("weight") else 0.0))
    return model


def test_the_image_tower_is_a_vit(towers: Slip) -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=200,
        image_size=32,
        patch_size=8,
        layer_norm_eps=1e-6,
    )
    other = ViTModel(config, add_pooling_layer=False).eval()
    ours = towers.state_dict()
    theirs = {
        "embeddings.cls_token": ours["visual.cls_token"],
        "embeddings.position_embeddings": ours["visual.pos_embed"],
        "embeddings.patch_embeddings.projection.weight": ours["visual.patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": ours["visual.patch_embed.proj.bias"],
        "layernorm.weight": ours["visual.norm.weight"],
        "layernorm.bias": ours["visual.norm.bias"],
    }
    names = {key: name for name in other.state_dict() for key in [name]}
    for layer in range(3):
        block = f"visual.blocks.{layer}"
        prefix = next(key.split(str(layer))[0] for key in names if f".{layer}." in key) + str(layer)
        for kind in ("weight", "bias"):
            q, k, v = ours[f"{block}.attn.qkv.{kind}"].chunk(3)
            found = {
                ("q_proj", "query"): q,
                ("k_proj", "key"): k,
                ("v_proj", "value"): v,
                ("o_proj", "attention.output.dense"): ours[f"{block}.attn.proj.{kind}"],
                ("layernorm_before",): ours[f"{block}.norm1.{kind}"],
                ("layernorm_after",): ours[f"{block}.norm2.{kind}"],
                ("fc1", "intermediate.dense"): ours[f"{block}.mlp.fc1.{kind}"],
                ("fc2", f"{layer}.output.dense"): ours[f"{block}.mlp.fc2.{kind}"],
            }
            for spellings, value in found.items():
                own = [n for n in names if n.startswith(f"{prefix}.") and n.endswith(kind)]
                theirs[next(n for n in own if any(f"{s}.{kind}" in n for s in spellings))] = value
    other.load_state_dict(theirs, strict=True)
    pixels = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        expected = other(pixels).last_hidden_state[:, 0] @ towers.image_projection
    torch.testing.assert_close(towers.encode_image(pixels), expected, rtol=1e-4, atol=1e-5)


def test_the_text_tower_is_clips(towers: Slip) -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=90,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=1,
        intermediate_size=150,
        max_position_embeddings=20,
        projection_dim=40,
        bos_token_id=88,
        eos_token_id=89,
        pad_token_id=0,
        hidden_act="quick_gelu",
    )
    other = CLIPTextModelWithProjection(config).eval()
    ours = towers.state_dict()
    theirs = {
        "embeddings.token_embedding.weight": ours["token_embedding.weight"],
        "embeddings.position_embedding.weight": ours["positional_embedding"],
        "final_layer_norm.weight": ours["ln_final.weight"],
        "final_layer_norm.bias": ours["ln_final.bias"],
    }
    for layer in range(3):
        block, target = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            parts = ours[f"{block}.attn.in_proj_{kind}"].chunk(3)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                theirs[f"{target}.self_attn.{name}.{kind}"] = part
            theirs[f"{target}.self_attn.out_proj.{kind}"] = ours[f"{block}.attn.out_proj.{kind}"]
            theirs[f"{target}.layer_norm1.{kind}"] = ours[f"{block}.ln_1.{kind}"]
            theirs[f"{target}.layer_norm2.{kind}"] = ours[f"{block}.ln_2.{kind}"]
            theirs[f"{target}.mlp.fc1.{kind}"] = ours[f"{block}.mlp.c_fc.{kind}"]
            theirs[f"{target}.mlp.fc2.{kind}"] = ours[f"{block}.mlp.c_proj.{kind}"]
    state = {f"text_model.{key}": value for key, value in theirs.items()}
    state["text_projection.weight"] = ours["text_projection"].T
    other.load_state_dict(state, strict=True)
    tokens = torch.zeros(3, 20, dtype=torch.int64)
    for row, length in enumerate((5, 20, 11)):
        tokens[row, :length] = torch.randint(1, 88, (length,))
        tokens[row, 0], tokens[row, length - 1] = 88, 89
    with torch.inference_mode():
        expected = other(input_ids=tokens).text_embeds
    torch.testing.assert_close(towers.encode_text(tokens), expected, rtol=1e-4, atol=1e-5)
