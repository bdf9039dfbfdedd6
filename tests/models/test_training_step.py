"""Training steps of a transformer: forward, backward and optimizer in one graph, bit for bit as in eager."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
import transformers

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import flashpoint  # noqa: E402


def classifier() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=3,
    )
    return transformers.BertForSequenceClassification(config).train()


OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
}


def training(kind: str) -> tuple[torch.nn.Module, Callable]:
    model = classifier()
    optimizer = OPTIMIZERS[kind](model.parameters())

    def step(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        return loss

    return model, step


@pytest.mark.parametrize("kind", list(OPTIMIZERS))
def test_bert_classifier(kind: str) -> None:
    flashpoint.reset()
    model, step = training(kind)
    reference, eager_step = training(kind)
    compiled = flashpoint.compile(step, backend="eager")
    before = flashpoint.counters()
    for i in range(20):
        if i == 3:
            before = flashpoint.counters()
        torch.manual_seed(100 + i)
        ids, labels = torch.randint(0, 50, (4, 8)), torch.randint(0, 3, (4,))
        torch.manual_seed(i)  # dropout
        got = compiled(ids, labels)
        torch.manual_seed(i)
        want = eager_step(ids, labels)
        assert torch.equal(got, want) and got.requires_grad == want.requires_grad
        for a, b in zip(model.parameters(), reference.parameters(), strict=True):
            assert torch.equal(a, b) and a._version == b._version
            assert torch.equal(a.grad, b.grad)
    after = flashpoint.counters()
    assert after["hits"] - before["hits"] == 17, compiled.last_report()
    for counter in ("misses", "captures_started", "resume_hits", "eager_calls", "restarts"):
        assert after[counter] == before[counter], (counter, compiled.last_report())
    assert compiled.last_report()["breaks"] == []
    assert after["ops_replayed"] > before["ops_replayed"]
