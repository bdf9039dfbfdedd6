"""Turns objects into text that two runs of one program can be compared by.

`describe(roots, module)` walks named roots in order and yields one (path, token) line per object. An object
met again is `same as <first path>`, a storage met again is `shares <first path>`: so aliasing between
results, arguments and globals is part of the text, and addresses are not. Values are compared bit by bit;
strides are left out. Reading an object must not change it: iterators are described without being advanced,
and nothing here runs user code (no `__eq__`, no `__repr__`, no `__getattr__`).

To add a type: add a function to `_WALKERS`.
"""

from __future__ import annotations

import collections
import contextvars
import enum
import functools
import gc
import hashlib
import io
import queue
import random
import re
import struct
import threading
import types
import weakref
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.utils.hooks import RemovableHandle

Line = tuple[str, str]

_ADDRESS = re.compile(r"0x[0-9a-f]{5,}")
_OPAQUE = (
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    range,
    type(...),
    type(NotImplemented),
)
_VALUES = (bytes, complex, torch.Size)  # which object it is says nothing
_SKIPPED_CLASS_KEYS = {
    "__dict__",
    "__weakref__",
    "__module__",
    "__doc__",
    "_abc_impl",
    "__annotations__",
    "__slotnames__",
}
_OPEN_MODULES = ("torch.nn", "types", "transformers", "collections", "argparse", "dataclasses", "fractions")


def scrub(text: str) -> str:
    """Text without addresses."""
    return _ADDRESS.sub("0x?", text)


def type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def tensor_bits(tensor: torch.Tensor) -> str:
    """A digest of the elements in logical order, with the elements themselves when they are few.

    To be called with torch functions disabled, as everything here that touches tensors."""
    with torch.no_grad():
        plain = tensor.detach()
        if type(plain) is not torch.Tensor:
            plain = plain.as_subclass(torch.Tensor)
        if plain.is_quantized:
            plain = plain.int_repr()
        if plain.layout != torch.strided:
            plain = plain.to_dense()
        plain = plain.resolve_conj().resolve_neg().contiguous()
        few = f" {plain.tolist()}" if plain.numel() <= 8 else ""
        raw = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return hashlib.blake2b(raw, digest_size=8).hexdigest() + few


def _is_value(value: object) -> bool:
    """Whether an object is immutable through and through, so that its identity is an accident."""
    if type(value) is tuple:
        return all(map(_is_value, value))
    if isinstance(value, np.number | np.bool_):  # as immutable as Python's own
        return True
    return value is None or type(value) in (bool, int, float, str, bytes, complex)


class _Walker:
    def __init__(self, module: types.ModuleType | None) -> None:
        self.lines: list[Line] = []
        self.module = module
        self._seen: dict[int, str] = {}
        self._storages: dict[int, str] = {}
        self._alive: list[object] = []

    def emit(self, path: str, token: str) -> None:
        self.lines.append((path, token))

    def walk(self, path: str, value: object) -> None:
        kind = type(value)
        if value is None or kind is bool or kind is int:
            self.emit(path, f"{kind.__name__} {value!r}")
        elif kind is float:
            self.emit(path, f"float {value!r} {struct.pack('<d', value).hex()}")
        elif kind is str:
            self.emit(path, f"str {scrub(value)!r}")
        elif kind in _VALUES or isinstance(value, _OPAQUE):
            self.emit(path, f"{kind.__name__} {value!r}")
        elif isinstance(value, np.number | np.bool_):  # as immutable as Python's own
            self.emit(path, f"{kind.__name__} {value.dtype} {value.tobytes().hex()}")
        elif kind is tuple and _is_value(value):
            self.emit(path, f"builtins.tuple of {len(value)}")
            self.items(path, value)
        else:
            first = self._seen.setdefault(id(value), path)
            if first is not path:
                self.emit(path, f"same as {first}")
                return
            self._alive.append(value)
            self._walk_new(path, value, kind)

    def _walk_new(self, path: str, value: object, kind: type) -> None:
        walker = _walker_of.get(kind)
        if walker is None:
            walker = next((walker for base, walker in _WALKERS if issubclass(kind, base)), _instance)
            if kind.__module__ != "program":  # its classes would be kept alive
                _walker_of[kind] = walker
        walker(self, path, value)

    def items(self, path: str, values: Iterable[object]) -> None:
        for index, value in enumerate(values):
            self.walk(f"{path}[{index}]", value)

    def mapping(self, path: str, mapping: dict) -> None:
        for index, (key, value) in enumerate(list(mapping.items())):
            if isinstance(key, str | int | float | bool | bytes | type(None)):
                # The token names the type too: 1, True and 1.0 are one key.
                self.emit(f"{path}.key{index}", f"{type(key).__name__} {scrub(repr(key))}")
                self.walk(f"{path}[{key!r}]", value)
            else:
                self.walk(f"{path}.key{index}", key)
                self.walk(f"{path}.value{index}", value)

    def storage(self, path: str, tensor: torch.Tensor) -> None:
        try:
            storage = tensor.untyped_storage()
        except (RuntimeError, NotImplementedError):
            return
        self._alive.append(storage)
        first = self._storages.setdefault(storage._cdata, path)
        if first is not path:
            self.emit(path, f"shares {first}")

    def own(self, thing: object) -> bool:
        """Whether a class or function was defined by the program that is described."""
        return self.module is not None and getattr(thing, "__module__", None) == self.module.__name__


