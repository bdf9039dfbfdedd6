"""Whole models with backend="native": beside eager, and beside torch.compile's inductor if that is asked for.

Widths are those of the published models; layers are few (4 of a transformer), so that a run takes minutes and
inductor compiles in seconds. All of them run without gradients, in eval mode.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flashpoint
from benchmarks.measure import PEER, Options, add_ratios, counting, interleave, result

LAYERS = 4
Made = tuple[nn.Module, dict[str, Any]]


class Block(nn.Module):
    """The residual block of ResNet-18."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.short = nn.Sequential()
        if stride != 1 or inside != outside:
            self.short = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.short(x)
        return F.relu(y, inplace=True)


def resnet() -> Made:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)]
    layers += [nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    width = 64
    for outside, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(width, outside, stride), Block(outside, outside, 1)]
        width = outside
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics as after training
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean)
    return model, {"input": torch.randn(1, 3, 224, 224)}


class UNet(nn.Module):
    """Two levels down and up, with group norms, SiLU and concatenated skips, as in diffusion models."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()

        def step(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inside, outside, 3, stride, 1), nn.GroupNorm(8, outside), nn.SiLU()
            )

        self.first = step(3, width)
        self.down = nn.ModuleList([step(width, 2 * width, 2), step(2 * width, 4 * width, 2)])
        self.middle = step(4 * width, 4 * width)
        self.up = nn.ModuleList([step(6 * width, 2 * width), step(3 * width, width)])
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up in self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = up(torch.cat([x, skips.pop()], 1))
        return self.last(x)


def unet() -> Made:
    return UNet(), {"x": torch.randn(1, 3, 96, 96)}


class Lstm(nn.Module):
    """A tagger: embeddings, two layers of nn.LSTM, a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10_000, 256)
        self.lstm = nn.LSTM(256, 512, 2, batch_first=True)
        self.out = nn.Linear(512, 100)

    def forward(self, ids: Tensor) -> Tensor:
        return F.log_softmax(self.out(F.relu(self.lstm(self.embed(ids))[0])), -1)


class Cells(nn.Module):
    """An LSTM written out: gates, chunks and states of every step are the program's."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.ih = nn.Linear(width, 4 * width)
        self.hh = nn.Linear(width, 4 * width)
        self.width = width

    def forward(self, xs: Tensor) -> Tensor:
        h = xs.new_zeros(xs.shape[1], self.width)
        c = xs.new_zeros(xs.shape[1], self.width)
        for x in xs:
            i, f, g, o = (self.ih(x) + self.hh(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h


def lstm() -> Made:
    return Lstm(), {"ids": torch.randint(0, 10_000, (4, 32))}


def cells() -> Made:
    return Cells(), {"xs": torch.randn(16, 8, 256)}


def hugging(model: str, config: str, inputs: Callable[[Any], dict[str, Any]], **sizes: Any) -> Made:
    import transformers

    made = getattr(transformers, config)(**sizes)
    return getattr(transformers, model)(made), inputs(made)


def text(config: Any, length: int = 128) -> dict[str, Any]:
    return {"input_ids": torch.randint(5, config.vocab_size - 1, (1, length)), "use_cache": False}


def masked_text(config: Any) -> dict[str, Any]:
    ids = text(config)["input_ids"]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def text_to_text(config: Any) -> dict[str, Any]:
    return {**text(config), "decoder_input_ids": torch.randint(5, 1000, (1, 32))}


def image(config: Any) -> dict[str, Any]:
    return {"pixel_values": torch.randn(1, 3, config.image_size, config.image_size)}


MODELS: dict[str, Callable[[], Made]] = {
    "bert-base": lambda: hugging("BertModel", "BertConfig", masked_text, num_hidden_layers=LAYERS),
    "gpt2": lambda: hugging("GPT2LMHeadModel", "GPT2Config", text, n_layer=LAYERS, vocab_size=8192),
    "vit-base": lambda: hugging("ViTModel", "ViTConfig", image, num_hidden_layers=LAYERS),
    "llama": lambda: hugging(
        "LlamaForCausalLM",
        "LlamaConfig",
        text,
        vocab_size=8192,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=LAYERS,
        num_attention_heads=12,
        num_key_value_heads=4,
    ),
    "t5": lambda: hugging(
        "T5ForConditionalGeneration", "T5Config", text_to_text, num_layers=LAYERS, vocab_size=8192
    ),
    "resnet-18": resnet,
    "u-net": unet,
    "lstm": lstm,
    "lstm cells": cells,
}


def run(options: Options) -> Iterator[dict[str, Any]]:
    ratios: dict[str, list[float]] = {"flashpoint": [], PEER: []}
    for name in list(MODELS)[-2:] if options.quick else MODELS:
        flashpoint.reset()
        torch.manual_seed(0)
        model, inputs = MODELS[name]()
        model.eval()
        native = flashpoint.compile(model, backend="native")
        calls: dict[str, Callable[[], Any]] = {
            "eager": lambda m=model, i=inputs: m(**i),
            "flashpoint": lambda m=native, i=inputs: m(**i),
        }
        first: dict[str, list[float]] = {"eager": []}
        with torch.no_grad():
            model(**inputs)
            if options.torch_compile:
                torch._dynamo.reset()
                peer = torch.compile(model)
                calls[PEER] = lambda m=peer, i=inputs: m(**i)
            for contender, call in calls.items():
                first[contender] = []
                for _ in range(3):
                    start = time.perf_counter()
                    call()
                    first[contender].append(round(1e3 * (time.perf_counter() - start), 1))
            gained: dict[str, int] = {}
            with counting(gained):
                times = interleave(calls, options.rounds(25))
        add_ratios(ratios, times)
        yield result(
            "models",
            name,
            times,
            first_calls_ms=first,
            kernels_run=gained["kernels_run"],
            hits=gained["hits"],
            calls=len(times["flashpoint"]),
        )
    means = {k: round(statistics.geometric_mean(v), 3) for k, v in ratios.items() if v}
    line: dict[str, Any] = {"benchmark": "models", "case": "geometric mean over eager", **means}
    if options.torch_compile:
        line["flashpoint_over_peer"] = round(means["flashpoint"] / means[PEER], 3)
    yield line
