"""Transformer architectures whose tiny configs are made by rule: defaults shrunk by the names of their fields.

`tools/models.py` has those that are tested in every run; these are a sweep. To add one: its model type, under the
inputs it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto import configuration_auto, modeling_auto

_SIZES: dict[int, str] = {
    99: "vocab_size text_vocab_size",
    32: """hidden_size d_model n_embd dim embed_dim encoder_hidden_size decoder_hidden_size hidden_dim embedding_dim
        embedding_size word_embed_proj_dim d_embed model_dim text_embed_dim vision_embed_dim width conv_hidden_size
        cross_attention_hidden_size fpn_hidden_size mask_feature_size feature_size attention_hidden_size output_dim
        output_hidden_size hidden_channels cross_attention_dim encoder_hidden_dim emb_dim decoder_dim
        vision_hidden_size text_hidden_size audio_hidden_size linear_hidden out_hidden_size attention_hidden_dim
        neck_hidden_size image_size img_size""",
    16: "projection_dim proj_dim bottleneck_size q_lora_rank kv_lora_rank num_queries num_query_tokens num_latents",
    2: """num_hidden_layers num_layers n_layer n_layers encoder_layers decoder_layers num_encoder_layers
        num_decoder_layers depth num_hidden_layers_encoder num_blocks l_layers x_layers r_layers cross_num_layers
        layers num_decoder_hidden_layers num_encoder_hidden_layers num_experts_per_tok moe_k top_k_experts
        moe_topk""",
    4: """num_attention_heads num_heads n_head n_heads encoder_attention_heads decoder_attention_heads
        num_encoder_attention_heads num_decoder_attention_heads attention_heads num_key_value_heads nhead n_kv_heads
        kv_n_heads num_local_experts num_experts n_routed_experts moe_num_experts""",
    8: """head_dim d_kv attention_head_size d_head qk_nope_head_dim v_head_dim qk_rope_head_dim attention_head_dim
        head_size patch_size state_size mamba_d_state""",
    37: """intermediate_size d_ff ffn_dim encoder_ffn_dim decoder_ffn_dim hidden_dim_ff n_inner d_inner
        dim_feedforward mlp_dim moe_intermediate_size shared_expert_intermediate_size ffn_hidden_size
        feed_forward_size""",
    64: """max_position_embeddings n_positions max_source_positions max_target_positions max_seq_len n_ctx
        max_seq_length max_text_positions max_sequence_length""",
}
SIZES = {name: size for size, names in _SIZES.items() for name in names.split()}
_WIDTHS = [8, 16, 24, 32, 40, 48]
LISTS = {
    "hidden_sizes": _WIDTHS,
    "encoder_hidden_sizes": _WIDTHS,
    "embed_dims": _WIDTHS,
    "neck_hidden_sizes": [8] + 5 * [16],
    "depths": 6 * [1],
    "num_attention_heads": [1, 2, 2, 4],
    "num_heads": [1, 2, 2, 4],
}
TOKENS = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "decoder_start_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 3,
    "cls_token_id": 4,
}


def shrunk(config_class: type, depth: int = 0) -> dict[str, Any]:
    """Keyword arguments for a tiny config of the class, sub-configs included."""
    subs = getattr(config_class, "sub_configs", None) or {}
    result: dict[str, Any] = {}
    for name, value in vars(config_class()).items():
        if name in subs or name.startswith("_") or isinstance(value, bool):
            continue
        if isinstance(value, int) and SIZES.get(name) and (value != 0 or name == "vocab_size"):
            result[name] = SIZES[name] if name == "vocab_size" else min(value, SIZES[name])
        elif isinstance(value, int) and value >= 99 and name in TOKENS:
            result[name] = TOKENS[name]
        elif (
            isinstance(value, (list, tuple))
            and value
            and name in LISTS
            and all(isinstance(v, int) for v in value)
        ):
            result[name] = type(value)(LISTS[name][: len(value)])
    for name, sub in subs.items():
        if isinstance(sub, type) and depth < 3 and sub.__name__ != "AutoConfig":
            result[name] = shrunk(sub, depth + 1)
    return result


def _find(config: Any, name: str) -> Any:
    if getattr(config, name, None) is not None:
        return getattr(config, name)
    for sub in getattr(config, "sub_configs", None) or {}:
        value = _find(getattr(config, sub, None), name)
        if value is not None:
            return value
    return None


def _ids(config: Any, length: int, g: torch.Generator) -> Tensor:
    vocabulary = min(getattr(config, "vocab_size", None) or 99, 1000)
    return torch.randint(5, vocabulary - 1, (2, length), generator=g)


def _mask(length: int) -> Tensor:
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, -1] = 0
    return mask


def _text(config: Any, g: torch.Generator) -> dict[str, Tensor]:
    return {"input_ids": _ids(config, 8, g), "attention_mask": _mask(8)}


def _text_to_text(config: Any, g: torch.Generator) -> dict[str, Tensor]:
    return {**_text(config, g), "decoder_input_ids": _ids(config, 6, g)}


def _image(config: Any, g: torch.Generator) -> dict[str, Tensor]:
    size = _find(config, "image_size") or _find(config, "img_size") or 64
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    channels = _find(config, "num_channels") or _find(config, "in_channels") or 3
    return {"pixel_values": torch.randn(2, channels, height, width, generator=g)}


def _waves(config: Any, g: torch.Generator) -> dict[str, Tensor]:
    return {"input_values": torch.randn(2, 1, 1600, generator=g)}


KINDS: dict[str, Callable[[Any, torch.Generator], dict[str, Tensor]]] = {
    "text": _text,
    "text to text": _text_to_text,
    "image": _image,
    "waves": _waves,
}
# Those that give one graph.
ARCHITECTURES: dict[str, str] = {
    "text": """
        albert apertus arcee beam bert bert-generation big_bird biogpt bitnet bloom camembert canine
        clip_text_model cohere cohere2 convbert cpmant ctrl cwm data2vec-text deberta deberta-v2
        deepseek_v3 deepseek_v32 diffllama distilbert doge dpr electra embedding_gemma2
        embedding_gemma2_text ernie ernie4_5 esmc eurobert evolla exaone4 falcon falcon_h1 flaubert
        flint fnet funnel gemma gemma2 gemma3_text gemma4_unified gemma4_unified_text glm glm4
        glm_moe_dsa gpt-sw3 gpt2 gpt_bigcode gpt_neox gpt_neox_japanese granite granite_docling
        granite_docling_text granite_swa gte helium higgs_audio_v2 hrm_text hyperclovax ibert imagegpt
        internlm3 iquestcoder jais2 jina_embeddings_v3 kosmos-2.5 layoutlm lfm2 llama llama4 llama4_text
        longformer markuplm megatron-bert minicpm3 ministral3 mistral mllama mobilebert modernbert
        modernbert-decoder molmo2_text mpnet mpt muse_glimmer muse_glimmer_text nanochat nomic_bert
        nystromformer olmo olmo2 olmo3 olmo_hybrid openai-gpt opt persimmon phi phi3 phi4_multimodal
        qwen2 qwen3 qwen3_vl qwen3_vl_text
    """,
    "text to text": """
        bart bigbird_pegasus blenderbot blenderbot-small fsmt led longt5 m2m_100 marian mbart mt5 mvp
        nllb-moe pegasus pegasus_x plbart prophetnet
    """,
    "image": """
        aimv2_vision_model beit chinese_clip_vision_model clip_vision_model convnext convnextv2 cvt
        data2vec-vision deit dinov2 dinov2_with_registers dinov3_convnext dinov3_vit dpt focalnet glpn
        granite_docling_vision hgnet_v2 hiera idefics3_vision ijepa internvl_vision maskformer-swin
        mgp-str mlcd mlcd_vision_model mobilenet_v1 mobilenet_v2 pixio pixtral poolformer
        pp_ocrv5_server_rec pp_ocrv6_small_rec pp_ocrv6_tiny_rec pvt_v2 qianfan_ocr_vision
    """,
    "waves": """
        dac mimi_encoder pocket_tts_audio_tokenizer_encoder
    """,
}
NAMES = {name: kind for kind, names in ARCHITECTURES.items() for name in names.split()}


def build(name: str) -> tuple[Callable[[], nn.Module], Callable[[int], dict[str, Tensor]]]:
    """Factories of one architecture's models (all with the same weights) and inputs (by seed)."""
    config_class = getattr(transformers, configuration_auto.CONFIG_MAPPING_NAMES[name])
    found = modeling_auto.MODEL_MAPPING_NAMES[name]
    model_class = getattr(transformers, found if isinstance(found, str) else found[0])
    sizes = shrunk(config_class)

    def make_model() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return model_class(config_class(**sizes)).eval()

    def make_inputs(seed: int) -> dict[str, Tensor]:
        return KINDS[NAMES[name]](config_class(**sizes), torch.Generator().manual_seed(seed))

    return make_model, make_inputs