def _tensor(w: _Walker, path: str, t: torch.Tensor) -> None:
    with torch._C.DisableTorchFunction():
        try:
            _tensor_itself(w, path, t)
        except RuntimeError as error:  # a view that autograd refuses to rebuild
            w.emit(path, f"unreadable: {scrub(str(error))}")


def _tensor_itself(w: _Walker, path: str, t: torch.Tensor) -> None:
    facts = [type_name(type(t)), str(t.dtype), str(tuple(t.shape)), str(t.device)]
    facts += [
        name
        for name, on in (
            ("requires_grad", t.requires_grad),
            ("leaf", t.is_leaf),
            ("conj", t.is_conj()),
            ("neg", t.is_neg()),
            ("inference", t.is_inference()),
            ("retains_grad", t.retains_grad),
        )
        if on
    ]
    if t.layout != torch.strided:
        facts.append(str(t.layout))
    if t._backward_hooks:
        facts.append(f"hooks={len(t._backward_hooks)}")
    nested = hasattr(type(t), "__tensor_flatten__")
    if t.device.type != "meta" and not nested:
        facts.append(tensor_bits(t))
    w.emit(path, " ".join(facts))
    if nested:
        for name in t.__tensor_flatten__()[0]:
            w.walk(f"{path}.{name}", getattr(t, name))
    elif t.layout == torch.strided:
        w.storage(path, t)
    if t.is_leaf and t.grad is not None:
        w.walk(f"{path}.grad", t.grad)
    # Asking a tensor for its dict makes one, which guards may notice.
    if any(type(held) is dict for held in gc.get_referents(t)) and t.__dict__:
        w.mapping(path, t.__dict__)


def _sequence(w: _Walker, path: str, value: object) -> None:
    size = tuple.__len__(value) if isinstance(value, tuple) else list.__len__(value)
    w.emit(path, f"{type_name(type(value))} of {size}")
    w.items(path, (tuple if isinstance(value, tuple) else list).__iter__(value))
    _attributes(w, path, value)


def _deque(w: _Walker, path: str, value: collections.deque) -> None:
    w.emit(path, f"{type_name(type(value))} of {len(value)} maxlen={value.maxlen}")
    w.items(path, list(value))


def _dict(w: _Walker, path: str, value: dict) -> None:
    w.emit(path, f"{type_name(type(value))} of {dict.__len__(value)}")
    if isinstance(value, collections.defaultdict):
        w.walk(f"{path}.default_factory", value.default_factory)
    order = collections.OrderedDict if isinstance(value, collections.OrderedDict) else dict
    w.mapping(path, {k: dict.__getitem__(value, k) for k in order.__iter__(value)})
    _attributes(w, path, value)


def _set(w: _Walker, path: str, value: set | frozenset) -> None:
    w.emit(path, f"{type_name(type(value))} of {len(value)}")

    def order(item: object) -> str:
        plain = isinstance(item, str | int | float | bytes | tuple | type(None) | enum.Enum)
        return type_name(type(item)) + (scrub(repr(item)) if plain else "")

    w.items(path, sorted(value, key=order))


def _array(w: _Walker, path: str, value: np.ndarray) -> None:
    values = (
        value.tolist() if value.size <= 8 else hashlib.blake2b(value.tobytes(), digest_size=8).hexdigest()
    )
    w.emit(
        path,
        f"{type_name(type(value))} {value.dtype} {value.shape} {values} writable={value.flags.writeable}",
    )


def _code(w: _Walker, path: str, value: types.CodeType) -> None:
    digest = hashlib.blake2b(value.co_code + repr(value.co_names).encode(), digest_size=6).hexdigest()
    w.emit(path, f"code {value.co_qualname}:{value.co_firstlineno} {digest}")


