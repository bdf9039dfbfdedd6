"""How people write Python around their layers: configs, registries, hooks, state, fallbacks."""

from __future__ import annotations

import enum
import functools
import logging
import time
import warnings
from collections import OrderedDict, defaultdict
from dataclasses import asdict, dataclass, field, replace
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from tests.models.plain.case import Case, normal

logger = logging.getLogger(__name__)


class EasyDict(dict):
    """Attributes are items, nested ones too."""

    def __init__(self, d=None, **kwargs):
        super().__init__()
        for k, v in {**(d or {}), **kwargs}.items():
            setattr(self, k, v)

    def __setattr__(self, name, value):
        if isinstance(value, (list, tuple)):
            value = [self.__class__(x) if isinstance(x, dict) else x for x in value]
        elif isinstance(value, dict) and not isinstance(value, self.__class__):
            value = self.__class__(value)
        super().__setattr__(name, value)
        super().__setitem__(name, value)

    __setitem__ = __setattr__


class Configured(nn.Module):
    def __init__(self):
        super().__init__()
        self.cfg = EasyDict(model=dict(width=6, acts=[dict(name="relu"), dict(name="tanh")]), debug=False)
        self.l1, self.l2 = nn.Linear(4, self.cfg.model.width), nn.Linear(self.cfg.model["width"], 2)

    def forward(self, x):
        for layer, act in zip((self.l1, self.l2), self.cfg.model.acts, strict=True):
            x = getattr(torch, act.name)(layer(x))
            if self.cfg.get("debug", False):
                print(x.shape)
        return x * self.cfg.model.width


class AttrDict(dict):
    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError as e:
            raise AttributeError(name) from e

    __setattr__ = dict.__setitem__


class FallbackConfig(nn.Module):
    """Missing attributes found by hasattr and getattr with a default."""

    def __init__(self):
        super().__init__()
        self.args = AttrDict(hidden=5, alpha=0.5)
        self.opt = SimpleNamespace(beta=2.0, names=("a", "b"))
        self.fc = nn.Linear(4, self.args.hidden)

    def forward(self, x):
        x = self.fc(x) * self.args.alpha
        if hasattr(self.args, "gamma"):
            x = x * self.args.gamma
        x = x + getattr(self.opt, "missing", 1.5) - getattr(self.opt, "beta", 0)
        return {name: x * i for i, name in enumerate(self.opt.names)}


class Registry:
    _items: dict[str, type] = {}

    @classmethod
    def register(cls, name):
        def wrap(item):
            cls._items[name] = item
            return item

        return wrap

    @classmethod
    def build(cls, cfg: dict, **default_args):
        args = cfg.copy()
        for k, v in default_args.items():
            args.setdefault(k, v)
        return cls._items[args.pop("type")](**args)


@Registry.register("scaled")
class Scaled(nn.Module):
    def __init__(self, scale=1.0, offset=0.0):
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, x):
        return x * self.scale + self.offset


class Registered(nn.Module):
    """Looks its parts up in a global registry at each call."""

    def __init__(self):
        super().__init__()
        self.block_cfg = [dict(type="scaled", scale=2.0), dict(type="scaled")]
        self.blocks = nn.ModuleList([Registry.build(c, offset=0.25) for c in self.block_cfg])

    def forward(self, x):
        for cfg, block in zip(self.block_cfg, self.blocks, strict=True):
            assert isinstance(block, Registry._items[cfg["type"]]), (
                f"{type(block).__name__} is no {cfg['type']}"
            )
            x = block(x)
        return x


