"""The context managers of the peer's surface: the classes of `supported_ctx_manager_classes` and the branches of
`TorchCtxManagerClassVariable.call_function`, and others of torch's public interface."""
# fmt: off

from tests.python.torch_calls.entry import Entry
from tests.support import Call

_W = "w = torch.full((2, 3), 3.0, requires_grad=True)\n"

MANAGERS = [
    Entry("no_grad", "torch.no_grad", _W + "def fn(x):\n  with torch.no_grad(): a = x * w\n  b = x * w\n  return a, b, torch.is_grad_enabled()", expect="khHH"),
    Entry("no_grad as a decorator", "torch.no_grad", _W + "@torch.no_grad()\ndef g(x): return x * w\n@torch.no_grad\ndef h(x): return x * w\ndef fn(x): return g(x), h(x), x * w", expect="khHH"),
    Entry("enable_grad", "torch.enable_grad", _W + "def fn(x):\n  with torch.no_grad():\n    with torch.enable_grad(): a = x * w\n    b = x * w\n  return a, b", expect="khHH"),
    Entry("enable_grad of a caller without", "torch.enable_grad", _W + "def fn(x):\n  with torch.enable_grad(): return x * w", *[Call("x", pre=f"torch.set_grad_enabled({v})") for v in (False, False, True)], expect="khk"),
    Entry("set_grad_enabled", "torch.set_grad_enabled", _W + "def fn(x, m):\n  with torch.set_grad_enabled(m): return x * w", "x, False", "x, False", "x, True", "y, False", expect="khkh"),
    Entry("set_grad_enabled called", "torch.set_grad_enabled", _W + "def fn(x):\n  torch.set_grad_enabled(False)\n  a = x * w\n  torch.set_grad_enabled(True)\n  return a, x * w", expect="khHH"),
    Entry("set_grad_enabled left off", "torch.set_grad_enabled", _W + "def fn(x):\n  torch.set_grad_enabled(False)\n  return x * w", *[Call("x", pre="torch.set_grad_enabled(True)", post="torch.is_grad_enabled()")] * 3, expect="khh"),
    Entry("inference_mode", "torch.inference_mode", "def fn(x):\n  with torch.inference_mode(): a = x * 2\n  return a, a.is_inference(), x + 1", expect="khHH"),
    Entry("inference_mode as a decorator", "torch.inference_mode", "@torch.inference_mode()\ndef g(x): return x * 2\ndef fn(x): return g(x), x + 1", expect="khHH"),
    Entry("inference_mode(False)", "torch.inference_mode", _W + "def fn(x):\n  with torch.inference_mode(False): return x * w", expect="khHH"),
    Entry("inference_mode, both", "torch.inference_mode", _W + "def fn(x):\n  with torch.inference_mode():\n    with torch.inference_mode(False): a = x.clone() * w\n    b = x * w\n  return a, b, (x * w)", expect="khHH"),
    Entry("inference_mode with gradients", "torch.inference_mode", _W + "def fn(x):\n  with torch.inference_mode():\n    a = x * w\n    a.add_(1)\n  return a.requires_grad, a.clone() * x", expect="khHH"),
    Entry("fx annotate", "torch.fx.traceback.annotate", "def fn(x):\n  with torch.fx.traceback.annotate({'a': 1}): return x + 1"),
    Entry("Stream", "torch.Stream, a subclass as a manager", "def fn(x):\n  with torch.cpu.stream(torch.cpu.current_stream()): return x + 1", expect="khHH"),
    Entry("autocast", "torch.autocast", "def fn(x):\n  with torch.autocast('cpu', dtype=torch.bfloat16): a = x @ x.t()\n  return a, x @ x.t()", expect="khHH"),
    Entry("autocast disabled inside", "torch.autocast", "def fn(x):\n  with torch.autocast('cpu'):\n    a = x @ x.t()\n    with torch.autocast('cpu', enabled=False): b = x @ x.t()\n  return a, b", expect="khHH"),
    Entry("autocast of cpu.amp", "torch.cpu.amp.autocast", "def fn(x):\n  with torch.amp.autocast('cpu', cache_enabled=False): return x @ x.t()", expect="khHH"),
    Entry("autocast as a decorator", "torch.autocast", "@torch.autocast('cpu')\ndef g(x): return x @ x.t()\ndef fn(x): return g(x)", expect="khHH"),
    Entry("autocast of the caller", "torch.autocast", "def fn(x): return x @ x.t()", "x", "x", Call("x", pre="c = torch.autocast('cpu'); c.__enter__()", post="c.__exit__(None, None, None)"), "y", expect="khkh"),
    Entry("autocast nesting of the caller", "torch.autocast", "def fn(x):\n  a = torch.autocast_increment_nesting()\n  torch.autocast_decrement_nesting()\n  return a, x + 1", "x", "x", Call("x", pre="c = torch.autocast('cpu', enabled=False); c.__enter__()", post="c.__exit__(None, None, None)"), "x", expect="khkh"),
    Entry("cuda.amp autocast", "torch.cuda.amp.autocast", "def fn(x):\n  with torch.autocast('cuda', enabled=False): return x @ x.t()", expect="khHH"),
    Entry("record_function", "torch.profiler.record_function", "def fn(x):\n  with torch.profiler.record_function('a'): a = x + 1\n  with torch.autograd.profiler.record_function('b', 'args'): b = x * 2\n  return a, b", expect="khHH"),
    Entry("profile", "torch.profiler.profile", "def fn(x):\n  with torch.autograd.profiler.profile(enabled=False) as p: a = x + 1\n  return a", expect="khHH"),
    Entry("profile that is on", "torch.profiler.profile", "def fn(x):\n  with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as p: a = x + 1\n  return a"),
    Entry("DisableTorchFunctionSubclass", "torch._C.DisableTorchFunctionSubclass", "def fn(x):\n  with torch._C.DisableTorchFunctionSubclass(): a = x + 1, torch._C._is_torch_function_enabled()\n  return a, x * 2", expect="khHH"),
    Entry("DisableTorchFunction", "torch._C.DisableTorchFunction", "def fn(x):\n  with torch._C.DisableTorchFunction(): a = x + 1\n  return a, x * 2", expect="khHH"),
    Entry("vmap_increment_nesting", "torch.vmap", "def fn(x): return torch.vmap(lambda r: r * 2, in_dims=1)(x)"),
    Entry("jvp_increment_nesting", "torch.func.jvp", "def fn(x): return torch.func.jvp(lambda t: t.sin(), (x,), (x,))[1]"),
    Entry("_set_fwd_grad_enabled", "torch.autograd.forward_ad._set_fwd_grad_enabled", "import torch.autograd.forward_ad as fw\ndef fn(x):\n  with fw._set_fwd_grad_enabled(False): return x + 1"),
    Entry("dual_level", "torch.autograd.forward_ad.dual_level", "import torch.autograd.forward_ad as fw\ndef fn(x):\n  with fw.dual_level(): return fw.unpack_dual(fw.make_dual(x, x) * 2).tangent"),
    Entry("grad_increment_nesting", "torch.func.grad_and_value", "def fn(x): return torch.func.grad_and_value(lambda t: (t * t).sum())(x)"),
    Entry("enable_inplace_requires_grad", "torch._functorch.eager_transforms.enable_inplace_requires_grad", "from torch._functorch.eager_transforms import enable_inplace_requires_grad as e\ndef fn(x):\n  with e(True): return x + 1"),
    Entry("disable_saved_tensors_hooks", "torch.autograd.graph.disable_saved_tensors_hooks", "def fn(x):\n  with torch.autograd.graph.disable_saved_tensors_hooks('no'): return x + 1"),
    Entry("sdpa_kernel", "torch.nn.attention.sdpa_kernel", "from torch.nn.attention import sdpa_kernel, SDPBackend\ndef fn(x):\n  with sdpa_kernel(SDPBackend.MATH): return F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None])", expect="khHH"),
    Entry("sdpa_kernel, a list and a priority", "torch.nn.attention.sdpa_kernel", "from torch.nn.attention import sdpa_kernel, SDPBackend\ndef fn(x):\n  q = x[None, None]\n  with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]): a = F.scaled_dot_product_attention(q, q, q)\n  return a, F.scaled_dot_product_attention(q, q, q)", expect="khHH"),
    Entry("sdpa_kernel of the caller", "torch.nn.attention.sdpa_kernel", "from torch.nn.attention import sdpa_kernel, SDPBackend\ndef fn(x):\n  q = x[None, None]\n  return F.scaled_dot_product_attention(q, q, q)", "x", "x", Call("x", pre="c = sdpa_kernel(SDPBackend.MATH); c.__enter__()", post="c.__exit__(None, None, None)"), "y", expect="khkh"),
    Entry("use_training_state", "FSDPParamGroup.use_training_state", "def fn(x): return x + 1", note="needs torch.distributed", expect="khHH"),
]

