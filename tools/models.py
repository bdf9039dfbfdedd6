"""Transformer architectures with random weights, made from configs: nothing is downloaded.

Shared by the demo, the model tests and the benchmarks. `build(name, tiny=...)` gives a factory of models (all
with the same weights) and a factory of inputs (new values per seed, same shapes). Text models get an
attention mask whose rows end (or, for `left_padded`, start) in padding, except the first row.

To add one: a row in ARCHITECTURES. Sizes given for `full` are the published base or small checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
import transformers  # noqa: E402
from torch import Tensor, nn  # noqa: E402

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """How to make one model and its inputs.

    model, config: class names in transformers. tiny, full: keyword arguments of the config; an empty `full`
    means that the config's defaults are the published size. inputs: from (config, tiny, generator) to the
    keyword arguments of forward. atol: how far a compiled result may be from eager's; not 0 only where
    forward itself computes another way when `torch.compiler.is_compiling()` says so.
    """

    model: str
    config: str
    inputs: Callable[[Any, bool, torch.Generator], Inputs]
    tiny: dict[str, Any]
    full: dict[str, Any] = field(default_factory=dict)
    atol: float = 0.0


def _ids(config: Any, batch: int, length: int, generator: torch.Generator) -> Tensor:
    # The lowest numbers, and in some vocabularies the last one, mark padding, begin and end of text.
    return torch.randint(5, config.vocab_size - 1, (batch, length), generator=generator)


def _mask(batch: int, length: int, *, left: bool = False) -> Tensor:
    """Ones, with a quarter of padding in every row but the first."""
    mask = torch.ones(batch, length, dtype=torch.long)
    padding = max(1, length // 4)
    if left:
        mask[1:, :padding] = 0
    else:
        mask[1:, length - padding :] = 0
    return mask


def _text(config: Any, tiny: bool, generator: torch.Generator) -> Inputs:
    batch, length = (2, 8) if tiny else (2, 64)
    return {
        "input_ids": _ids(config, batch, length, generator),
        "attention_mask": _mask(batch, length),
    }


def _left_padded(config: Any, tiny: bool, generator: torch.Generator) -> Inputs:
    inputs = _text(config, tiny, generator)
    return {**inputs, "attention_mask": _mask(*inputs["input_ids"].shape, left=True)}


def _text_to_text(config: Any, tiny: bool, generator: torch.Generator) -> Inputs:
    batch, length = (2, 6) if tiny else (2, 32)
    return {
        **_text(config, tiny, generator),
        "decoder_input_ids": _ids(config, batch, length, generator),
        "decoder_attention_mask": _mask(batch, length),
    }


def _image(config: Any, tiny: bool, generator: torch.Generator, batch: int | None = None) -> Inputs:
    batch = batch or (2 if tiny else 1)
    size = getattr(config, "image_size", None) or (64 if tiny else 224)
    channels = config.num_channels
    return {"pixel_values": torch.randn(batch, channels, size, size, generator=generator)}


def _image_and_text(config: Any, tiny: bool, generator: torch.Generator) -> Inputs:
    text = config.text_config
    batch, length = 2, (8 if tiny else text.max_position_embeddings)
    ids, mask = _ids(text, batch, length, generator), _mask(batch, length)
    ids[torch.arange(batch), mask.sum(1) - 1] = text.eos_token_id  # CLIP pools where the text ends
    return {**_image(config.vision_config, tiny, generator, batch), "input_ids": ids, "attention_mask": mask}


def _log_mel(config: Any, tiny: bool, generator: torch.Generator) -> Inputs:
    frames = 2 * config.max_source_positions
    length = 6 if tiny else 32
    return {
        "input_features": torch.randn(2, config.num_mel_bins, frames, generator=generator),
        "decoder_input_ids": _ids(config, 2, length, generator),
        "decoder_attention_mask": _mask(2, length),
    }


def _waveform(config: Any, tiny: bool, generator: torch.Generator) -> Inputs:
    samples = 1600 if tiny else 16000
    return {
        "input_values": torch.randn(2, samples, generator=generator),
        "attention_mask": _mask(2, samples),
    }


# Sizes that most tiny configs share.
_TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
}
_TINY_CAUSAL = {**_TINY, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_TINY_IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "image_size": 32,
    "patch_size": 8,
}

ARCHITECTURES: dict[str, Architecture] = {
    # the demo's eight
    "bert": Architecture("BertModel", "BertConfig", _text, _TINY),
    "gpt2": Architecture(
        "GPT2LMHeadModel",
        "GPT2Config",
        _left_padded,
        {
            "vocab_size": 99,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "vit": Architecture("ViTModel", "ViTConfig", _image, _TINY_IMAGE),
    "distilbert": Architecture(
        "DistilBertModel",
        "DistilBertConfig",
        _text,
        {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37},
    ),
    "llama": Architecture(
        "LlamaForCausalLM",
        "LlamaConfig",
        _left_padded,
        _TINY_CAUSAL,
        # 110M parameters: the published shapes are far larger than a demonstration wants.
        {
            "vocab_size": 32000,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "num_key_value_heads": 4,
            "intermediate_size": 2048,
        },
    ),
    "t5": Architecture(
        "T5ForConditionalGeneration",
        "T5Config",
        _text_to_text,
        {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4},
    ),
    "whisper": Architecture(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        _log_mel,
        {
            "vocab_size": 99,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 37,
            "decoder_ffn_dim": 37,
            "max_source_positions": 30,
            "max_target_positions": 30,
            "num_mel_bins": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
    ),
    "clip": Architecture(
        "CLIPModel",
        "CLIPConfig",
        _image_and_text,
        {
            "text_config": {**_TINY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 98},
            "vision_config": _TINY_IMAGE,
            "projection_dim": 16,
        },
    ),
    # decoders
    "mistral": Architecture(
        "MistralForCausalLM", "MistralConfig", _left_padded, {**_TINY_CAUSAL, "sliding_window": 4}
    ),
    "qwen2": Architecture("Qwen2ForCausalLM", "Qwen2Config", _left_padded, _TINY_CAUSAL),
    "qwen3": Architecture("Qwen3ForCausalLM", "Qwen3Config", _left_padded, {**_TINY_CAUSAL, "head_dim": 8}),
    "gemma2": Architecture(
        "Gemma2ForCausalLM",
        "Gemma2Config",
        _left_padded,
        {**_TINY_CAUSAL, "head_dim": 8, "sliding_window": 4},
    ),
    "phi3": Architecture("Phi3ForCausalLM", "Phi3Config", _left_padded, _TINY_CAUSAL),
    "phi": Architecture("PhiForCausalLM", "PhiConfig", _left_padded, _TINY_CAUSAL),
    "mixtral": Architecture(
        "MixtralForCausalLM",
        "MixtralConfig",
        _left_padded,
        # the grouped matrix product wants rows of whole 16 bytes
        {**_TINY_CAUSAL, "num_local_experts": 4, "intermediate_size": 40},
    ),
    "qwen2_moe": Architecture(
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        _left_padded,
        {
            **_TINY_CAUSAL,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "gpt_neox": Architecture("GPTNeoXForCausalLM", "GPTNeoXConfig", _left_padded, _TINY),
    "gpt_neo": Architecture(
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        _left_padded,
        {
            "vocab_size": 99,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "intermediate_size": 37,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
        },
    ),
    "gptj": Architecture(
        "GPTJForCausalLM",
        "GPTJConfig",
        _left_padded,
        {
            "vocab_size": 99,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "rotary_dim": 4,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "bloom": Architecture(
        "BloomForCausalLM",
        "BloomConfig",
        _left_padded,
        {"vocab_size": 99, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    ),
    "opt": Architecture(
        "OPTForCausalLM",
        "OPTConfig",
        _left_padded,
        {**_TINY, "ffn_dim": 37, "word_embed_proj_dim": 32},
    ),
    "falcon": Architecture("FalconForCausalLM", "FalconConfig", _left_padded, _TINY),
    # encoders
    "roberta": Architecture("RobertaModel", "RobertaConfig", _text, _TINY),
    "electra": Architecture("ElectraModel", "ElectraConfig", _text, {**_TINY, "embedding_size": 32}),
    "albert": Architecture("AlbertModel", "AlbertConfig", _text, {**_TINY, "embedding_size": 16}),
    "deberta-v2": Architecture(
        "DebertaV2Model",
        "DebertaV2Config",
        _text,
        {
            **_TINY,
            "relative_attention": True,
            "position_buckets": 8,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        },
    ),
    "mpnet": Architecture("MPNetModel", "MPNetConfig", _text, _TINY),
    "xlnet": Architecture(
        "XLNetModel",
        "XLNetConfig",
        _text,
        {"vocab_size": 99, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 37},
    ),
    "modernbert": Architecture(
        "ModernBertModel",
        "ModernBertConfig",
        _text,
        {
            **_TINY,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "cls_token_id": 1,
            "sep_token_id": 2,
        },
    ),
    # encoders with a decoder
    "bart": Architecture(
        "BartForConditionalGeneration",
        "BartConfig",
        _text_to_text,
        {
            "vocab_size": 99,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 37,
            "decoder_ffn_dim": 37,
            "max_position_embeddings": 64,
        },
    ),
    # state space
    "mamba": Architecture(
        "MambaForCausalLM",
        "MambaConfig",
        _left_padded,
        {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
        atol=1e-6,  # an associative scan instead of a loop
    ),
    # images
    "deit": Architecture("DeiTModel", "DeiTConfig", _image, _TINY_IMAGE),
    "dinov2": Architecture("Dinov2Model", "Dinov2Config", _image, {**_TINY_IMAGE, "mlp_ratio": 2}),
    "convnext": Architecture(
        "ConvNextModel",
        "ConvNextConfig",
        _image,
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": 32},
    ),
    "resnet": Architecture(
        "ResNetModel",
        "ResNetConfig",
        _image,
        {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"},
    ),
    "swin": Architecture(
        "SwinModel",
        "SwinConfig",
        _image,
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 2],
            "window_size": 4,
        },
    ),
    "segformer": Architecture(
        "SegformerModel",
        "SegformerConfig",
        _image,
        {
            "num_encoder_blocks": 4,
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [8, 8, 16, 16],
            "num_attention_heads": [1, 1, 2, 2],
            "sr_ratios": [8, 4, 2, 1],
        },
    ),
    # sound
    "wav2vec2": Architecture(
        "Wav2Vec2Model",
        "Wav2Vec2Config",
        _waveform,
        {
            **_TINY,
            "conv_dim": [16, 16],
            "conv_stride": [5, 4],
            "conv_kernel": [10, 8],
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
        },
    ),
}

# What `make demo` shows.
DEMO = ("bert", "gpt2", "vit", "distilbert", "llama", "t5", "whisper", "clip")


def build(name: str, tiny: bool = True) -> tuple[Callable[[], nn.Module], Callable[[int], Inputs]]:
    """Factories of one architecture's models and inputs.

    The first takes nothing and returns a model in eval mode, float32, on the CPU; every call makes a new one
    with the same weights. The second takes a seed and returns keyword arguments for the model.

    Raises KeyError for a name that is not in ARCHITECTURES.
    """
    row = ARCHITECTURES[name]
    config_class, model_class = getattr(transformers, row.config), getattr(transformers, row.model)
    sizes = row.tiny if tiny else row.full

    def make_model() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return model_class(config_class(**sizes)).eval()

    config = config_class(**sizes)

    def make_inputs(seed: int) -> Inputs:
        return row.inputs(config, tiny, torch.Generator().manual_seed(seed))

    return make_model, make_inputs
