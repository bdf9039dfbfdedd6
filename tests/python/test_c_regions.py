"""Regions that an object of C code, or a list only C code sees, keeps open: with a break inside and without one.

Results and what is left on are eager's in each of the first calls. `modes` itself breaks, inside the region and behind
it. Where that cannot be described the rest of the call runs eagerly; the fifth call is still answered by an entry
up to the region, but for those in NEVER.
"""

from __future__ import annotations

import pytest

from flashpoint import _C
from tests.support import check_calls

PRELUDE = """
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.overrides import TorchFunctionMode
from torch._subclasses.functional_tensor import FunctionalTensorMode
from torch.utils._mode_utils import no_dispatch
from torch._dispatch.python import enable_python_dispatcher
class Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None): return func(*args, **(kwargs or {}))
class Function(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None): return func(*args, **(kwargs or {}))
def brk(): print(end='')
def modes():
    return (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch._C._len_torch_dispatch_stack(),
            torch._C._len_torch_function_stack(), torch._C._is_torch_function_enabled(), torch._C._get_tracing_state() is None,
            torch.is_anomaly_enabled(), torch._C._is_fwd_grad_enabled(), torch._C._is_multithreading_enabled(),
            torch.backends.mkldnn.enabled, torch.get_default_dtype(), forward_ad._current_level,
            torch._C._autograd._saved_tensors_hooks_is_enabled(), torch._C._is_view_replay_enabled(),
            repr(torch._C._dispatch_tls_local_exclude_set()), torch.sparse.check_sparse_tensor_invariants.is_enabled(),
            torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled())
"""

REGIONS = {
    "saved_tensors_hooks": "torch.autograd.graph.saved_tensors_hooks(lambda t: t * 2, lambda t: t / 2)",
    "save_on_cpu": "torch.autograd.graph.save_on_cpu()",
    "disable_saved_tensors_hooks": "torch.autograd.graph.disable_saved_tensors_hooks('no')",
    "dual_level": "forward_ad.dual_level()",
    "fwd_grad": "forward_ad._set_fwd_grad_enabled(False)",
    "DisableTorchFunction": "torch._C.DisableTorchFunction()",
    "DisableTorchFunctionSubclass": "torch._C.DisableTorchFunctionSubclass()",
    "record_function": "torch.profiler.record_function('r')",
    "emit": "torch.autograd.profiler.record_function('r')",
    "FunctionalTensorMode": "FunctionalTensorMode()",
    "device": "torch.device('cpu')",
    "function mode": "Function()",
    "dispatch mode": "Dispatch()",
    "no_dispatch": "no_dispatch()",
    "multithreading": "torch.autograd.set_multithreading_enabled(False)",
    "view replay": "torch.autograd._force_original_view_tracking(True)",
    "anomaly": "torch.autograd.set_detect_anomaly(True, check_nan=False)",
    "sdpa_kernel": "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)",
    "mkldnn flags": "torch.backends.mkldnn.flags(enabled=False)",
    "fork_rng": "torch.random.fork_rng(devices=[])",
    "sparse invariants": "torch.sparse.check_sparse_tensor_invariants()",
    "below autograd": "torch._C._AutoDispatchBelowAutograd()",
    "below ADInplaceOrView": "torch._C._AutoDispatchBelowADInplaceOrView()",
    "excluded keys": "torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutogradCPU))",
    "preserved keys": "torch._C._PreserveDispatchKeyGuard()",
    "no torch dispatch": "torch._C._DisableTorchDispatch()",
    "no autocast": "torch._C._DisableAutocast()",
    "no functorch": "torch._C._DisableFuncTorch()",
    "python dispatcher": "enable_python_dispatcher()",
    "inference_mode(False)": "torch.inference_mode(False)",
    "set_grad_enabled": "torch.set_grad_enabled(False)",
}
# Nothing of these calls is kept: the recording is dropped each time, or rests.
NEVER = {
    "DisableTorchFunction",
    "DisableTorchFunctionSubclass",
    "FunctionalTensorMode",
    "device",
    "function mode",
}
RAII = {
    "below autograd": "torch._C._AutoDispatchBelowAutograd()",
    "no torch dispatch": "torch._C._DisableTorchDispatch()",
    "inference mode": "torch._C._InferenceMode(True)",
}


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_region(name: str, breaks: bool, grad: bool) -> None:
    inside = "  y = x * 2\n    brk()\n    y = y * x + 1" if breaks else "  y = x * 2\n    y = y * x + 1"
    source = f"{PRELUDE}\ndef fn(x):\n  with {REGIONS[name]}:\n  {inside}\n    seen = modes()\n  z = y * 3\n  return y, z, seen, modes()"
    calls = [f"(x + {i}).requires_grad_({grad})" for i in range(5)]
    last = check_calls(source, calls)[-1].counters
    assert not _C._graph_enabled()
    assert last["hits"] == (name not in NEVER), last


@pytest.mark.parametrize("name", RAII)
def test_guard_object(name: str) -> None:
    source = f"{PRELUDE}\ndef fn(x):\n  g = {RAII[name]}\n  y = x * 2\n  brk()\n  y = y + 1\n  seen = modes()\n  del g\n  return y * 3, seen, modes()"
    check_calls(source, [f"(x + {i}).requires_grad_()" for i in range(4)])
    assert not _C._graph_enabled()
