"""Global and thread state: grad mode, autocast, default dtype and device, determinism, modes, random state."""
# fmt: off

from tests.python.guards.case import Case

_W = "w = torch.ones(3, requires_grad=True)\n"
_MODE = ("class Mode(torch.overrides.TorchFunctionMode):\n  def __torch_function__(self, f, types, args=(), kwargs=None):\n"
         "    r = f(*args, **(kwargs or {}))\n    return r * 2 if f is torch.sin else r\nmode = Mode()\n")
_DISPATCH = ("from torch.utils._python_dispatch import TorchDispatchMode\nclass Mode(TorchDispatchMode):\n"
             "  def __torch_dispatch__(self, f, types, args=(), kwargs=None):\n    r = f(*args, **(kwargs or {}))\n"
             "    return r * 2 if f is torch.ops.aten.sin.default else r\nmode = Mode()\n")

CASES = [
    Case("grad mode", _W + "def fn(x): return x * w", change="torch.set_grad_enabled(False)", undo="torch.set_grad_enabled(True)", hit="h"),
    Case("grad mode read", "def fn(x): return x + 1 if torch.is_grad_enabled() else x - 1",
         change="torch.set_grad_enabled(False)", undo="torch.set_grad_enabled(True)", hit="h"),
    Case("grad mode set inside", _W + "def fn(x):\n  with torch.no_grad(): a = x * w\n  return a, x * w",
         change="torch.set_grad_enabled(False)", undo="torch.set_grad_enabled(True)"),
    Case("set_grad_enabled argument", _W + "def fn(x, on):\n  with torch.set_grad_enabled(on): return x * w", "x, True", "x, False"),
    Case("inference mode", _W + "def fn(x): return x * w", change="g = torch.inference_mode(); g.__enter__()", undo="g.__exit__(None, None, None)"),
    Case("inference mode read", "def fn(x): return x + 1 if torch.is_inference_mode_enabled() else x - 1",
         change="g = torch.inference_mode(); g.__enter__()", undo="g.__exit__(None, None, None)"),
    Case("autocast", "def fn(x): return x @ x.t()", change="torch.set_autocast_enabled('cpu', True)", undo="torch.set_autocast_enabled('cpu', False)"),
    Case("autocast read", "def fn(x): return x + 1 if torch.is_autocast_enabled('cpu') else x - 1",
         change="torch.set_autocast_enabled('cpu', True)", undo="torch.set_autocast_enabled('cpu', False)"),
    Case("autocast dtype", "torch.set_autocast_enabled('cpu', True)\ndef fn(x): return x @ x.t()",
         change="torch.set_autocast_dtype('cpu', torch.float16)", undo="torch.set_autocast_dtype('cpu', torch.bfloat16)"),
    Case("autocast context", "def fn(x): return x @ x.t()", change="g = torch.autocast('cpu'); g.__enter__()", undo="g.__exit__(None, None, None)"),
    Case("autocast inside, by flag", "def fn(x, on):\n  with torch.autocast('cpu', enabled=on): return x @ x.t()", "x, True", "x, False"),
    Case("autocast inside, by dtype", "def fn(x, d):\n  with torch.autocast('cpu', dtype=d): return x @ x.t()", "x, torch.bfloat16", "x, torch.float16"),
    Case("default dtype", "def fn(x): return torch.ones(2) + 1", change="torch.set_default_dtype(torch.float64)", undo="torch.set_default_dtype(torch.float32)", hit="h"),
    Case("default dtype in promotion", "def fn(x): return x.long() / 2", change="torch.set_default_dtype(torch.float64)", undo="torch.set_default_dtype(torch.float32)"),
    Case("default dtype with number", "def fn(x): return x.long() * 1.5", change="torch.set_default_dtype(torch.float64)", undo="torch.set_default_dtype(torch.float32)"),
    Case("default dtype in torch.tensor", "def fn(x): return torch.tensor([1.5])", change="torch.set_default_dtype(torch.float64)", undo="torch.set_default_dtype(torch.float32)"),
    Case("default dtype read", "def fn(x): return x + 1, torch.get_default_dtype()", change="torch.set_default_dtype(torch.float64)", undo="torch.set_default_dtype(torch.float32)"),
    Case("default device", "def fn(x): return torch.ones(2)", change="torch.set_default_device('meta')", undo="torch.set_default_device(None)"),
    Case("default device context", "def fn(x): return torch.ones(2)", change="g = torch.device('meta'); g.__enter__()", undo="g.__exit__(None, None, None)"),
    Case("deterministic flag read", "def fn(x): return x + 1 if torch.are_deterministic_algorithms_enabled() else x - 1",
         change="torch.use_deterministic_algorithms(True)", undo="torch.use_deterministic_algorithms(False)"),
    Case("deterministic fill", "torch.utils.deterministic.fill_uninitialized_memory = True\ndef fn(x): return torch.empty(3).isnan() | True",
         change="torch.use_deterministic_algorithms(True)", undo="torch.use_deterministic_algorithms(False)", same=True),
    Case("deterministic error", "def fn(x): return torch.kthvalue(x, 1)[0] + torch.are_deterministic_algorithms_enabled()",
         change="torch.use_deterministic_algorithms(True)", undo="torch.use_deterministic_algorithms(False)"),
    Case("torch function mode", _MODE + "def fn(x): return torch.sin(x)", change="mode.__enter__()", undo="mode.__exit__(None, None, None)"),
    Case("dispatch mode", _DISPATCH + "def fn(x): return torch.sin(x)", change="mode.__enter__()", undo="mode.__exit__(None, None, None)"),
    Case("torch function disabled", "class T(torch.Tensor):\n  @classmethod\n  def __torch_function__(cls, f, t, a=(), k=None): return torch.ones(1)\nt = torch.ones(2).as_subclass(T)\n"
         "def fn(x): return torch.sin(t)", change="g = torch._C.DisableTorchFunction(); g.__enter__()", undo="g.__exit__(None, None, None)"),
    Case("saved tensor hooks", _W + "seen = []\ndef fn(x):\n  r = (x * w).sum()\n  r.backward()\n  g = w.grad\n  w.grad = None\n  return g, len(seen)",
         change="g = torch.autograd.graph.saved_tensors_hooks(lambda t: (seen.append(1), t)[1], lambda t: t); g.__enter__()",
         undo="g.__exit__(None, None, None); seen.clear()", hit="."),
    Case("anomaly mode", "def fn(x): return x + 1, torch.is_anomaly_enabled()", change="torch.autograd.set_detect_anomaly(True)", undo="torch.autograd.set_detect_anomaly(False)"),
    Case("forward AD level", "import torch.autograd.forward_ad as fwad\ndef fn(t): return t * 2 + 1\nd = x",
         "d", change="g = fwad.dual_level(); g.__enter__(); d = fwad.make_dual(x, y)", undo="g.__exit__(None, None, None); d = x", same=True),
    Case("forward AD tangent", "import torch.autograd.forward_ad as fwad\ng = fwad.dual_level()\ng.__enter__()\ndef done(): g.__exit__(None, None, None)\n"
         "def fn(t): return fwad.unpack_dual(t * 3).tangent", "x", "fwad.make_dual(x, y)"),
    Case("number of threads", "def fn(x): return x * torch.get_num_threads()\nn = torch.get_num_threads()", change="torch.set_num_threads(n + 2)", undo="torch.set_num_threads(n)"),
    Case("matmul precision read", "def fn(x): return x + 1, torch.get_float32_matmul_precision()", change="torch.set_float32_matmul_precision('high')",
         undo="torch.set_float32_matmul_precision('highest')"),
    Case("backend flag read", "def fn(x): return x + 1 if torch.backends.mkldnn.enabled else x - 1",
         change="torch.backends.mkldnn.set_flags(False)", undo="torch.backends.mkldnn.set_flags(True)"),
    Case("sdp flags", "def fn(x): return x + 1 if torch.backends.cuda.flash_sdp_enabled() else x - 1",
         change="torch.backends.cuda.enable_flash_sdp(False)", undo="torch.backends.cuda.enable_flash_sdp(True)"),
    Case("default generator seed", "def fn(x): return x + torch.rand(3)", change="torch.manual_seed(7)", undo="torch.manual_seed(0)", hit="h"),
    Case("generator argument", "g, h = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)\ndef fn(x, g): return x + torch.rand(3, generator=g)", "x, g", "x, h"),
    Case("generator state", "g = torch.Generator().manual_seed(1)\ndef fn(x): return x + torch.rand(3, generator=g)", change="g.manual_seed(5)", undo="g.manual_seed(1)"),
    Case("initial seed read", "torch.manual_seed(1)\ndef fn(x): return x * torch.initial_seed()", change="torch.manual_seed(2)", undo="torch.manual_seed(1)"),
    Case("python random seed", "def fn(x): return x * random.random()", change="random.seed(5)", undo="random.seed(0)", hit="."),
    Case("numpy random seed", "def fn(x): return x * float(np.random.rand())", change="np.random.seed(5)", undo="np.random.seed(0)", hit="."),
    Case("context manager of user", "class C:\n  on = 0\n  def __enter__(self): C.on += 1\n  def __exit__(self, *a): C.on -= 1\nc = C()\n"
         "def fn(x):\n  with c: return x * C.on", change="c.__enter__()", undo="c.__exit__()"),
    Case("functional_call", "m = nn.Linear(3, 3)\ndef fn(x, p): return torch.func.functional_call(m, p, (x,))",
         "x, {'weight': torch.ones(3, 3)}", "x, {'weight': torch.zeros(3, 3)}"),
    Case("vmap level", "def h(t): return t * 2\ndef fn(x): return h(x).shape", "x", "x[:1]"),
    Case("rng forked", "def fn(x):\n  with torch.random.fork_rng(devices=[]):\n    torch.manual_seed(3)\n    a = torch.rand(2)\n  return a, torch.rand(2)",
         change="torch.rand(1)", undo="torch.manual_seed(0)"),
]
