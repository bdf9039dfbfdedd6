"""What a stored recording depends on outside the program: contexts, and the keys made from them.

Two contexts are those of torch's own caches (torch/_inductor/runtime/caching/context.py), and a key made from
them equals torch's for the same schema. The third, the host, is part of Flashpoint's keys only.

A context is a class whose static methods are its *forms*; `forms_of_context()` lists them. To add a form to
the host context: a static method, and its name in `forms_of_context`.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch

from flashpoint import _C

__all__ = [
    "CompileContext",
    "Context",
    "HostContext",
    "IsolationSchema",
    "RuntimeContext",
    "SelectedCompileContext",
    "SelectedRuntimeContext",
    "isolation_context",
    "isolation_key",
    "key_parts",
]


class Context(ABC):
    """A named group of facts; each form is a static method without arguments that gives one of them."""

    @staticmethod
    @abstractmethod
    def forms_of_context() -> Sequence[str]:
        """Names of the forms, in order."""


class RuntimeContext(Context):
    """Settings of the process, read anew each time."""

    @staticmethod
    def forms_of_context() -> Sequence[str]:
        return ("inductor_configs", "torch_determinism_configs", "cuda_matmul_precision_configs")

    @staticmethod
    def inductor_configs() -> dict[str, object]:
        """Inductor's portable settings, private ones included. Imports inductor's configuration."""
        from torch._inductor import config

        settings: dict[str, object] = config.save_config_portable(ignore_private_configs=False)
        return settings

    @staticmethod
    def torch_determinism_configs() -> dict[str, object]:
        """Whether algorithms must be deterministic, whether that only warns, whether new memory is filled."""
        return {
            "torch.are_deterministic_algorithms_enabled": torch.are_deterministic_algorithms_enabled(),
            "torch.is_deterministic_algorithms_warn_only_enabled": (
                torch.is_deterministic_algorithms_warn_only_enabled()
            ),
            "torch.utils.deterministic.fill_uninitialized_memory": getattr(
                torch.utils.deterministic, "fill_uninitialized_memory", None
            ),
        }

    @staticmethod
    def cuda_matmul_precision_configs() -> dict[str, object]:
        """How exact CUDA's matrix products must be."""
        matmul = torch.backends.cuda.matmul
        names = (
            "fp32_precision",
            "allow_fp16_reduced_precision_reduction",
            "allow_bf16_reduced_precision_reduction",
        )
        return {f"torch.backends.cuda.matmul.{name}": getattr(matmul, name) for name in names}


class CompileContext(Context):
    """What code is compiled with and for. Each form is found out once per process."""

    @staticmethod
    def forms_of_context() -> Sequence[str]:
        return (
            "torch_version_hash",
            "triton_version_hash",
            "runtime",
            "runtime_version",
            "accelerator_properties",
        )

    @staticmethod
    @functools.cache
    def torch_version_hash() -> str:
        """Base64 of inductor's hash over torch's sources. Reads them all: a matter of a second."""
        from torch._inductor.codecache import torch_key

        return b64encode(torch_key()).decode()

    @staticmethod
    @functools.cache
    def triton_version_hash() -> str | None:
        """Triton's key; None where Triton is not installed."""
        from torch._inductor.runtime import triton_compat

        return triton_compat.triton_key() if triton_compat.HAS_TRITON else None

    @staticmethod
    @functools.cache
    def runtime() -> str | None:
        """What torch was built for: "CUDA", "HIP" or None."""
        if torch.version.cuda:
            return "CUDA"
        return "HIP" if torch.version.hip else None

    @staticmethod
    @functools.cache
    def runtime_version() -> str | None:
        """Version of that runtime; None without one."""
        versions = {"CUDA": torch.version.cuda, "HIP": torch.version.hip}
        return versions.get(CompileContext.runtime() or "")

    @staticmethod
    @functools.cache
    def accelerator_properties() -> str | None:
        """The current device's properties as torch prints them; None where there is no usable device."""
        if CompileContext.runtime() and torch.cuda.is_available():
            return repr(torch.cuda.get_device_properties())
        return None


class HostContext(Context):
    """This machine, interpreter and build of Flashpoint: part of the store's own keys, never of torch's.

    `torch_build` stands for `torch_version_hash` there: which build of torch it is can be asked at no cost,
    and tells apart all that were installed as they were built.
    """

    @staticmethod
    def forms_of_context() -> Sequence[str]:
        return ("cpu", "operating_system", "python", "torch_build", "flashpoint", "llvm")

    @staticmethod
    @functools.cache
    def cpu() -> str:
        """Architecture and the features that code may be generated for."""
        return f"{platform.machine()} {_C._store_host()['cpu_features']}".strip()

    @staticmethod
    @functools.cache
    def operating_system() -> str:
        """Kind of system and its C library; not the kernel's version, which code does not depend on."""
        try:
            libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
        except (OSError, ValueError):
            libc = ""
        return f"{platform.system()} {libc}".strip()

    @staticmethod
    @functools.cache
    def python() -> str:
        """Implementation, exact version, level of optimization."""
        return f"{sys.implementation.name} {platform.python_version()} -O{sys.flags.optimize}"

    @staticmethod
    @functools.cache
    def torch_build() -> str:
        """Version and commit of torch."""
        return f"{torch.__version__} {torch.version.git_version}"

    @staticmethod
    @functools.cache
    def flashpoint() -> str:
        """Version of the store's format, and the build of the core."""
        host = _C._store_host()
        return f"format {host['format_version']} build {host['build_id']}"

    @staticmethod
    def llvm() -> str | None:
        """None: recordings hold no generated code. That has records, and keys, of its own."""
        return None


