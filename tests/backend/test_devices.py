"""devices: what llama.cpp says of itself; probe: how far a child came with it."""

import numpy as np

from edge_eft import llama_build
from edge_eft.backend import devices, probe


def test_the_cpu_is_a_device_of_every_build():
    found = {device.kind: device for device in devices.devices()}
    assert found["CPU"].name
    assert found["CPU"].total > 1 << 28


def test_the_build_says_what_it_was_compiled_with():
    assert llama_build.compiled(devices.system_info())["CPU"]
    assert "cpu" in devices.backend_libraries()
    assert "base" not in devices.backend_libraries()


def test_a_probe_comes_through_all_steps(tiny):
    steps = dict(probe.steps(str(tiny.base)))
    assert list(steps)[:5] == ["build", "threads", "devices", "gpu", "CPU"]
    assert steps["CPU"] is True


def test_logits_that_are_no_numbers_are_noticed(tiny, monkeypatch):
    rows = np.array([[0.0, np.nan]], np.float32)
    monkeypatch.setattr(probe.Context, "advance", lambda *_: {0: rows})
    assert probe.decode(str(tiny.base), n_gpu_layers=0) is False
