"""Control flow, state and structure the way people write them: generators, caches, flags, mixins, moving averages."""

from __future__ import annotations

import abc
import contextlib
import copy
import functools
import itertools
from collections import defaultdict
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from tests.models.plain.case import Case, normal, tokens


class Generators(nn.Module):
    """Generator expressions and functions, itertools, reversed, map, filter, sorted."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(4)])

    def pairs(self):
        for i, layer in enumerate(self.layers):
            if i % 2:
                yield i, layer

    def forward(self, x):
        for _, layer in self.pairs():
            x = layer(x)
        for a, b in itertools.zip_longest(self.layers, [1.0, 2.0]):
            x = a(x) * (b or 3.0)
        x = functools.reduce(lambda h, layer: layer(h), reversed(self.layers), x)
        total = sum(layer(x).mean() for layer in self.layers)
        some = list(filter(lambda t: t.dim() == 2, map(lambda m: m(x), self.layers)))
        order = sorted(range(len(some)), key=lambda i: -i)
        return torch.stack([some[i] for i in order]), total, any(t.requires_grad for t in some)


class Lambda(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, *args):
        return self.fn(*args)


class Lambdas(nn.Module):
    def __init__(self):
        super().__init__()
        scale = 3.0
        self.net = nn.Sequential(nn.Linear(4, 4), Lambda(lambda x: x * scale), Lambda(torch.tanh))
        self.norm = functools.partial(F.layer_norm, normalized_shape=(4,), eps=1e-3)
        self.steps = [torch.relu, functools.partial(torch.mul, other=2.0), self.net]
        self.acts = {"relu": F.relu, "leaky": functools.partial(F.leaky_relu, negative_slope=0.1)}

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return self.acts["leaky"](self.norm(x))


class Routed(nn.Module):
    """Modules chosen by keys; parameters in lists and dicts; a list outside the module tree."""

    def __init__(self):
        super().__init__()
        self.choices = nn.ModuleDict({"conv": nn.Linear(4, 4), "pool": nn.Identity()})
        self.activations = nn.ModuleDict([["lrelu", nn.LeakyReLU()], ["prelu", nn.PReLU()]])
        self.params = nn.ParameterList([nn.Parameter(torch.randn(4, 4)) for _ in range(3)])
        self.named = nn.ParameterDict(
            {"left": nn.Parameter(torch.randn(4)), "right": nn.Parameter(torch.randn(4))}
        )
        self.hidden = [nn.Linear(4, 4)]

    def forward(self, x, choice="conv", act="prelu"):
        x = self.activations[act](self.choices[choice](x))
        for i, p in enumerate(self.params):
            x = self.params[i // 2].mm(p)[: x.size(0)] + x
        if "left" in self.named:
            x = x * self.named["left"]
        for name, p in self.named.items():
            x = x + p * len(name)
        return self.hidden[0](x), [k for k in self.choices]


class TemporaryFlags(nn.Module):
    """The model's own context managers: one a class, one a generator."""

    class Scope:
        def __init__(self, owner, value):
            self.owner, self.value = owner, value

        def __enter__(self):
            self.saved, self.owner.flag = self.owner.flag, self.value
            return self

        def __exit__(self, *exc):
            self.owner.flag = self.saved
            return False

    def __init__(self):
        super().__init__()
        self.fc, self.flag, self.names = nn.Linear(4, 4), 1.0, []

    @contextlib.contextmanager
    def scaled(self, by):
        saved = self.flag
        self.flag = saved * by
        try:
            yield self.flag
        finally:
            self.flag = saved

    def forward(self, x):
        with TemporaryFlags.Scope(self, 2.0) as scope:
            x = self.fc(x) * self.flag * scope.value
        with self.scaled(3.0) as by, contextlib.suppress(ValueError):
            x = x + self.flag + by
        with contextlib.nullcontext():
            return x * self.flag


