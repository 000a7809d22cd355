"""The bridge: matching embeddings to routes, saving whole, loading, growing by a leaf, encoding raw items."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from isthmus.bridges.bridge import Bridge, load_bridge
from isthmus.bridges.folder import LazyArrays
from isthmus.bridges.member import BridgeSpace
from isthmus.core.geometry import normalize
from isthmus.errors import BridgeError, ConfigError, EncoderError, FingerprintError
from isthmus.spaces.manifest import fingerprint

CLIP = {"library": "transformers", "id": "openai/clip", "revision": "a" * 40, "weights_sha256": "b" * 64}
CLAP = {"library": "transformers", "id": "laion/clap", "revision": "c" * 40, "weights_sha256": "d" * 64}
WINDOW = {"sample_rate": 48000}


class Rows:
    """One modality of a space, in memory."""

    def __init__(self, array: np.ndarray, *, modality: str, space: str, encoder: dict[str, Any], **preprocessing: Any):
        self.array, self.modality, self.space_name = array.astype(np.float32), modality, space
        self.dim = array.shape[1]
        self.info = {"encoder": encoder, "preprocessing": preprocessing}
        self.fingerprint = fingerprint(self.info, self.dim)
        self.ids = [f"{modality}-{i}" for i in range(len(array))]

    def __len__(self) -> int:
        return len(self.array)

    def blocks(self, size: int = 65536) -> Iterator[np.ndarray]:
        for start in range(0, len(self.array), size):
            yield self.array[start : start + size]


def bridge_space(name: str, role: str, dim: int, encoder: dict[str, Any], **modalities: dict[str, Any]) -> BridgeSpace:
    entries = {m: {"encoder": encoder, "preprocessing": p} for m, p in modalities.items()}
    return BridgeSpace(
        name,
        role,
        dim,
        {m: fingerprint(entry, dim) for m, entry in entries.items()},
        {m: encoder for m in entries},
        preprocessing=modalities,
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def base() -> Bridge:
    space = bridge_space("clip", "base", 6, CLIP, image={}, text={})
    return Bridge("", 6, [space], {f"clip/{m}": [{"kind": "normalize"}] for m in ("image", "text")}, {})


@pytest.fixture
def clap() -> BridgeSpace:
    return bridge_space("clap", "leaf", 4, CLAP, audio=WINDOW, text={})


@pytest.fixture
def bridge(base: Bridge, clap: BridgeSpace, rng: np.random.Generator) -> Bridge:
    arrays = {"w": rng.standard_normal((6, 4), np.float32), "b": rng.standard_normal(6, np.float32)}
    step = {"kind": "linear", "weight": "w", "bias": "b"}
    return base.with_leaf(
        clap,
        {"audio": [{"kind": "normalize"}, step], "text": [{"kind": "normalize"}, dict(step)]},
        arrays,
        method="ridge",
        config={"strength": 0.1},
        record={"held_out": {"r@1": 0.5}, "seed": 3},
        history=[{"step": 1, "loss": 2.0}],
    )


def audio(rng: np.random.Generator, n: int = 5, **kw: Any) -> Rows:
    settings = {"modality": "audio", "space": "clap-test", "encoder": CLAP} | WINDOW | kw
    return Rows(rng.standard_normal((n, 4)), **settings)


# projecting


def test_an_array_goes_the_route_that_is_named(bridge: Bridge, rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 4)).astype(np.float32)
    w, b = bridge.arrays["clap/w"], bridge.arrays["clap/b"]
    got = bridge.project(x, space="clap", modality="audio")
    np.testing.assert_allclose(got, normalize(normalize(x) @ w.T + b), atol=1e-6)
    assert got.dtype == np.float32


def test_embeddings_are_matched_by_fingerprint_not_by_name(bridge: Bridge, rng: np.random.Generator) -> None:
    rows = audio(rng)
    np.testing.assert_array_equal(bridge.project(rows), bridge.project(rows.array, space="clap", modality="audio"))


def test_the_base_keeps_its_very_bits(bridge: Bridge, rng: np.random.Generator) -> None:
    rows = Rows(rng.standard_normal((9, 6)), modality="image", space="clip", encoder=CLIP)
    assert bridge.project(rows).tobytes() == normalize(rows.array).tobytes()


def test_blocks_are_the_whole(bridge: Bridge, rng: np.random.Generator) -> None:
    rows = audio(rng, 7)
    blocks = list(bridge.project_blocks(rows, size=3))
    assert [len(block) for block in blocks] == [3, 3, 1]
    np.testing.assert_allclose(np.concatenate(blocks), bridge.project(rows), atol=1e-6)


def test_no_rows_are_no_rows(bridge: Bridge) -> None:
    assert bridge.project(np.empty((0, 4), np.float32), space="clap", modality="audio").shape == (0, 6)


def test_another_encoder_is_refused_unless_forced(bridge: Bridge, rng: np.random.Generator) -> None:
    other = audio(rng, encoder=CLAP | {"revision": "e" * 40})
    message = (
        r"^clap-test/audio was made by transformers laion/clap at eeeeeeeeeeee \(weights dddddddddddd\), the bridge "
        r"for transformers laion/clap at cccccccccccc \(weights dddddddddddd\) of 'clap'\. Equal dimensions are not "
        r"the same space\. Encode with that encoder, or pass --force \(force=True\) if you know that they agree\.$"
    )
    with pytest.raises(FingerprintError, match=message):
        bridge.project(other)
    np.testing.assert_array_equal(bridge.project(other, force=True), bridge.project(audio_like(other)))


def audio_like(rows: Rows) -> Rows:
    return Rows(rows.array, modality="audio", space="clap", encoder=CLAP, **WINDOW)


def test_another_preprocessing_is_another_space(bridge: Bridge, rng: np.random.Generator) -> None:
    with pytest.raises(FingerprintError, match=r"They differ in the preprocessing \(sample_rate\)\."):
        bridge.project(audio(rng, sample_rate=16000))


def test_forced_embeddings_of_the_other_dimension_find_their_space(bridge: Bridge, rng: np.random.Generator) -> None:
    text = Rows(rng.standard_normal((3, 6)), modality="text", space="mine", encoder={"library": "x", "id": "y"})
    np.testing.assert_array_equal(bridge.project(text, force=True), normalize(text.array))


def test_a_space_that_could_be_two_must_be_named(base: Bridge, rng: np.random.Generator) -> None:
    twin = bridge_space("twin", "leaf", 6, CLIP, text={}, audio=WINDOW)
    both = base.with_leaf(twin, {"text": [{"kind": "normalize"}]}, {}, method="mean_offset")
    text = Rows(rng.standard_normal((3, 6)), modality="text", space="mine", encoder=CLIP)
    with pytest.raises(
        BridgeError, match=r"mine/text could be of the spaces 'clip', 'twin'\. Say which with space=\.$"
    ):
        both.project(text)
    assert both.project(text, space="twin").shape == (3, 6)
    named = Rows(text.array, modality="text", space="twin", encoder=CLIP)
    assert both.project(named).shape == (3, 6)


def test_faults_of_projecting(bridge: Bridge, rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 4)).astype(np.float32)

    def fails(message: str, x: Any, **kw: Any) -> None:
        with pytest.raises(BridgeError, match=message) as caught:
            bridge.project(x, **kw)
        assert "\n" not in str(caught.value)

    fails(r"^an array needs space= and modality= .* Expected one of clip/image, clip/text, clap/audio, clap/text\.$", x)
    fails(r"^got an array of shape \(4,\)\. Expected two dimensions", x[0], space="clap", modality="audio")
    fails(r"joins no space 'ulip'\. Expected one of 'clip', 'clap'\.$", x, space="ulip", modality="audio")
    fails(r"no route for 'clap/image'\. Expected one of clip/image", x, space="clap", modality="image")
    fails(r"^clip/text: got embeddings of 4 dimensions\. The space 'clip' has 6\.$", x, space="clip", modality="text")
    x[3] = 0
    fails(r"^clap/audio: row 3 is zero\. Remove it, or embed its item again\.$", x, space="clap", modality="audio")
    x[2, 1] = np.nan
    fails(r"row 2 is not finite", x, space="clap", modality="audio")
    rows = audio(rng)
    rows.array[4] = 0
    fails(r"^clap-test/audio: row 4 \(id 'audio-4'\) is zero\.", rows)
    rows.modality = "video"
    fails(r"the bridge has no route for 'video'", rows)


# building


def test_a_bridge_checks_its_routes(base: Bridge, clap: BridgeSpace) -> None:
    with pytest.raises(BridgeError, match=r"^route of 'clap/audio': ends in 4 dimensions\. The bridge has 6\.$"):
        base.with_leaf(clap, {"audio": [{"kind": "normalize"}]}, {}, method="x")
    with pytest.raises(BridgeError, match=r"^route of 'clap/audio', step 1 \(center\): array 'clap/m' is not among"):
        base.with_leaf(clap, {"audio": [{"kind": "center", "mean": "m"}]}, {}, method="x")
    with pytest.raises(BridgeError, match=r"has the role 'guest'\. Expected base, leaf, first, second, joined\.$"):
        Bridge("x", 4, [bridge_space("a", "guest", 4, CLIP, text={})], {}, {})
    with pytest.raises(BridgeError, match=r"two spaces of the bridge are called 'clip'"):
        Bridge("x", 6, [*base.spaces, *base.spaces], {}, {})
    with pytest.raises(BridgeError, match=r"a route is called 'clip'\. Expected SPACE/MODALITY\.$"):
        Bridge("x", 6, base.spaces, {"clip": []}, {})


def test_a_leaf_leaves_everything_else_as_it_was(bridge: Bridge, rng: np.random.Generator) -> None:
    before = {name: array.tobytes() for name, array in bridge.arrays.items()}
    rows = audio(rng)
    projected = bridge.project(rows).tobytes()
    ulip = bridge_space("ulip", "leaf", 3, {"library": "isthmus", "id": "ulip"}, point_cloud={})
    weight = rng.standard_normal((6, 3), np.float32)
    steps = [{"kind": "linear", "weight": "w", "bias": None}]
    grown = bridge.with_leaf(ulip, {"point_cloud": steps}, {"w": weight}, method="ex-mcr", record={"seed": 4})
    assert {name: grown.arrays[name].tobytes() for name in before} == before
    assert sorted(grown.arrays) == ["clap/b", "clap/w", "ulip/w"]
    assert {k: r for k, r in grown.routes.items() if k in bridge.routes} == bridge.routes
    assert grown.project(rows).tobytes() == projected
    assert steps == [{"kind": "linear", "weight": "w", "bias": None}]
    assert grown.method == "ridge+ex-mcr"
    assert grown.record["seed"] == 4
    (earlier,) = grown.record["earlier"]
    assert earlier["method"] == "ridge"
    assert earlier["config"] == {"strength": 0.1}
    assert earlier["record"]["seed"] == 3
    again = grown.with_leaf(bridge_space("x", "leaf", 6, {"library": "x", "id": "x"}, video={}), {}, {}, method="ridge")
    assert again.method == "ridge+ex-mcr"
    assert [step["record"]["seed"] for step in again.record["earlier"]] == [3, 4]
    assert [space.name for space in bridge.spaces] == ["clip", "clap"]


def test_a_space_joins_once(bridge: Bridge, clap: BridgeSpace) -> None:
    with pytest.raises(ConfigError, match=r"^two spaces are called 'clap', expected names of their own\. Rename one: "):
        bridge.with_leaf(clap, {}, {}, method="x")
    renamed = BridgeSpace("clap2", "leaf", 4, clap.fingerprints, clap.encoders)
    with pytest.raises(ConfigError, match=r"^'clap2' is the space 'clap', which the bridge joins already\."):
        bridge.with_leaf(renamed, {}, {}, method="x")


def test_array_names_must_not_clash(base: Bridge) -> None:
    first = bridge_space("a", "leaf", 6, {"library": "x", "id": "1"}, audio={})
    second = bridge_space("a/b", "leaf", 6, {"library": "x", "id": "2"}, video={})
    mean = np.zeros(6, np.float32)
    one = base.with_leaf(first, {}, {"b/m": mean}, method="x")
    with pytest.raises(ConfigError, match=r"^the bridge has an array called 'a/b/m' already\."):
        one.with_leaf(second, {}, {"m": mean}, method="x")


# saving and loading


def save_and_load(bridge: Bridge, path: Path) -> Bridge:
    bridge.save(path)
    return load_bridge(path)


def test_what_is_saved_is_what_is_loaded(bridge: Bridge, tmp_path: Path, rng: np.random.Generator) -> None:
    loaded = save_and_load(bridge, tmp_path / "one.bridge")
    assert isinstance(loaded.arrays, LazyArrays)
    for name in ("method", "dim", "routes", "spaces", "config", "record", "history"):
        assert getattr(loaded, name) == getattr(bridge, name), name
    rows = audio(rng)
    assert loaded.project(rows).tobytes() == bridge.project(rows).tobytes()
    loaded.save(tmp_path / "two.bridge")
    files = sorted(path.name for path in (tmp_path / "one.bridge").iterdir())
    assert len({path.stat().st_mode for path in (tmp_path / "one.bridge").iterdir()}) == 1
    assert files == ["README.md", "bridge.json", "history.jsonl", "projectors.safetensors"]
    for name in files:
        assert (tmp_path / "one.bridge" / name).read_bytes() == (tmp_path / "two.bridge" / name).read_bytes(), name


def test_nothing_is_read_before_it_is_used(bridge: Bridge, tmp_path: Path, rng: np.random.Generator) -> None:
    bridge.arrays["clap/unused"] = np.ones(3, np.float16)
    loaded = save_and_load(bridge, tmp_path / "x.bridge")
    loaded.describe()
    assert loaded.arrays._read == {}
    assert loaded.arrays.dtype("clap/unused") == "float16"
    loaded.project(audio(rng))
    assert sorted(loaded.arrays._read) == ["clap/b", "clap/w"]
    with pytest.raises(ValueError, match="read-only"):
        loaded.arrays["clap/b"][0] = 1
    with pytest.raises(KeyError):
        loaded.arrays["nothing"]


def test_a_bridge_can_be_saved_over_itself(bridge: Bridge, tmp_path: Path, rng: np.random.Generator) -> None:
    rows = audio(rng)
    loaded = save_and_load(bridge, tmp_path / "x.bridge")
    loaded.save(tmp_path / "x.bridge", overwrite=True)
    assert loaded.project(rows).tobytes() == load_bridge(tmp_path / "x.bridge").project(rows).tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["x.bridge"]


def test_paths_of_spaces_are_relative_on_disk(bridge: Bridge, tmp_path: Path) -> None:
    home = tmp_path / "a"
    spaces = [BridgeSpace(**vars(s) | {"path": str(home / f"{s.name}.space")}) for s in bridge.spaces]
    moved = Bridge(**vars(bridge) | {"spaces": spaces})
    loaded = save_and_load(moved, home / "x.bridge")
    on_disk = json.loads((home / "x.bridge" / "bridge.json").read_text())
    assert [space["path"] for space in on_disk["spaces"]] == ["../clip.space", "../clap.space"]
    assert loaded.space_path("clip") == home / "clip.space"
    home.rename(tmp_path / "b")
    assert load_bridge(tmp_path / "b" / "x.bridge").space_path("clap") == tmp_path / "b" / "clap.space"
    assert bridge.space_path("clip") is None


def test_saving_refuses_what_is_there(bridge: Bridge, tmp_path: Path) -> None:
    bridge.save(tmp_path / "x.bridge")
    with pytest.raises(BridgeError, match=r"x\.bridge: exists already\. .* --overwrite \(overwrite=True\)\.$"):
        bridge.save(tmp_path / "x.bridge")
    (tmp_path / "photos").mkdir()
    with pytest.raises(BridgeError, match=r"photos: is no bridge, so it is not overwritten\."):
        bridge.save(tmp_path / "photos", overwrite=True)


def test_saving_refuses_arrays_that_nobody_could_load(bridge: Bridge, tmp_path: Path) -> None:
    bridge.arrays["clap/extra"] = np.array([1.0, np.inf], np.float32)
    with pytest.raises(
        BridgeError, match=r"^array 'clap/extra' holds NaN or infinite values, so the bridge is not saved"
    ):
        bridge.save(tmp_path / "x.bridge")
    bridge.arrays["clap/extra"] = np.array([1.0])
    with pytest.raises(BridgeError, match=r"^array 'clap/extra' is float64\. Expected float16 or float32"):
        bridge.save(tmp_path / "x.bridge")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(bridge: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kw: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isthmus.bridges.folder.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        bridge.save(tmp_path / "x.bridge")
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_and_nan_are_saved_as_json(bridge: Bridge, tmp_path: Path) -> None:
    bridge.record = {"a": np.float32(0.5), "b": np.array([1, 2]), "c": (1, float("nan")), "d": Path("x")}
    assert save_and_load(bridge, tmp_path / "x.bridge").record == {"a": 0.5, "b": [1, 2], "c": [1, None], "d": "x"}


def damage(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "bridge.json").read_text())
    (path / "bridge.json").write_text(json.dumps({**manifest, **changes}))


def test_faults_of_loading(bridge: Bridge, tmp_path: Path) -> None:
    path = tmp_path / "x.bridge"

    def fails(message: str, path: Path = path) -> None:
        with pytest.raises(BridgeError, match=message) as caught:
            load_bridge(path)
        assert "\n" not in str(caught.value)
        if (tmp_path / "x.bridge").is_dir():
            for file in (tmp_path / "x.bridge").iterdir():
                file.unlink()
            (tmp_path / "x.bridge").rmdir()
        bridge.save(tmp_path / "x.bridge")

    fails(r"x\.bridge: no such bridge\. Check the path, or make one")
    fails(r"README\.md: a bridge is a folder, got a file", path / "README.md")
    damage(path, format_version=2)
    fails(
        r"bridge\.json: format_version 2 is newer than the 1 that isthmus .* reads\. Upgrade it: pip install -U isthmus"
    )
    damage(path, format_version="1")
    fails(r"format_version is '1', expected a number from 1 to 1")
    (path / "bridge.json").unlink()
    fails(r"x\.bridge: is no bridge, or not a whole one: it has no bridge\.json\.")
    (path / "bridge.json").rename(path / "space.json")
    fails(r"x\.bridge: is a space, expected a bridge")
    (path / "history.jsonl").unlink()
    fails(r"history\.jsonl is missing, the bridge is not whole\. Copy or download it again\.$")
    (path / "history.jsonl").write_text("{}\n{")
    fails(r"history\.jsonl, line 2: is no json")
    (path / "history.jsonl").write_text("[]\n")
    fails(r"history\.jsonl, line 1: got a list, expected a json object")
    (path / "bridge.json").write_text("{")
    fails(r"bridge\.json: cannot be read as the json of a bridge manifest")
    with open(path / "projectors.safetensors", "r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    fails(r"projectors\.safetensors: its sha256 is .*\.\.\., bridge\.json says .*\.\.\.\. Copy the bridge again\.$")
    damage(path, spaces=[{"name": "clip"}])
    fails(r"bridge\.json: space 1 is damaged \(role is None, expected a name\)\. Copy the bridge again\.$")
    damage(path, dim="6")
    fails(r"bridge\.json: dim is str, expected int\. Copy the bridge again\.$")
    damage(path, routes={"clap/audio": [{"kind": "teleport"}]})
    fails(
        r"x\.bridge: route of 'clap/audio', step 1: kind 'teleport' is unknown here\. .* a newer isthmus may know it\.$"
    )
    from isthmus.core.files import sha256_file

    (path / "projectors.safetensors").write_bytes(b"not tensors")
    damage(path, projectors_sha256=sha256_file(path / "projectors.safetensors"))
    fails(r"projectors\.safetensors: no safetensors file, or a damaged one")


def test_nan_on_disk_is_found_when_it_is_read(bridge: Bridge, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from isthmus.core.files import sha256_file

    path = tmp_path / "x.bridge"
    bridge.save(path)
    arrays = {**bridge.arrays, "clap/b": np.full(6, np.nan, np.float32)}
    save_file(arrays, str(path / "projectors.safetensors"))
    damage(path, projectors_sha256=sha256_file(path / "projectors.safetensors"))
    with pytest.raises(BridgeError, match=r"array 'clap/b' holds NaN or infinite values\. Train the bridge again\.$"):
        load_bridge(path).project(np.ones((1, 4), np.float32), space="clap", modality="audio")
    save_file({**arrays, "clap/b": np.zeros(6)}, str(path / "projectors.safetensors"))
    damage(path, projectors_sha256=sha256_file(path / "projectors.safetensors"))
    with pytest.raises(BridgeError, match=r"array 'clap/b' is F64\. Expected float16 or float32 or uint8\.$"):
        load_bridge(path)


# words


def test_describe_is_json_and_the_summary_says_it(bridge: Bridge) -> None:
    description = json.loads(json.dumps(bridge.describe()))
    assert description["parameters"] == 30
    assert description["routes"]["clap/audio"] == "normalize, linear 6"
    assert description["base_moved"] == []
    text = bridge.summary()
    assert "clap (leaf, 4 dimensions): audio, text" in text
    assert "held out.r@1: 0.5" in text
    assert "MOVED" not in text


def test_a_moved_base_is_said_aloud(bridge: Bridge, tmp_path: Path) -> None:
    bridge.arrays["m"] = np.zeros(6, np.float32)
    bridge.routes["clip/image"] = [{"kind": "normalize"}, {"kind": "center", "mean": "m"}]
    assert bridge.describe()["base_moved"] == ["clip/image"]
    assert "THE BASE IS MOVED: clip/image do not stay as their encoder made them" in bridge.summary()
    bridge.save(tmp_path / "x.bridge")
    assert "**THE BASE IS MOVED" in (tmp_path / "x.bridge" / "README.md").read_text()


def test_the_model_card_says_what_a_user_must_know(bridge: Bridge, tmp_path: Path) -> None:
    import yaml

    spaces = [BridgeSpace(**vars(s) | {"path": str(tmp_path / "secret" / s.name)}) for s in bridge.spaces]
    Bridge(**vars(bridge) | {"spaces": spaces}).save(tmp_path / "x.bridge")
    card = (tmp_path / "x.bridge" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "isthmus"
    assert {"isthmus", "ridge", "audio", "text", "image"} <= set(front["tags"])
    for part in (
        "laion/clap",
        "c" * 40,
        "d" * 16,
        "normalize, linear 6",
        "| r@1 | 0.5 |",
        "| strength | 0.1 |",
        "| seed | 3 |",
    ):
        assert part in card, part
    for part in ('open_space("clap.space")["audio"]', "isthmus project FOLDER clap.space", "## Limits"):
        assert part in card, part
    assert "secret" not in card


# the Hub


class FakeApi:
    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def __init__(self, **kw: Any) -> None:
        self.calls.append(("init", kw))

    def create_repo(self, repo_id: str, **kw: Any) -> None:
        self.calls.append(("create", {"repo_id": repo_id, **kw}))

    def upload_folder(self, *, folder_path: Path, **kw: Any) -> Any:
        files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.calls.append(("upload", {"files": files, **kw}))
        return type("Commit", (), {"commit_url": "https://hub/commit/1"})()


def test_push_and_fetch(
    bridge: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    import huggingface_hub

    spaces = [BridgeSpace(**vars(s) | {"path": str(tmp_path / "secret" / s.name)}) for s in bridge.spaces]
    bridge = Bridge(**vars(bridge) | {"spaces": spaces})
    monkeypatch.setattr(FakeApi, "calls", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    assert bridge.push_to_hub("me/clap", private=True, commit_message="first") == "https://hub/commit/1"
    calls = dict(FakeApi.calls)
    assert calls["create"] == {"repo_id": "me/clap", "repo_type": "model", "private": True, "exist_ok": True}
    assert calls["upload"]["commit_message"] == "first"
    files = calls["upload"]["files"]
    assert sorted(files) == ["README.md", "bridge.json", "history.jsonl", "projectors.safetensors"]
    assert not any(b"secret" in data for data in files.values())

    repository = tmp_path / "snapshot"
    repository.mkdir()
    for name, data in files.items():
        (repository / name).write_bytes(data)
    asked: dict[str, Any] = {}

    def download(repo_id: str, **kw: Any) -> str:
        asked.update(kw, repo_id=repo_id)
        return str(repository)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    fetched = Bridge.from_pretrained("me/clap", revision="v1")
    assert (asked["repo_id"], asked["revision"]) == ("me/clap", "v1")
    rows = audio(rng)
    assert fetched.project(rows).tobytes() == bridge.project(rows).tobytes()
    assert fetched.space_path("clip") is None
    assert Bridge.from_pretrained(repository).routes == bridge.routes


def test_faults_of_the_hub(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*args: Any, **kw: Any) -> None:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        BridgeError, match=r"^'me/x' at revision 'v1': no folder here, and not .* \(no network\)\."
    ) as caught:
        Bridge.from_pretrained("me/x", revision="v1")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(FakeApi, "create_repo", offline)
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    with pytest.raises(BridgeError, match=r"^'me/x': the bridge was not uploaded \(no network\)\."):
        bridge.push_to_hub("me/x")


# raw items and spaces


class FakeEncoder:
    name, modalities, dim = "clap:laion/clap", ("audio", "text"), 4

    def __init__(self, identity: dict[str, Any] = CLAP, sample_rate: int = 48000) -> None:
        self.identity, self.sample_rate = identity, sample_rate

    def preprocessing(self, modality: str) -> dict[str, Any]:
        return {"sample_rate": self.sample_rate} if modality == "audio" else {}

    def decode(self, item: Any, modality: str) -> Any:
        from isthmus.encoders import Rejected

        if item.path == "broken.wav":
            raise Rejected("cannot be read")
        return item.path or item.text

    def encode(self, inputs: Any, **kw: Any) -> np.ndarray:
        return np.stack([np.full(4, len(x), np.float32) + np.arange(4) for x in inputs])


def test_encode_loads_the_recorded_encoder(bridge: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.chdir(tmp_path)
    for name in ("dog.wav", "a.wav", "broken.wav"):
        Path(name).touch()

    def load(name: str, **kw: Any) -> FakeEncoder:
        asked.append(name)
        return FakeEncoder()

    monkeypatch.setattr("isthmus.encoders.recorded.load_encoder", load)
    got = bridge.encode(["dog.wav", Path("a.wav")], modality="audio")
    expected = FakeEncoder().encode(["dog.wav", "a.wav"])
    np.testing.assert_array_equal(got, bridge.project(expected, space="clap", modality="audio"))
    assert asked == ["clap:laion/clap@" + "c" * 40]
    with pytest.raises(
        FingerprintError, match=r"the encoder at hand is .*laion/clap.* 'clip/text' was made by .*another id"
    ):
        bridge.encode(["a dog"], modality="text")
    assert asked[-1] == "clip:openai/clip@" + "a" * 40
    assert bridge.encode(["a dog"], modality="text", space="clap").shape == (1, 6)


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ({"library": "isthmus", "id": "toy:sound", "revision": "1"}, "toy:sound"),
        ({"library": "ulip", "id": "pointbert_ULIP-2.pt", "revision": "local"}, "ulip:pointbert_ULIP-2.pt"),
        ({"library": "open_clip", "id": "ViT-B-32", "revision": "laion2b"}, "openclip:ViT-B-32/laion2b"),
        ({"library": "sentence-transformers", "id": "a/b", "revision": "local"}, "sentence-transformers:a/b"),
        ({"library": "transformers", "id": "a/b", "revision": "f00"}, "clip:a/b@f00"),
    ],
)
def test_recorded_encoders_are_loaded_by_name(identity: dict[str, Any], name: str) -> None:
    assert bridge_space("x", "leaf", 4, identity, image={}).encoder_name("image") == name


def test_encode_refuses_another_encoder(bridge: Bridge) -> None:
    other = FakeEncoder(CLAP | {"weights_sha256": "e" * 64})
    with pytest.raises(FingerprintError, match=r"another weights_sha256\. Load that one, or pass --force"):
        bridge.encode(["dog.wav"], modality="audio", encoder=other)
    assert bridge.encode(["dog.wav"], modality="audio", encoder=other, force=True).shape == (1, 6)
    with pytest.raises(FingerprintError, match=r"prepares audio otherwise .* \(the preprocessing \(sample_rate\)\)"):
        bridge.encode(["dog.wav"], modality="audio", encoder=FakeEncoder(sample_rate=16000))
    with pytest.raises(EncoderError, match=r"broken\.wav.*cannot be read"):
        bridge.encode(["broken.wav"], modality="audio", encoder=FakeEncoder())
    with pytest.raises(BridgeError, match=r"no route for 'video'"):
        bridge.encode(["a.mp4"], modality="video")


def test_an_encoder_that_nobody_can_name_is_asked_for(base: Bridge, tmp_path: Path) -> None:
    space = bridge_space("mine", "leaf", 6, {"library": "declared", "id": "my-net"}, audio={})
    bridge = base.with_leaf(space, {"audio": [{"kind": "normalize"}]}, {}, method="x")
    message = r"'mine/audio' does not say how to load its encoder \(declared my-net\)\. Name it with --encoder NAME"
    (tmp_path / "a.wav").touch()
    with pytest.raises(EncoderError, match=message):
        bridge.encode([tmp_path / "a.wav"], modality="audio")


def test_a_space_without_a_place_is_asked_for(bridge: Bridge, tmp_path: Path) -> None:
    with pytest.raises(
        BridgeError, match=r"^the bridge does not know where the space 'clip' lies\. .*--space clip=PATH"
    ):
        bridge.open_space("clip")
    bridge.spaces[0] = BridgeSpace(**vars(bridge.spaces[0]) | {"path": str(tmp_path / "gone.space")})
    with pytest.raises(
        BridgeError, match=r"'clip' lay at .*gone\.space when the bridge was made and is not there now\."
    ):
        bridge.open_space("clip")


def test_a_space_is_opened_where_it_lies_and_must_be_the_same(tmp_path: Path, rng: np.random.Generator) -> None:
    from isthmus.spaces.space import make_space

    x = rng.standard_normal((3, 6))
    clip = make_space(tmp_path / "clip.space", {"text": (["a", "b", "c"], x)}, encoder=CLIP)
    bridge = Bridge.over(clip)
    assert bridge.spaces[0] == BridgeSpace.of(clip, role="base")
    assert bridge.space_path("clip") == tmp_path / "clip.space"
    assert bridge.open_space("clip")["text"].ids == ["a", "b", "c"]
    assert bridge.project(clip["text"]).tobytes() == clip["text"].unit().tobytes()
    assert Bridge.over(bridge) is bridge
    (tmp_path / "clip.space").rename(tmp_path / "moved.space")
    assert bridge.open_space("clip", tmp_path / "moved.space").name == "clip"
    make_space(tmp_path / "clip.space", {"text": (["a"], x[:1])}, encoder=CLAP)
    with pytest.raises(FingerprintError, match=r"clip\.space/text was made by transformers laion/clap .* of 'clip'"):
        bridge.open_space("clip")