class SelectedRuntimeContext(TypedDict, total=False):
    """Forms of the runtime context to include; one that is left out is not."""

    inductor_configs: bool
    torch_determinism_configs: bool
    cuda_matmul_precision_configs: bool


class SelectedCompileContext(TypedDict, total=False):
    """Forms of the compile context to include; one that is left out is not."""

    torch_version_hash: bool
    triton_version_hash: bool
    runtime: bool
    runtime_version: bool
    accelerator_properties: bool


class IsolationSchema(TypedDict):
    """For each of the two contexts: True (all forms), False (none), or the forms chosen."""

    runtime_context: SelectedRuntimeContext | bool
    compile_context: SelectedCompileContext | bool


_CONTEXTS: dict[str, type[Context]] = {"runtime_context": RuntimeContext, "compile_context": CompileContext}
_EVERYTHING = IsolationSchema(runtime_context=True, compile_context=True)

# What Flashpoint's recordings depend on. Left out are inductor's settings, which do not reach our code; the
# hash over torch's sources, which costs more than a warm start may (torch_build is there for it); Triton and
# the accelerator: we generate no code for it, and asking would import the one and initialize the other.
_OWN = IsolationSchema(
    runtime_context={"torch_determinism_configs": True, "cuda_matmul_precision_configs": True},
    compile_context={"runtime": True, "runtime_version": True},
)


def isolation_context(schema: IsolationSchema = _EVERYTHING) -> dict[str, dict[str, object] | None]:
    """The facts that a schema selects: context -> form -> value, None for a context without chosen forms.

    Raises TypeError for what is no schema or selection, ValueError for a missing or unknown context and for
    an unknown form.
    """
    return _collect("isolation_context", schema)


def isolation_key(schema: IsolationSchema = _EVERYTHING) -> str:
    """32 hex digits that name the facts a schema selects: the key that torch 2.13's caches use for them.

    Raises as `isolation_context` does, and TypeError if a setting holds a value that no key can be made of.
    """
    return _digest("isolation_key", _collect("isolation_key", schema))


def key_parts(schema: IsolationSchema = _OWN) -> dict[str, str]:
    """The contexts as named parts of a key of Flashpoint's store: "context.form" -> value as text.

    The host context is always whole. Raises as `isolation_context` does.
    """
    chosen = _collect("key_parts", schema)
    host = {form: getattr(HostContext, form)() for form in HostContext.forms_of_context()}
    return {
        f"{context}.{form}": _canonical("key_parts", value, f"{context}.{form}")
        for context, forms in {**chosen, "host_context": host}.items()
        for form, value in (forms or {}).items()
    }


def _collect(function: str, schema: Any) -> dict[str, dict[str, object] | None]:
    name = f"[flashpoint.store.{function}]"
    if not isinstance(schema, Mapping):
        raise TypeError(
            f"{name} a schema is a dict with the keys {_listed(_CONTEXTS)}, not {type(schema).__name__}"
        )
    if unknown := [key for key in schema if key not in _CONTEXTS]:
        hint = "; the host context is part of key_parts() only" if "host_context" in unknown else ""
        raise ValueError(f"{name} unknown context {_listed(unknown)}; there are {_listed(_CONTEXTS)}{hint}")
    if missing := [key for key in _CONTEXTS if key not in schema]:
        raise ValueError(f"{name} the schema lacks {_listed(missing)}: set it to True, False or chosen forms")
    return {
        key: {form: getattr(context, form)() for form in _chosen(name, key, context, schema[key])} or None
        for key, context in _CONTEXTS.items()
    }


def _chosen(name: str, key: str, context: type[Context], selection: Any) -> list[str]:
    forms = context.forms_of_context()
    if isinstance(selection, bool):
        return list(forms) if selection else []
    if not isinstance(selection, Mapping):
        raise TypeError(
            f"{name} {key} must be True, False or a dict from forms to bools, not {type(selection).__name__}"
        )
    if unknown := [form for form in selection if form not in forms]:
        raise ValueError(f"{name} {key} has no form {_listed(unknown)}; there are {_listed(forms)}")
    for form, chosen in selection.items():
        if not isinstance(chosen, bool):
            raise TypeError(f"{name} {key}[{form!r}] must be True or False, not {type(chosen).__name__}")
    return [form for form in forms if selection.get(form, False)]


def _digest(function: str, value: object) -> str:
    try:
        return _C._store_digest(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise type(error)(_no_key(function, "a setting", error)) from error


def _canonical(function: str, value: object, place: str) -> str:
    try:
        return _C._store_canonical(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise type(error)(_no_key(function, place, error)) from error


def _no_key(function: str, place: str, error: Exception) -> str:
    return (
        f"[flashpoint.store.{function}] {place} holds what no key can be made of: {error}. Settings must "
        "be numbers, strings, None, or lists and dicts of them; set it to one, or leave the form out of the "
        "schema"
    )


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names)