class KwargsHeavy(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        defaults = dict(dim=4, bias=True, act=nn.ReLU, drop=0.0)
        self.opts = {**defaults, **kwargs}
        self.fc = nn.Linear(self.opts["dim"], self.opts["dim"], bias=self.opts["bias"])

    def _inner(self, x, /, *args, scale=1.0, **kwargs):
        for a in args:
            x = x + a
        return x * scale * kwargs.pop("extra", 1.0) + len(kwargs)

    def forward(self, x, *args, **kwargs):
        kwargs.setdefault("scale", 0.5)
        kwargs.update(extra=2.0, unused=None)
        y = self._inner(self.fc(x), 1.0, *args, **kwargs)
        return dict(y=y, **{f"k_{k}": v for k, v in sorted(kwargs.items(), key=lambda kv: kv[0])})


class Mixin:
    def mix(self, x):
        return x + self.offset


class Base(nn.Module, metaclass=abc.ABCMeta):
    offset = 0.5

    @abc.abstractmethod
    def body(self, x): ...

    def forward(self, x):
        return self.body(x)


class Inherited(Mixin, Base):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def body(self, x):
        return self.mix(self.fc(x))

    def forward(self, x):
        assert isinstance(self, Base) and issubclass(type(self), Mixin)
        return super().forward(x) + super().forward(x)


class FlexibleInputs(nn.Module):
    """Nested inputs of several kinds, told apart by isinstance."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def apply_to(self, x):
        if isinstance(x, torch.Tensor):
            return self.fc(x)
        if isinstance(x, (list, tuple)):
            return type(x)(self.apply_to(v) for v in x)
        if isinstance(x, dict):
            return {k: self.apply_to(v) for k, v in x.items()}
        return x

    def forward(self, x, extras=None):
        return self.apply_to({"a": x, "b": [x, (x, None, 3)], **(extras or {})})


class InPlace(nn.Module):
    """Slices, masks and indices written in place; the input too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.zeros(6, 4))
        self.register_buffer("ptr", torch.zeros(1, dtype=torch.long))

    def forward(self, x):
        out = torch.zeros(x.size(0), 8)
        out[:, :4] = x
        out[:, 4:] += x.detach() * 2
        out[out > 1] = 1.0
        out[0, ::2] = 0.5
        x[:, 0].zero_()
        self.queue[: x.size(0)] = x
        self.queue = self.queue.roll(1, 0)
        return out, self.queue.sum()


