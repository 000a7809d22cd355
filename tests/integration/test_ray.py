"""Aggregation as Ray tasks: two nodes of Ray's own test cluster, one of them killed during the work."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'isthmus[ray]'")

from isthmus import distributed  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def shards(tmp_path):
    rng = np.random.default_rng(0)
    files = []
    for number in range(6):
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], rng.standard_normal((3000, 32)).astype(np.float16))
    return files, rng.standard_normal((4000, 32)).astype(np.float32)


def test_ray_gives_what_one_process_gives(shards):
    files, queries = shards
    alone, _ = distributed.aggregate_shards(files, queries)
    together, stats = distributed.aggregate_shards(files, queries, engine="ray")
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert stats.report["engine"] == "ray"
    assert not ray.is_initialized()


def test_a_node_killed_during_the_work_changes_nothing(shards, monkeypatch, tmp_path):
    from ray.cluster_utils import Cluster

    files, queries = shards
    monkeypatch.setattr(distributed, "QUERY_BLOCK", 500)
    alone, _ = distributed.aggregate_shards(files, queries)
    runs = tmp_path / "runs"
    runs.mkdir()

    def slow(queries, keys, values, temperature):
        (runs / f"{time.time_ns()}-{ray.get_runtime_context().get_node_id()}").touch()
        time.sleep(0.1)
        return distributed.shard_sums(queries, keys, values, temperature)

    monkeypatch.setattr(distributed, "_ray_task", slow)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        doomed = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        killed = threading.Event()

        def kill():
            while len({name.name.split("-")[1] for name in runs.iterdir()}) < 2 or len(list(runs.iterdir())) < 8:
                time.sleep(0.05)
            cluster.remove_node(doomed, allow_graceful=False)
            killed.set()

        threading.Thread(target=kill, daemon=True).start()
        together, _ = distributed.aggregate_shards(files, queries, engine="ray")
        assert killed.is_set()
    finally:
        ray.shutdown()
        cluster.shutdown()
    np.testing.assert_allclose(together, alone, atol=1e-6)
