"""Gram matrices spread over devices and processes give what one device does.

Devices are forced upon one processor by XLA's flag, which must be set before JAX starts: so the work is
done by processes of its own, tests/devices_worker.py.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ntkbayes.errors import ConfigurationError
from ntkbayes.linalg import ShardedTriangle, over_devices, require_shares

WORKER = Path(__file__).parent / "devices_worker.py"


def start(out: Path, *, devices: int, processes: int = 1, rank: int = 0, port: int = 0):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, str(WORKER), str(out), str(processes), str(rank), str(port)]
    return subprocess.Popen(
        command,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=540)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "out.npz"
    ended(start(out, devices=1))
    return dict(np.load(out))


def assert_same(found: dict, expected: dict) -> None:
    for name in found.keys() - {"kernel_bytes", "factor_bytes", "sizes"}:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6 * scale, err_msg=name)


def test_eight_devices_give_what_one_does_and_hold_their_share(alone, tmp_path):
    out = tmp_path / "out.npz"
    ended(start(out, devices=8))
    found = dict(np.load(out))
    assert found.keys() == alone.keys()
    assert_same(found, alone)
    for name in ("kernel_bytes", "factor_bytes"):
        assert found[name].shape == (8,)
        np.testing.assert_array_equal(found[name], alone[name][0] / 8)
    assert 272 // 8 in set(found["sizes"]) - set(alone["sizes"])  # passes of each device's points


def test_two_processes_give_what_one_does(alone, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    outs = [tmp_path / f"{rank}.npz" for rank in range(2)]
    running = [
        start(out, devices=1, processes=2, rank=rank, port=port) for rank, out in enumerate(outs)
    ]
    for process in running:
        ended(process)
    for out in outs:
        found = dict(np.load(out))
        assert {"alpha", "mean", "evidence", "covariance", "inits", "by_products"} < found.keys()
        assert_same(found, alone)
        np.testing.assert_array_equal(found["kernel_bytes"], [alone["kernel_bytes"][0] / 2])


def test_points_that_cannot_be_divided_are_refused_with_a_number_that_can(monkeypatch):
    monkeypatch.setattr("ntkbayes.linalg.sharded.num_shares", lambda: 8)
    require_shares(10_000)
    require_shares(8 * 7)
    for size in (10_001, 8 * 1249):
        with pytest.raises(ConfigurationError, match="use 9984 points"):
            require_shares(size)


def test_factors_that_are_spread_are_refused_elsewhere():
    factor = ShardedTriangle(jnp.eye(4), jnp.eye(4)[None])
    with pytest.raises(ConfigurationError, match="within over_devices"):
        factor.solve(jnp.ones((4, 1)))


def test_one_device_is_a_mesh_too():
    with over_devices() as mesh:
        assert mesh.size == 1
        require_shares(1009)  # a prime: only several devices need blocks