class MomentumEncoder(nn.Module):
    """A second network that follows the first, a queue with a pointer read as a Python int."""

    def __init__(self, K=6, m=0.9, T=0.2):
        super().__init__()
        self.encoder_q = nn.Linear(4, 3)
        self.encoder_k = copy.deepcopy(self.encoder_q)
        self.K, self.m, self.T = K, m, T
        for p in self.encoder_k.parameters():
            p.requires_grad = False
        self.register_buffer("queue", F.normalize(torch.randn(3, K), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def _momentum_update(self):
        for q, k in zip(self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True):
            k.data = k.data * self.m + q.data * (1.0 - self.m)

    @torch.no_grad()
    def _dequeue_and_enqueue(self, keys):
        ptr = int(self.queue_ptr)
        self.queue[:, ptr : ptr + keys.shape[0]] = keys.T
        self.queue_ptr[0] = (ptr + keys.shape[0]) % self.K

    def forward(self, im_q):
        q = F.normalize(self.encoder_q(im_q), dim=1)
        with torch.no_grad():
            self._momentum_update()
            k = F.normalize(self.encoder_k(im_q), dim=1)
        l_pos = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
        l_neg = torch.einsum("nc,ck->nk", [q, self.queue.clone().detach()])
        self._dequeue_and_enqueue(k)
        return torch.cat([l_pos, l_neg], dim=1) / self.T


class EMAWeights(nn.Module):
    """The average kept with in-place operators on parameters under no_grad."""

    def __init__(self, decay=0.9):
        super().__init__()
        self.model, self.decay = nn.Linear(4, 3), decay
        self.shadow = copy.deepcopy(self.model).requires_grad_(False)

    @torch.no_grad()
    def update(self):
        for (name, p), s in zip(self.model.named_parameters(), self.shadow.parameters(), strict=True):
            s.mul_(self.decay).add_(p, alpha=1 - self.decay) if name else None

    def forward(self, x):
        self.update()
        return self.shadow(x) + self.model(x)


class LoRA(nn.Module):
    """Layers swapped for wrapped ones after construction."""

    class Wrapped(nn.Module):
        def __init__(self, base, r=2, alpha=4):
            super().__init__()
            self.base, self.scaling = base, alpha / r
            self.A = nn.Parameter(torch.randn(r, base.in_features))
            self.B = nn.Parameter(torch.zeros(base.out_features, r))
            self.merged = False

        def forward(self, x):
            if self.merged:
                return self.base(x)
            return self.base(x) + (x @ self.A.t() @ self.B.t()) * self.scaling

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        for name, child in list(self.net.named_children()):
            if isinstance(child, nn.Linear):
                setattr(self.net, name, LoRA.Wrapped(child))

    def forward(self, x):
        return self.net(x)


class HyperNetwork(nn.Module):
    """Weights made by another network, used through functional_call and by hand."""

    def __init__(self):
        super().__init__()
        self.target, self.hyper = nn.Linear(4, 3), nn.Linear(2, 15)

    def forward(self, x, z):
        w = self.hyper(z).mean(0)
        params = {"weight": w[:12].view(3, 4), "bias": w[12:]}
        return torch.func.functional_call(self.target, params, (x,)), F.linear(x, *params.values())


class GlobalState:
    """What modules of one program share."""

    step = 0
    cache: dict[Any, torch.Tensor] = {}


class Caching(nn.Module):
    """Masks and frequencies kept in dicts, on the module and on a class, keyed by sizes."""

    def __init__(self):
        super().__init__()
        self._cache = {}
        self.fc = nn.Linear(4, 4)

    def freqs(self, n):
        key = (n, str(self.fc.weight.dtype))
        if key not in self._cache:
            self._cache[key] = 1.0 / (10 ** (torch.arange(n).float() / n))
        return self._cache[key]

    @functools.lru_cache(maxsize=8)  # noqa: B019
    def mask(self, n):
        return torch.tril(torch.ones(n, n))

    def forward(self, x):
        if x.size(1) not in GlobalState.cache:
            GlobalState.cache[x.size(1)] = torch.ones(x.size(1))
        return (self.fc(x) * self.freqs(x.size(1)) + GlobalState.cache[x.size(1)]) @ self.mask(x.size(1))


class Flattened(nn.Module):
    """Pytrees by hand: zip, unzip, chain, unpacking with stars."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(4, n) for n in (1, 2, 3)])

    def forward(self, x):
        outs = [(i, head(x)) for i, head in enumerate(self.heads)]
        indices, values = zip(*outs, strict=True)
        first, *rest = values
        flat = list(itertools.chain.from_iterable([v.unbind(1) for v in rest]))
        by_size = defaultdict(list)
        for v in values:
            by_size[v.size(1)].append(v)
        total = {k: torch.cat(v, 1).sum() for k, v in by_size.items()}
        return first, torch.stack(flat), indices, total, max(indices), sum(len(v) for v in by_size.values())


class WhileLoop(nn.Module):
    """Loops over sizes with break, continue and else."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        n, steps = x.size(0), 0
        while n > 0:
            n //= 2
            steps += 1
            if steps == 1:
                continue
            x = self.fc(x)
            if steps >= 3:
                break
        else:
            x = -x
        for i in range(steps, 0, -1):
            x = x + i
        return x, steps


class DeepCopied(nn.Module):
    """A config copied and changed in each forward."""

    def __init__(self):
        super().__init__()
        self.cfg = dict(scale=2.0, inner=dict(names=["a", "b"]), shape=(1, 2))
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        cfg = copy.deepcopy(self.cfg)
        cfg["scale"] *= 2
        cfg["inner"]["names"].append("c")
        shallow = copy.copy(self.cfg)
        shallow["scale"] = 1.0
        return self.fc(x) * cfg["scale"] * shallow["scale"] + len(cfg["inner"]["names"])


class Scripted(nn.Module):
    """Annotated for TorchScript, with its checks."""

    __constants__ = ["scale"]

    def __init__(self):
        super().__init__()
        self.fc, self.scale = nn.Linear(4, 4), 2
        self.cache: dict[str, torch.Tensor] = torch.jit.annotate(dict[str, torch.Tensor], {})

    @torch.jit.export
    def half(self, x):
        return x * 0.5

    @torch.jit.ignore
    def shout(self, x):
        return x * 2

    @torch.jit.unused
    def unused(self, x):
        return x * 3

    def forward(self, x, state: torch.Tensor | None = None):
        if not torch.jit.is_scripting():
            x = self.unused(self.shout(x))
        if state is None:
            state = torch.jit.annotate(torch.Tensor, torch.zeros_like(x))
        torch.jit.isinstance(state, torch.Tensor)
        return self.half(self.fc(x) + state) * self.scale


class Embedded(nn.Module):
    """Sizes of vocabularies, padding masks, bags of words, class labels as a dict of names."""

    names = {0: "zero", 1: "one"}

    def __init__(self):
        super().__init__()
        self.emb, self.bag = nn.Embedding(12, 4, padding_idx=0), nn.EmbeddingBag(12, 4, mode="mean")
        self.pos = nn.Embedding.from_pretrained(torch.eye(8)[:, :4], freeze=True)

    def forward(self, ids):
        mask = (ids != 0).float()
        pos = torch.cumsum(mask, 1).long() * ids.ne(0)
        x = (self.emb(ids) + self.pos(pos)) * mask.unsqueeze(-1)
        return x.sum(1) / mask.sum(1, keepdim=True).clamp(min=1e-9), self.bag(ids), self.names.get(1)


class Multimodal(nn.Module):
    """Optional inputs, losses in a dict, a sum over its values."""

    def __init__(self):
        super().__init__()
        self.text, self.image, self.out = nn.Linear(4, 3), nn.Linear(5, 3), nn.Linear(6, 2)
        self.weights = {"text": 0.5, "image": 2}

    def forward(self, text, image=None, labels=None):
        feats, losses = {}, {}
        for name, value in (("text", text), ("image", image)):
            if value is None:
                continue
            feats[name] = getattr(self, name)(value)
            losses[name] = feats[name].pow(2).mean()
        logits = self.out(torch.cat(list(feats.values()), dim=-1))
        if labels is not None:
            losses["cls"] = F.cross_entropy(logits, labels)
        loss = sum(_value * self.weights.get(_key, 1) for _key, _value in losses.items())
        return {"loss": loss, "logits": logits, **{f"loss_{k}": v.detach() for k, v in losses.items()}}


class _TextOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Multimodal()
        self.inner.out = nn.Linear(3, 2)

    def forward(self, x):
        return self.inner(text=x)


CASES = {
    "generators": Case(Generators, normal(2, 4)),
    "lambdas": Case(Lambdas, normal(2, 4)),
    "routed": Case(Routed, normal(2, 4)),
    "temporary_flags": Case(TemporaryFlags, normal(2, 4)),
    "kwargs_heavy": Case(KwargsHeavy, normal(2, 4)),
    "inherited": Case(Inherited, normal(2, 4)),
    "flexible_inputs": Case(FlexibleInputs, normal(2, 4)),
    "in_place": Case(InPlace, normal(2, 4)),
    "momentum_encoder": Case(MomentumEncoder, normal(2, 4), kept=False),
    "ema_weights": Case(EMAWeights, normal(2, 4)),
    "lora": Case(LoRA, normal(2, 4)),
    "hyper_network": Case(
        HyperNetwork, lambda g: (torch.randn(2, 4, generator=g), torch.randn(3, 2, generator=g))
    ),
    "caching": Case(Caching, normal(2, 4)),
    "flattened": Case(Flattened, normal(2, 4)),
    "while_loop": Case(WhileLoop, normal(9, 4)),
    "deep_copied": Case(DeepCopied, normal(2, 4)),
    "scripted": Case(Scripted, normal(2, 4)),
    "embedded": Case(Embedded, tokens(12, 2, 5)),
    "multimodal": Case(
        Multimodal,
        lambda g: (
            torch.randn(2, 4, generator=g),
            torch.randn(2, 5, generator=g),
            torch.randint(0, 2, (2,), generator=g),
        ),
    ),
    "multimodal_text": Case(lambda: _TextOnly(), normal(2, 4)),
}