def _function(w: _Walker, path: str, value: types.FunctionType) -> None:
    if w.module is None or value.__globals__ is not w.module.__dict__:
        w.emit(path, f"function {value.__module__}.{value.__qualname__}")
        return
    w.emit(path, f"function {value.__name__}")
    w.walk(f"{path}.__code__", value.__code__)
    if value.__defaults__:
        w.walk(f"{path}.__defaults__", value.__defaults__)
    if value.__kwdefaults__:
        w.walk(f"{path}.__kwdefaults__", value.__kwdefaults__)
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        w.walk(f"{path}.<{name}>", cell)
    if value.__dict__:
        w.mapping(path, value.__dict__)


def _cell(w: _Walker, path: str, value: types.CellType) -> None:
    w.emit(path, "cell")
    try:
        w.walk(f"{path}.value", value.cell_contents)
    except ValueError:
        w.emit(f"{path}.value", "empty")


def _method(w: _Walker, path: str, value: types.MethodType) -> None:
    w.emit(path, "method")
    w.walk(f"{path}.__func__", value.__func__)
    w.walk(f"{path}.__self__", value.__self__)


def _partial(w: _Walker, path: str, value: functools.partial) -> None:
    w.emit(path, "partial")
    w.walk(f"{path}.func", value.func)
    w.walk(f"{path}.args", value.args)
    w.walk(f"{path}.keywords", value.keywords)


def _class(w: _Walker, path: str, value: type) -> None:
    w.emit(path, f"class {type_name(value)}")
    if not w.own(value):
        return
    w.walk(f"{path}.__bases__", value.__bases__)
    w.mapping(path, {k: v for k, v in value.__dict__.items() if k not in _SKIPPED_CLASS_KEYS})


def _generator(w: _Walker, path: str, value: types.GeneratorType) -> None:
    frame = value.gi_frame
    if frame is None:
        w.emit(path, f"generator {value.__name__} finished")
        return
    w.emit(path, f"generator {value.__name__} line {frame.f_lineno}")
    w.mapping(f"{path}.locals", {k: v for k, v in frame.f_locals.items() if k != "self"})


def _weakref(w: _Walker, path: str, value: weakref.ref) -> None:
    target = value()
    w.emit(path, "weakref to nothing" if target is None else "weakref")
    if target is not None:
        w.walk(f"{path}()", target)


def _cached(w: _Walker, path: str, value: object) -> None:
    w.emit(path, f"lru_cache {value.cache_info()}")
    w.walk(f"{path}.__wrapped__", value.__wrapped__)


def _contextvar(w: _Walker, path: str, value: contextvars.ContextVar) -> None:
    w.emit(path, f"contextvar {value.name}")
    try:
        w.walk(f"{path}.value", value.get())
    except LookupError:
        w.emit(f"{path}.value", "unset")


def _exception(w: _Walker, path: str, value: BaseException) -> None:
    w.emit(path, type_name(type(value)))
    w.walk(f"{path}.args", value.args)
    if value.__dict__:
        w.mapping(path, value.__dict__)


def _enum(w: _Walker, path: str, value: enum.Enum) -> None:
    w.emit(path, f"{type_name(type(value))}.{value._name_} {scrub(repr(value._value_))}")


def _wrapped(w: _Walker, path: str, value: object) -> None:
    w.emit(path, type(value).__name__)
    w.walk(f"{path}.__func__", value.__func__)


def _property(w: _Walker, path: str, value: property) -> None:
    w.emit(path, "property")
    for name in ("fget", "fset", "fdel"):
        w.walk(f"{path}.{name}", getattr(value, name))


def _slice(w: _Walker, path: str, value: slice) -> None:
    w.emit(path, "slice")
    w.items(path, (value.start, value.stop, value.step))


def _module(w: _Walker, path: str, value: torch.nn.Module) -> None:
    w.emit(path, type_name(type(value)))
    state = {}
    for name, content in object.__getattribute__(value, "__dict__").items():
        # Hook ids come from a counter of the whole process.
        state[name] = list(content.values()) if "_hooks" in name and isinstance(content, dict) else content
    w.mapping(path, state)


def _named(w: _Walker, path: str, value: object) -> None:
    w.emit(path, f"{type(value).__name__} {getattr(value, '__qualname__', getattr(value, '__name__', ''))}")


def _plain(text: Callable[[object], object]) -> Callable[[_Walker, str, object], None]:
    def walker(w: _Walker, path: str, value: object) -> None:
        w.emit(path, f"{type_name(type(value))} {scrub(str(text(value)))}")

    return walker