MODES = [
    Entry("function mode", "torch.overrides.TorchFunctionMode", "class M(torch.overrides.TorchFunctionMode):\n  def __torch_function__(self, f, t, a=(), k=None): return f(*a, **(k or {}))\ndef fn(x):\n  with M():\n    a = x + 1\n  return a * 2", expect="khHH"),
    Entry("function mode that changes results", "torch.overrides.TorchFunctionMode", "class M(torch.overrides.TorchFunctionMode):\n  def __torch_function__(self, f, t, a=(), k=None):\n    r = f(*a, **(k or {}))\n    return r * 10 if f is torch.sin else r\ndef fn(x):\n  with M():\n    r = torch.sin(x) + torch.cos(x)\n  return r, torch.sin(x)", expect="khHH"),
    Entry("function mode with state", "torch.overrides.TorchFunctionMode", "class M(torch.overrides.TorchFunctionMode):\n  n = 0\n  def __torch_function__(self, f, t, a=(), k=None):\n    self.n += 1\n    return f(*a, **(k or {}))\nm = M()\ndef fn(x):\n  with m:\n    r = torch.sin(x) + 1\n  return r", *[Call(v, post="m.n") for v in ("x", "x", "y")], expect="kkk"),
    Entry("two function modes", "torch.overrides.TorchFunctionMode", "class M(torch.overrides.TorchFunctionMode):\n  def __init__(self, k):\n    super().__init__()\n    self.k = k\n  def __torch_function__(self, f, t, a=(), k=None): return f(*a, **(k or {})) * self.k if f is torch.sin else f(*a, **(k or {}))\ndef fn(x, k):\n  with M(2), M(k):\n    return torch.sin(x)", "x, 3", "x, 3", "x, 4", "y, 3", expect="khkh"),
    Entry("function mode and metadata", "torch.overrides.TorchFunctionMode", "class M(torch.overrides.TorchFunctionMode):\n  def __torch_function__(self, f, t, a=(), k=None):\n    r = f(*a, **(k or {}))\n    return 7 if f is torch.Tensor.dim else r\ndef fn(x):\n  with M():\n    return x * x.dim(), x.shape, len(x)"),
    Entry("function mode and torch.tensor", "torch.overrides.TorchFunctionMode", "class M(torch.overrides.TorchFunctionMode):\n  def __torch_function__(self, f, t, a=(), k=None):\n    r = f(*a, **(k or {}))\n    return r + 100 if f is torch.tensor else r\ndef fn(x):\n  with M():\n    return x + torch.tensor([1.0, 2, 3])", expect="khHH"),
    Entry("function mode left on", "torch.overrides.TorchFunctionMode", "class M(torch.overrides.TorchFunctionMode):\n  def __torch_function__(self, f, t, a=(), k=None): return f(*a, **(k or {}))\ndef fn(x):\n  m = M()\n  m.__enter__()\n  return x + 1", *[Call("x", post="(torch._C._len_torch_function_stack(), torch._C._pop_torch_function_stack())[0]")] * 3),
    Entry("function mode of the caller", "torch.overrides.TorchFunctionMode", "class M(torch.overrides.TorchFunctionMode):\n  def __torch_function__(self, f, t, a=(), k=None):\n    r = f(*a, **(k or {}))\n    return r * 10 if f is torch.sin else r\ndef fn(x): return torch.sin(x)", "x", "x", Call("x", pre="m = M(); m.__enter__()", post="m.__exit__(None, None, None)"), "x", expect="kh.h"),
    Entry("dispatch mode", "torch.utils._python_dispatch.TorchDispatchMode", "from torch.utils._python_dispatch import TorchDispatchMode\nclass M(TorchDispatchMode):\n  def __torch_dispatch__(self, f, t, a=(), k=None): return f(*a, **(k or {}))\ndef fn(x):\n  with M():\n    return x + 1"),
    Entry("dispatch mode of the caller", "torch.utils._python_dispatch.TorchDispatchMode", "from torch.utils._python_dispatch import TorchDispatchMode\nclass M(TorchDispatchMode):\n  def __torch_dispatch__(self, f, t, a=(), k=None): return f(*a, **(k or {})) * 10\ndef fn(x): return x + 1", "x", "x", Call("x", pre="m = M(); m.__enter__()", post="m.__exit__(None, None, None)"), "x", expect="kh.h"),
    Entry("torch.device", "torch.device as a manager", "def fn(x):\n  with torch.device('cpu'): return torch.ones(3) + x", expect="khHH"),
    Entry("torch.device, meta", "torch.device as a manager", "def fn(x):\n  with torch.device('meta'): a = torch.ones(3)\n  return a.device, torch.zeros(3) + x", expect="khHH"),
    Entry("set_default_device", "torch.set_default_device", "def fn(x): return torch.ones(3).device, x + 1", "x", "x", Call("x", pre="torch.set_default_device('meta')", post="torch.set_default_device(None)"), "x", expect="kh.h"),
    Entry("get_default_device", "torch.get_default_device", "def fn(x): return torch.get_default_device(), x + 1"),
    Entry("set_default_dtype", "torch.set_default_dtype", "def fn(x):\n  torch.set_default_dtype(torch.float64)\n  a = torch.ones(3)\n  torch.set_default_dtype(torch.float32)\n  return a, torch.ones(3) + x"),
    Entry("default dtype of the caller", "torch.get_default_dtype", "def fn(x): return torch.ones(3) + x, torch.get_default_dtype()", "x", "x", Call("x", pre="torch.set_default_dtype(torch.float64)"), Call("x", pre="torch.set_default_dtype(torch.float32)"), expect="khkh"),
    Entry("use_deterministic_algorithms", "torch.use_deterministic_algorithms", "def fn(x): return x.index_add(0, torch.tensor([0, 0]), x)", "x", "x", Call("x", pre="torch.use_deterministic_algorithms(True)"), Call("x", pre="torch.use_deterministic_algorithms(False)"), expect="khkh"),
    Entry("set_detect_anomaly", "torch.autograd.set_detect_anomaly", "def fn(x):\n  with torch.autograd.set_detect_anomaly(True): return x + 1"),
    Entry("saved_tensors_hooks", "torch.autograd.graph.saved_tensors_hooks", "def fn(t):\n  with torch.autograd.graph.saved_tensors_hooks(lambda s: s * 2, lambda s: s): return t.sin() * t", *[Call("t", pre="t = x.clone().requires_grad_()", post="(r.sum().backward(), t.grad)")] * 3),
    Entry("backends flags", "torch.backends.mkldnn.flags and others", "def fn(x):\n  with torch.backends.mkldnn.flags(enabled=False): return x @ x.t()"),
    Entry("flags read inside", "torch.backends.cuda.flash_sdp_enabled", "from torch.nn.attention import sdpa_kernel, SDPBackend\ndef fn(x):\n  with sdpa_kernel(SDPBackend.MATH): a = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled(), x + 1\n  return a, torch.backends.cuda.flash_sdp_enabled()", expect="khHH"),
    Entry("deterministic for a part", "torch.use_deterministic_algorithms", "def fn(x):\n  torch.use_deterministic_algorithms(True)\n  e = torch.empty(3) * 0\n  r = x.index_add(0, torch.zeros(2, dtype=torch.long), x)\n  torch.use_deterministic_algorithms(False)\n  return e.isnan().all(), r, x + 1", expect="kkhh"),
    Entry("deterministic left on", "torch.use_deterministic_algorithms", "def fn(x):\n  torch.use_deterministic_algorithms(True)\n  return x + 1", *[Call("x", post="torch.use_deterministic_algorithms(False)")] * 3),
    Entry("cudnn flags", "torch.backends.cudnn.flags", "def fn(x):\n  with torch.backends.cudnn.flags(enabled=False): return F.conv1d(x[None], x[None, :1].expand(1, 2, 3))"),
    Entry("set_float32_matmul_precision", "torch.set_float32_matmul_precision", "def fn(x): return torch.get_float32_matmul_precision(), x @ x.t()", "x", "x", Call("x", pre="torch.set_float32_matmul_precision('high')", post="torch.set_float32_matmul_precision('highest')"), "x", expect="khkh"),
    Entry("set_multithreading_enabled", "torch.autograd.set_multithreading_enabled", "def fn(x):\n  with torch.autograd.set_multithreading_enabled(False): return x + 1"),
    Entry("get_num_threads", "torch.get_num_threads", "def fn(x): return x * torch.get_num_threads()", "x", "x", Call("x", pre="torch.set_num_threads(2)", post="torch.set_num_threads(1)"), "x"),
    Entry("nullcontext and ExitStack", "contextlib", "def fn(x):\n  with contextlib.nullcontext(): a = x + 1\n  with contextlib.ExitStack() as s:\n    s.enter_context(torch.no_grad())\n    b = x * 2\n  return a, b"),
    Entry("own manager", "contextlib.contextmanager", "@contextlib.contextmanager\ndef m(k):\n  with torch.no_grad(): yield k\ndef fn(x):\n  with m(3) as k: return x * k", expect="khHH"),
    Entry("manager stored on an object", "torch.no_grad", "class A: pass\na = A()\na.c = torch.no_grad()\ndef fn(x):\n  with a.c: return x * 2", expect="khHH"),
    Entry("no_grad that raises", "torch.no_grad", "def fn(x):\n  try:\n    with torch.no_grad():\n      a = x + 1\n      raise ValueError('a')\n  except ValueError:\n    return a * 2, torch.is_grad_enabled()", expect="khHH"),
]

SECTIONS = {"managers": MANAGERS, "modes": MODES}