class Hooked(nn.Module):
    """Forward hooks that keep and change activations."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(OrderedDict(fc1=nn.Linear(4, 5), act=nn.ReLU(), fc2=nn.Linear(5, 3)))
        self.activation = {}
        self.body.fc1.register_forward_hook(self.get_activation("fc1"))
        self.body.fc2.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
        self.body.fc2.register_forward_hook(lambda m, args, out: out + 1)

    def get_activation(self, name):
        def hook(model, input, output):
            self.activation[name] = output.detach()

        return hook

    def forward(self, x):
        out = self.body(x)
        return out, self.activation["fc1"].mean()


class IntermediateLayers(nn.ModuleDict):
    def __init__(self, model, return_layers):
        orig = dict(return_layers)
        layers = OrderedDict()
        for name, module in model.named_children():
            layers[name] = module
            return_layers.pop(name, None)
            if not return_layers:
                break
        super().__init__(layers)
        self.return_layers = orig

    def forward(self, x):
        out = OrderedDict()
        for name, module in self.items():
            x = module(x)
            if name in self.return_layers:
                out[self.return_layers[name]] = x
        return out


def _intermediate():
    body = nn.Sequential(OrderedDict([(f"l{i}", nn.Linear(4, 4)) for i in range(4)]))
    return IntermediateLayers(body, {"l1": "feat1", "l2": "feat2"})


class Checkpointed(nn.Module):
    def __init__(self, reentrant=False, parts=0):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3)])
        self.reentrant, self.parts, self.use_checkpoint = reentrant, parts, True

    def forward(self, x):
        if self.parts:
            return checkpoint_sequential(self.layers, self.parts, x, use_reentrant=self.reentrant)
        for layer in self.layers:
            if self.use_checkpoint:
                x = checkpoint(layer, x, use_reentrant=self.reentrant)
            else:
                x = layer(x)
        return x


class Autocast(nn.Module):
    def __init__(self, enabled=True):
        super().__init__()
        self.fc, self.enabled = nn.Linear(4, 4), enabled

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.enabled):
            y = self.fc(x)
            with torch.autocast("cpu", enabled=False):
                z = y.float() @ self.fc.weight
        return y, z


class Frozen(nn.Module):
    """A backbone under no_grad, a decorated method, gradients switched by a flag."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head, self.finetune = nn.Linear(4, 4), nn.Linear(4, 2), False

    @torch.no_grad()
    def features(self, x):
        return self.backbone(x).relu()

    def forward(self, x):
        with torch.set_grad_enabled(self.finetune and torch.is_grad_enabled()):
            h = self.backbone(x)
        with torch.no_grad():
            g = self.features(x)
        return self.head(h + g), torch.is_grad_enabled()


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x > 0).float()

    @staticmethod
    def backward(ctx, grad_output):
        return F.hardtanh(grad_output)


class Binarized(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return StraightThrough.apply(self.fc(x))


class GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, alpha):
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output.neg() * ctx.alpha, None


class DomainAdversarial(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.label, self.domain = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 2)

    def forward(self, x, alpha=0.7):
        f = self.features(x)
        return self.label(f), self.domain(GradientReversal.apply(f, alpha))


@dataclass
class BlockConfig:
    """Nested in ModelConfig."""

    dim: int = 4
    act: str = "gelu"


@dataclass
class ModelConfig:
    """Made over with replace and asdict in forward."""

    block: BlockConfig = field(default_factory=BlockConfig)
    depth: int = 2
    scales: tuple[float, ...] = (1.0, 0.5)


class DataclassConfig(nn.Module):
    def __init__(self, cfg=None):
        super().__init__()
        self.cfg = cfg or ModelConfig()
        self.blocks = nn.ModuleList(
            [nn.Linear(self.cfg.block.dim, self.cfg.block.dim) for _ in range(self.cfg.depth)]
        )

    def forward(self, x):
        local = replace(self.cfg, depth=1)
        act = getattr(F, self.cfg.block.act)
        for block, scale in zip(self.blocks[: self.cfg.depth], asdict(self.cfg)["scales"], strict=True):
            x = act(block(x)) * scale
        return x * local.depth


class Mode(enum.Enum):
    MEAN = "mean"
    MAX = enum.auto()

    @property
    def is_mean(self):
        return self is Mode.MEAN


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 3


class EnumMode(nn.Module):
    def __init__(self, mode="mean"):
        super().__init__()
        self.mode, self.level, self.fc = Mode(mode), Level.HIGH, nn.Linear(4, 4)
        self.table = {Mode.MEAN: torch.mean, Mode.MAX: torch.amax}

    def forward(self, x):
        x = self.fc(x) * self.level
        if self.mode == Mode.MEAN and self.mode.is_mean and self.level > Level.LOW:
            x = x + Level.LOW.value
        return self.table[self.mode](x, 1), self.mode.name, str(self.level.name).lower()


class Counting(nn.Module):
    """A counter and running statistics that forward updates."""

    def __init__(self):
        super().__init__()
        self.calls, self.history, self.stats = 0, [], defaultdict(int)
        self.register_buffer("running", torch.zeros(4))
        self.register_buffer("num_batches", torch.tensor(0, dtype=torch.long))
        self.ema = torch.zeros(4)

    def forward(self, x):
        self.num_batches += 1
        self.running = 0.9 * self.running + 0.1 * x.detach().mean(0)
        self.ema.mul_(0.5).add_(x.detach().mean(0), alpha=0.5)
        self.stats["forward"] += x.size(0)
        return x - self.running + self.num_batches


class PythonCounter(Counting):
    """A Python number that grows with each call and is used."""

    def forward(self, x):
        self.calls += 1
        if self.calls % 2 == 0:
            x = x * 2
        return super().forward(x) + self.calls


class TrainingCounter(Counting):
    def forward(self, x):
        if self.training:
            self.calls += 1
            self.history.append(tuple(x.shape))
        return super().forward(x)


class Annealed(nn.Module):
    """A temperature that decays by a Python float on the module."""

    def __init__(self):
        super().__init__()
        self.temperature, self.fc = 1.0, nn.Linear(4, 3)

    def forward(self, x):
        self.temperature = max(self.temperature * 0.9, 0.1)
        return F.softmax(self.fc(x) / self.temperature, -1)