def _digest(text: object) -> str:
    return hashlib.blake2b(repr(text).encode(), digest_size=8).hexdigest()


def _slot_names(kind: type) -> list[str]:
    """The slots of a class; unlike copyreg's function this leaves no cache on the class."""
    names = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name not in ("__dict__", "__weakref__"):
                names.append(f"_{base.__name__}{name}" if name.startswith("__") else name)
    return names


def _attributes(w: _Walker, path: str, value: object) -> None:
    """The instance dict and slots, read past `__getattribute__`."""
    try:
        held = object.__getattribute__(value, "__dict__")
    except AttributeError:
        held = None
    if type(held) is dict and held:
        w.mapping(path, held)
    for name in _slot_names(type(value)):
        try:
            w.walk(f"{path}.{name}", object.__getattribute__(value, name))
        except AttributeError:
            w.emit(f"{path}.{name}", "unset")


def _instance(w: _Walker, path: str, value: object) -> None:
    kind = type(value)
    if kind.__module__ in ("builtins", "itertools") and hasattr(value, "__next__"):
        w.emit(path, f"iterator {kind.__name__}")
        try:
            w.walk(f"{path}.state", value.__reduce__())
        except TypeError:
            pass
        return
    for base in (int, float, str, bytes):
        if isinstance(value, base):
            w.emit(path, f"{type_name(kind)} {scrub(base.__repr__(value))}")
            break
    else:
        w.emit(path, type_name(kind))
    if w.own(kind) or kind.__module__.startswith(_OPEN_MODULES):
        _attributes(w, path, value)


_walker_of: dict[type, Callable] = {}
_WALKERS: list[tuple[type | tuple[type, ...], Callable]] = [
    (torch.Tensor, _tensor),
    ((tuple, list), _sequence),
    (dict, _dict),
    ((set, frozenset), _set),
    (collections.deque, _deque),
    (np.ndarray, _array),
    (np.generic, _plain(lambda v: f"{v.dtype} {v.tobytes().hex()}")),
    (enum.Enum, _enum),
    (torch.nn.Module, _module),
    (types.FunctionType, _function),
    (types.MethodType, _method),
    (types.CellType, _cell),
    (types.CodeType, _code),
    (types.GeneratorType, _generator),
    (functools.partial, _partial),
    (functools._lru_cache_wrapper, _cached),
    (types.ModuleType, _plain(lambda m: m.__name__)),
    (type, _class),
    (RemovableHandle, _plain(lambda h: "")),
    (weakref.ref, _weakref),
    (contextvars.ContextVar, _contextvar),
    (BaseException, _exception),
    ((staticmethod, classmethod), _wrapped),
    (property, _property),
    (slice, _slice),
    (types.MappingProxyType, lambda w, p, v: (w.emit(p, "mappingproxy"), w.mapping(p, dict(v)))),
    (bytearray, _plain(bytes)),
    (io.StringIO, _plain(lambda s: repr((s.getvalue(), s.tell())))),
    (queue.Queue, lambda w, p, v: (w.emit(p, "Queue"), w.items(p, list(v.queue)))),
    (random.Random, _plain(lambda r: _digest(r.getstate()))),
    (np.random.RandomState, _plain(lambda r: _digest(r.get_state(legacy=False)["state"]))),
    (torch.Generator, _plain(lambda g: _digest(g.get_state().tolist()))),
    (threading.local, lambda w, p, v: (w.emit(p, "local"), w.mapping(p, v.__dict__))),
    (type(threading.Lock()), _plain(lambda v: v.locked())),
    (
        (
            types.BuiltinFunctionType,
            types.MethodWrapperType,
            types.WrapperDescriptorType,
            types.MethodDescriptorType,
            types.GetSetDescriptorType,
            types.MemberDescriptorType,
        ),
        _named,
    ),
]


def describe(roots: Iterable[tuple[str, object]], module: types.ModuleType | None = None) -> list[Line]:
    """Describes the roots in order; `module` is the program, whose classes and functions are opened."""
    walker = _Walker(module)
    for name, value in roots:
        walker.walk(name, value)
    return walker.lines


def difference(eager: list[Line], other: list[Line]) -> str | None:
    """The first difference, in words; None when both say the same."""
    for left, right in zip(eager, other, strict=False):
        if left != right:
            return f"eager:    {left[0]}: {left[1]}\n  compiled: {right[0]}: {right[1]}"
    if len(eager) != len(other):
        longer, who = (eager, "eager") if len(eager) > len(other) else (other, "compiled")
        path, token = longer[min(len(eager), len(other))]
        return f"only {who} has {path}: {token}"
    return None
