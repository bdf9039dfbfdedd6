"""Text generation with a compiled forward: tokens are eager's, and a static cache keeps one recording."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import flashpoint

SMALL = {"vocab_size": 100, "eos_token_id": None, "pad_token_id": 0}


def llama() -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**SMALL, **sizes, num_attention_heads=4, num_key_value_heads=2))


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(**SMALL, n_embd=64, n_layer=2, n_head=4, bos_token_id=1))


def t5() -> Any:
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(**SMALL, **sizes, decoder_start_token_id=0))


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "static cache": {"cache_implementation": "static"},
    "beams": {"num_beams": 2},
    "sampling": {"do_sample": True, "top_k": 5},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("build", [llama, gpt2, t5])
def test_generate(build: Any, way: str) -> None:
    torch.manual_seed(0)
    model = build().eval()
    ids = torch.randint(2, 100, (1, 6))
    tokens = {"max_new_tokens": 12, "min_new_tokens": 12}

    def generate() -> torch.Tensor:
        torch.manual_seed(0)
        return model.generate(ids, **tokens, **WAYS[way])

    expected = generate()
    model.forward = flashpoint.compile(model.forward, backend="eager")
    before = flashpoint.counters()
    for _ in range(3):
        assert torch.equal(generate(), expected)
    after = flashpoint.counters()
    if way == "static cache":
        # The prompt and one token at a time.
        assert after["captures_started"] - before["captures_started"] == 2
        assert after["hits"] - before["hits"] == 3 * 12 - 2
