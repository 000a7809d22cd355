"""Aggregation as Ray tasks: two nodes of Ray's own test cluster, one of them killed during the work."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'isthmus[ray]'")

from isthmus.errors import ConfigError  # noqa: E402
from isthmus.memory import sharded as distributed  # noqa: E402

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


def test_a_bridge_made_by_ray_is_the_one_that_a_process_makes(tmp_path):
    from isthmus.recipes.extend import ExtendConfig, extend
    from worlds import three_spaces

    base, leaf = three_spaces(tmp_path)[:2]
    made = [
        extend(
            base, leaf, via="text", config=ExtendConfig(members=1, epochs=2, batch_size=64, engine=engine), quiet=True
        )
        for engine in ("local", "ray")
    ]
    scores = [bridge.record["held_out"]["score"] for bridge in made]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    assert not ray.is_initialized()


def test_ray_encodes_the_space_that_one_process_encodes(tmp_path, monkeypatch):
    """Byte for byte, with what was rejected; the workers import the encoder from the tests' folder."""
    from PIL import Image

    from isthmus.encoders.pipeline.encode import encode
    from isthmus.errors import CheckFailed

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    raw = tmp_path / "raw"
    raw.mkdir()
    for n in range(40):
        Image.new("RGB", (9, 9), (n, 2 * n, 255 - n)).save(raw / f"{n:02d}.png")
    (raw / "17.png").write_bytes(b"broken")
    (raw / "31.png").write_bytes(b"broken")

    def run(where, **more):
        into = tmp_path / where / "s.space"
        return encode(raw, into=into, encoder="tiny_encoder:TinyEncoder", batch_size=4, quiet=True, **more), into

    alone, single = run("alone", max_rejected=0.1)
    together, joined = run("ray", max_rejected=0.1, engine="ray", tasks=3)
    told = ("modality", "encoder", "rows", "items", "encoded", "present", "rejected", "waiting_for")
    assert {key: together[key] for key in told} == {key: alone[key] for key in told}
    assert Path(together["rejected_file"]).is_file()
    assert files(joined) == files(single)
    again, _ = run("ray", max_rejected=0.1, engine="ray", tasks=3)
    assert (again["encoded"], again["rows"]) == (0, 38)
    with pytest.raises(CheckFailed, match=r"2 of 40 image items \(5\.0%\) were rejected, more than 1\.0%"):
        run("strict", engine="ray", tasks=2)
    assert not ray.is_initialized()


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of a core each on this machine, and the one of them that may be killed."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        doomed = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster, doomed
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.parametrize(("rows", "dim"), [(200_000, 256)])
def test_a_projection_of_which_a_node_is_killed_has_the_same_bytes(tmp_path, cluster, rows, dim):
    """200,000 rows in 40 parts on two nodes, one of them killed while parts lie half done."""
    from isthmus.bridges.project import project
    from isthmus.core.distribution import Distribution
    from small_bridge import linear_bridge

    nodes, doomed = cluster
    bridge, space = linear_bridge(tmp_path, rows, dim, modalities=("image",))
    project(bridge, space, into=tmp_path / "whole" / "u.space")
    into, killed = tmp_path / "u.space", threading.Event()

    def kill():
        while len(list(into.glob(".parts/image/*/done.json"))) < 8:
            time.sleep(0.02)
        nodes.remove_node(doomed, allow_graceful=False)
        killed.set()

    threading.Thread(target=kill, daemon=True).start()
    report = project(bridge, space, into=into, distribution=Distribution(engine="ray", tasks=40))
    assert killed.is_set()
    assert report.rows == {"image": rows}
    assert files(into) == files(tmp_path / "whole" / "u.space")


def test_a_load_on_ray_leaves_every_row_once(tmp_path, cluster):
    from isthmus.core.distribution import Distribution
    from isthmus.search.stores.load import load_spaces, open_store_of
    from small_bridge import linear_bridge

    pytest.importorskip("lancedb")
    bridge, space = linear_bridge(tmp_path, 30_000, 16, modalities=("image",))
    url, work = f"lance:{tmp_path / 'db'}", Distribution(engine="ray", tasks=4)
    (report,) = load_spaces(bridge, [space], url, distribution=work)
    assert (report.rows, report.written) == (30_000, 30_000)
    store = open_store_of(bridge, url)
    assert store.contents(report.gallery).keys() == set(space["image"].ids)
    assert store.count() == 30_000
    (again,) = load_spaces(bridge, [space], url)
    assert (again.written, again.unchanged) == (0, 30_000), "one process projects to the same bits"


def test_a_fault_of_a_part_is_told_in_its_own_words(tmp_path, cluster):
    from isthmus.bridges.project import project
    from isthmus.core.distribution import Distribution
    from isthmus.errors import SpaceError
    from small_bridge import linear_bridge

    bridge, space = linear_bridge(tmp_path, 50, 4, modalities=("image",))
    project(bridge, space, into=tmp_path / "u.space", distribution=Distribution("0/4"))
    with pytest.raises(SpaceError, match=r"^[^\n]*holds parts of another number \(00000-of-00004\)[^\n]*$"):
        project(bridge, space, into=tmp_path / "u.space", distribution=Distribution(engine="ray", tasks=2))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_ray_cannot_encode_is_refused_before_it_starts(tmp_path):
    from isthmus.encoders.pipeline.encode import encode
    from tiny_encoder import TinyEncoder

    (tmp_path / "t.txt").write_text("one\n")
    with pytest.raises(ConfigError, match="the engine 'ray' needs an encoder's name, got a TinyEncoder"):
        encode(tmp_path / "t.txt", into=tmp_path / "s.space", encoder=TinyEncoder(), modality="text", engine="ray")
    assert not ray.is_initialized()