class Logged(nn.Module):
    def __init__(self, level=logging.DEBUG):
        super().__init__()
        self.fc, self.level = nn.Linear(4, 3), level

    def forward(self, x):
        logger.log(self.level, "input %s", tuple(x.shape))
        y = self.fc(x)
        logger.debug(f"output {tuple(y.shape)}")
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("mean %s", y.mean())
        return y


class Warned(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x, mask=None):
        if mask is None:
            warnings.warn("no mask was given", stacklevel=2)
        return self.fc(x)


class Printed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        y = self.fc(x)
        print("shape", y.shape, flush=True)
        return y * 2


class Timed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.verbose = nn.Linear(4, 3), False

    def forward(self, x):
        start = time.time()
        y = self.fc(x)
        if self.verbose:
            print(time.time() - start)
        return y * 2


class Mocked(nn.Module):
    """A stand-in for a summary writer is called in forward."""

    def __init__(self):
        super().__init__()
        self.fc, self.writer = nn.Linear(4, 3), MagicMock()

    def forward(self, x):
        y = self.fc(x)
        self.writer.add_scalar("size", y.size(0))
        return y


class Checked(nn.Module):
    """Asserts, f-strings, raised and caught exceptions."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    @staticmethod
    def check(x, dim):
        if x.dim() != dim:
            raise ValueError(f"expected {dim} dimensions, got {x.dim()} of shape {tuple(x.shape)}")

    def forward(self, x):
        self.check(x, 2)
        assert x.size(-1) == self.fc.in_features, f"Expected {4} features, got {x.size(-1)}"
        assert x.dtype == torch.float32, f"{x.dtype=} {self.fc!s}"
        try:
            self.check(x, 3)
        except ValueError:
            x = x.unsqueeze(0)
        try:
            scale = {"a": 1}["b"]
        except KeyError as e:
            scale = len(e.args)
        else:
            scale = 7
        finally:
            x = x + 1
        return self.fc(x) * scale


class Delegating(nn.Module):
    """Attributes of a wrapped module through __getattr__."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(4, 3)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)

    def forward(self, x):
        return F.linear(x, self.weight, self.bias) * self.in_features


class Properties(nn.Module):
    scale_default = 2.0
    instances = 0

    def __init__(self):
        super().__init__()
        self.fc, self._scale = nn.Linear(4, 3), None
        type(self).instances += 1

    @property
    def device(self):
        return next(self.parameters()).device

    @property
    def scale(self):
        return self._scale if self._scale is not None else self.scale_default

    @functools.cached_property
    def table(self):
        return torch.arange(3, dtype=torch.float32)

    @classmethod
    def name(cls):
        return cls.__name__.lower()

    def forward(self, x):
        out = self.fc(x.to(self.device)) * self.scale + self.table
        return out if self.name() == "properties" else -out


CASES = {
    "configured": Case(Configured, normal(2, 4)),
    "fallback_config": Case(FallbackConfig, normal(2, 4)),
    "registered": Case(Registered, normal(2, 4)),
    "hooked": Case(Hooked, normal(2, 4)),
    "intermediate_layers": Case(_intermediate, normal(2, 4)),
    "checkpointed": Case(Checkpointed, normal(2, 4), kept=False),
    "checkpointed_reentrant": Case(lambda: Checkpointed(reentrant=True), normal(2, 4), kept=False),
    "checkpointed_sequential": Case(lambda: Checkpointed(parts=2), normal(2, 4), kept=False),
    "autocast": Case(Autocast, normal(2, 4)),
    "autocast_off": Case(lambda: Autocast(False), normal(2, 4)),
    "frozen": Case(Frozen, normal(2, 4)),
    "binarized": Case(Binarized, normal(2, 4)),
    "domain_adversarial": Case(DomainAdversarial, normal(2, 4)),
    "dataclass_config": Case(DataclassConfig, normal(2, 4)),
    "enum_mode": Case(EnumMode, normal(2, 4), kept=False),
    "counting": Case(Counting, normal(2, 4), changes=True),
    "python_counter": Case(PythonCounter, normal(2, 4), changes=True),
    "training_counter": Case(TrainingCounter, normal(2, 4), changes=True),
    "training_counter_on": Case(TrainingCounter, normal(2, 4), training=True, changes=True),
    "annealed": Case(Annealed, normal(2, 4), changes=True),
    "logged": Case(Logged, normal(2, 4)),
    "warned": Case(Warned, normal(2, 4), kept=False),
    "printed": Case(Printed, normal(2, 4), kept=False),
    "timed": Case(Timed, normal(2, 4), kept=False),
    "mocked": Case(Mocked, normal(2, 4), kept=False),
    "checked": Case(Checked, normal(2, 4)),
    "delegating": Case(Delegating, normal(2, 4)),
    "properties": Case(Properties, normal(2, 4)),
}
