"""Outside strict mode a failed check of our own costs the recording, never the call."""

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import pytest
import torch
import flashpoint
from flashpoint import _C


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(2))
        self.calls = []

    def forward(self, x, scale=2):
        for i, layer in enumerate(self.layers):
            x = torch.relu(layer(x)) * scale + i
        self.calls.append(i)
        return {"out": x, "rank": [x.ndim, f"{scale}"]}


x = torch.randn(3, 4)
failures = 0
for event in range(1, 400):
    model = Model()
    _C.reset_counters()
    _C.set_config("fail_at_event", event)
    result = flashpoint.compile(model)(x)
    _C.set_config("fail_at_event", 0)
    counters = flashpoint.counters()
    if counters["internal_errors"] == 0:
        break
    failures += 1
    assert counters["captures_kept"] == 0, counters
    assert model.calls == [1], (event, model.calls)
    expected = model(x)
    assert torch.equal(result["out"], expected["out"]) and result["rank"] == expected["rank"], event
assert counters["captures_kept"] == 1, counters
print(failures)
"""


@pytest.mark.slow
def test_a_failed_check_at_every_event():
    environment = {**os.environ, "FLASHPOINT_STRICT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
