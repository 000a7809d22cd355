"""Ways in which a file can name code: none of them runs, and each message says what to pass instead.

Every way would write a canary file if anything of it ran: through a module in the current folder, a function of
Python's own, a class in a model's folder, or a library that follows names in its configuration.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isthmus
from isthmus.bridges.bridge import Bridge
from isthmus.encoders.model_code import check_model_folder
from isthmus.encoders.pipeline.encode import encode
from isthmus.errors import ConfigError, EncoderError, IsthmusError
from isthmus.evaluation.ablation.expand import expand
from isthmus.evaluation.ablation.grid import parse_grid
from isthmus.evaluation.benchmarks.declaration import load_benchmark
from isthmus.evaluation.benchmarks.task import ItemSet
from isthmus.evaluation.suite import SuiteSettings
from isthmus.evaluation.suite.embed import ItemSetEmbedder
from isthmus.evaluation.suite.retrain import own_steps
from isthmus.items import Item
from isthmus.recipes.closed_form import fit_closed_form_bridge
from isthmus.spaces.space import open_space

EVIL = """
import pathlib
pathlib.Path({canary!r}).write_text("ran")
def check(*a, **k): return None
class Encoder:
    def __init__(self, *a, **k): pass
"""
COMMIT = "a" * 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two toy spaces and the bridge between them."""
    folder = tmp_path_factory.mktemp("made")
    texts = [Item(f"t{i}", text=f"{i:03d}") for i in range(40)]
    for name in ("picture", "sound"):
        encode(texts, encoder=f"toy:{name}", into=folder / f"{name}.space", modality="text", quiet=True)
    spaces = [open_space(folder / f"{name}.space") for name in ("picture", "sound")]
    fit_closed_form_bridge(*spaces, via="text", method="ridge").save(folder / "joined.bridge")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, full of modules that leave a canary when they are imported."""
    canary = tmp_path / "canary"
    for module in ("evil", "open_clip", "own_encoder", "flash_attn_evil"):
        (tmp_path / f"{module}.py").write_text(EVIL.format(canary=str(canary)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_encoder(made: Path, here: Path, **record: Any) -> Path:
    """The bridge with another record of the encoder of its first space's texts."""
    import shutil

    bridge = here / "evil.bridge"
    shutil.copytree(made / "joined.bridge", bridge)
    manifest = json.loads((bridge / "bridge.json").read_text())
    manifest["spaces"][0]["encoders"]["text"] = record
    (bridge / "bridge.json").write_text(json.dumps(manifest))
    return bridge


def command(here: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command line as a user has it, started in the folder."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path]))}
    code = "import sys; from isthmus.cli import main; sys.exit(main())"
    starter = [sys.executable, "-P", "-c", code] if sys.version_info >= (3, 11) else [sys.executable, "-I", "-c", code]
    return subprocess.run([*starter, *arguments], cwd=here, env=env, capture_output=True, text=True, check=False)


TOUCH = {"args": ["touch", "canary"]}
COMMAND = {"command": "touch canary"}
ULIP = {"library": "ulip", "id": "pointbert_ULIP-2.pt"}
HUB = {"library": "transformers", "id": "a/b", "revision": COMMIT}
RECORDS: dict[str, dict[str, Any]] = {
    "a function of Python as id": {"library": "isthmus", "id": "subprocess:check_output", "options": TOUCH},
    "a function of Python as name": {"library": "x", "id": "x", "name": "os:system", "options": COMMAND},
    "a module of the current folder": {"library": "own", "id": "x", "name": "evil:Encoder"},
    "a module of the folder as isthmus' own id": {"library": "isthmus", "id": "evil:check"},
    "a module below the package": {"library": "isthmus", "id": "isthmus.core.runtime:resolve_device"},
    "a name over a registered library": {"library": "transformers", "id": "a/b", "name": "evil:Encoder"},
    "a name with spaces before it": {"library": "x", "id": "x", "name": " clip:openai/clip"},
    "a name in other letters": {"library": "x", "id": "x", "name": "CLIP:openai/clip"},
    "an absolute folder": {"library": "transformers", "id": "m", "revision": "local", "name": "clip:/tmp/model"},
    "a folder further up": {"library": "transformers", "id": "m", "revision": "local", "name": "clip:../../model"},
    "a folder below": {"library": "sentence-transformers", "id": "m", "revision": "local", "name": "text:./model"},
    "a folder of the home": {"library": "sentence-transformers", "id": "m", "name": "sentence-transformers:~/model"},
    "an id that is a path": {"library": "transformers", "id": "../model", "revision": COMMIT},
    "an id that is an address": {"library": "transformers", "id": "https://example.org/model", "revision": COMMIT},
    "a revision that climbs": {"library": "transformers", "id": "a/b", "revision": "../../evil"},
    "a folder of open_clip": {"library": "open_clip", "id": "local-dir:/tmp/model", "name": "openclip:local-dir:/m"},
    "weights of open_clip in a file": {"library": "open_clip", "id": "ViT-B-32", "revision": "/tmp/weights.pt"},
    "a library that is not installed, in the folder": {"library": "open_clip", "id": "RN50", "revision": "openai"},
    "a checkpoint of ulip in a file": {"library": "ulip", "id": "../evil.pt"},
    "a toy that is a path": {"library": "isthmus", "id": "toy:../../evil"},
    "an option that is none of the encoder's": {"library": "isthmus", "id": "toy:picture", "options": {"weights": "x"}},
    "an option that turns code on": {**HUB, "options": {"trust_remote_code": True}},
    "an option that is an address": {**ULIP, "options": {"tokenizer": "http://x/y"}},
    "an option that is a folder": {**ULIP, "options": {"tokenizer": "./evil"}},
    "an option of another kind": {**HUB, "options": {"dtype": ["x"]}},
    "a device": {"library": "isthmus", "id": "toy:picture", "options": {"device": "evil:0"}},
    "options that are no table": {"library": "isthmus", "id": "toy:picture", "options": ["weights"]},
    "escapes in a name": {"library": "x", "id": "x", "name": "evil:\x1b]0;owned\x07"},
    "a very long name": {"library": "x", "id": "x", "name": "evil:" + "E" * 100_000},
}  # fmt: skip


@pytest.mark.parametrize("way", RECORDS)
def test_a_bridge_names_code(way: str, made: Path, here: Path):
    bridge = isthmus.load_bridge(with_encoder(made, here, **RECORDS[way]))
    with pytest.raises(IsthmusError) as fault:
        bridge.encode(["123"], modality="text", space="picture")
    assert not (here / "canary").exists()
    message = str(fault.value)
    assert "evil" not in sys.modules
    assert "\x1b" not in message
    assert len(message) <= 500
    if "library that is not installed" not in way:
        assert isinstance(fault.value, EncoderError)
        assert "--encoder" in message, message
        assert "encoder=" in message, message


def test_an_id_that_is_no_text_is_damage(made: Path, here: Path):
    path = with_encoder(made, here, library="isthmus", id=["os", "system"])
    with pytest.raises(
        IsthmusError, match=r"space 1 is damaged \(an encoder's id is \['os', 'system'\], expected text"
    ):
        isthmus.load_bridge(path)
    assert not (here / "canary").exists()


@pytest.mark.parametrize("way", ["a function of Python as id", "a module of the current folder", "a folder below"])
def test_the_bridge_is_still_data(way: str, made: Path, here: Path):
    """What names code can be described, projected with, and searched by vectors; and encoded by the user's own word."""
    path = with_encoder(made, here, **RECORDS[way])
    bridge = isthmus.load_bridge(path)
    assert bridge.describe()["spaces"][0]["name"] == "picture"
    assert "picture" in bridge.summary()
    texts = open_space(made / "picture.space")["text"]
    assert bridge.project(np.asarray(texts), space="picture", modality="text").shape == (40, bridge.dim)
    sure = bridge.encode(["123"], modality="text", space="picture", encoder="toy:picture", force=True)
    assert sure.shape == (1, bridge.dim)
    search = ("search", str(path), "--gallery", f"{made}/sound.space/text", "--json")
    found = command(here, *search, "--id", f"{made}/picture.space/text/t3")
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["hits"]) == 10
    asked = command(here, *search, "--text", "123")
    assert asked.returncode == 2
    assert "EncoderError" in asked.stderr
    assert "--encoder" in asked.stderr
    assert asked.stderr.count("\n") == 1
    assert not (here / "canary").exists()


@pytest.mark.parametrize("way", ["a function of Python as id", "a module of the current folder", "a folder below"])
def test_the_suite_loads_no_more(way: str, made: Path, here: Path):
    bridge = isthmus.load_bridge(with_encoder(made, here, **RECORDS[way]))
    embedder = ItemSetEmbedder(SuiteSettings(cache=here / "cache", quiet=True))
    with pytest.raises(EncoderError, match=r"--encoder"):
        embedder.embed(bridge, ItemSet("text", [Item("q", text="123")]), "picture")
    assert not (here / "canary").exists()


@pytest.mark.parametrize(
    "entry",
    [
        {"encoder_name": "evil:Encoder", "encoder": {"library": "own", "id": "x"}},
        {"encoder_name": "os:system", "encoder_options": {"command": "touch canary"}},
        {"encoder": {"library": "isthmus", "id": "subprocess:check_output"}, "encoder_options": TOUCH},
    ],
)
@pytest.mark.parametrize("role", ["connect", "extend"])
def test_ones_own_bridge_over_a_strangers_space(entry: dict[str, Any], role: str, made: Path, here: Path):
    """What connect and extend copy from a space's manifest into the bridge is checked like a bridge's own record."""
    import shutil

    for name in ("picture", "sound"):
        shutil.copytree(made / f"{name}.space", here / f"{name}.space")
    manifest = json.loads((here / "picture.space" / "space.json").read_text())
    manifest["modalities"]["text"].update(entry)
    (here / "picture.space" / "space.json").write_text(json.dumps(manifest))
    stranger, own = open_space(here / "picture.space"), open_space(here / "sound.space")
    base, leaf = (stranger, own) if role == "connect" else (own, stranger)
    bridge = fit_closed_form_bridge(base, leaf, via="text", method="ridge")
    bridge.save(here / "own.bridge")
    with pytest.raises(EncoderError, match=r"--encoder"):
        isthmus.load_bridge(here / "own.bridge").encode(["123"], modality="text", space="picture")
    assert not (here / "canary").exists()


MODEL_FILES: dict[str, tuple[str, Any]] = {
    "a module of sentence-transformers": ("modules.json", [{"idx": 0, "path": "", "type": "evil.Encoder"}]),
    "a module of Python": ("modules.json", [{"idx": 0, "name": "0", "path": "", "type": "os.system"}]),
    "a module behind the library's name": ("modules.json", [{"type": "sentence_transformers_evil.Encoder"}]),
    "an activation": ("2_Dense/config.json", {"in_features": 2, "activation_function": "evil.Encoder"}),
    "an activation below torch": ("2_Dense/config.json", {"activation_function": "torch.hub.load"}),
    "a route of modules": ("router_config.json", {"types": {"0_Asym": "evil.Encoder"}}),
    "a tokenizer class": ("0_WordEmbeddings/wordembedding_config.json", {"tokenizer_class": "evil.Encoder"}),
    "an attention kernel": ("config.json", {"model_type": "clip", "_attn_implementation": "evil/kernel"}),
}  # fmt: skip


@pytest.mark.parametrize("way", MODEL_FILES)
def test_a_model_folder_names_code(way: str, here: Path):
    name, content = MODEL_FILES[way]
    folder = here / "model"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(json.dumps(content))
    (folder / "evil.py").write_text(EVIL.format(canary=str(here / "canary")))
    (folder / "model.safetensors").write_bytes(b"")
    for kind in ("text", "clip"):
        with pytest.raises(EncoderError, match=r"code that does not come with.*--encoder module:Class"):
            isthmus.encoders.load_encoder(f"{kind}:{folder}")
    assert not (here / "canary").exists()


def test_the_libraries_own_names_pass(tmp_path: Path):
    modules = [
        {"type": "sentence_transformers.models.Transformer"},
        {"type": "sentence_transformers.base.modules.dense.Dense"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "_attn_implementation": "sdpa"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    dense = {"activation_function": "torch.nn.modules.activation.Tanh"}
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "config.json").write_text(json.dumps(dense))
    check_model_folder(tmp_path, "model")


def test_a_model_that_brings_its_own_code(here: Path):
    """transformers neither runs what `auto_map` names nor asks whether it may."""
    folder = here / "model"
    folder.mkdir()
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Encoder", "AutoModel": "evil.Encoder"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(EVIL.format(canary=str(here / "canary")))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(EncoderError, match=r"model"):
        isthmus.encoders.load_encoder(f"clip:{folder}")
    assert not (here / "canary").exists()


BENCHMARK = 'task = "retrieval"\nmodalities = ["audio", "image"]\n'


@pytest.mark.parametrize(
    "reader",
    [
        "evil",
        "evil:check",
        "os:system",
        "files:import_module",
        "coco:read_json",
        "imagenet:path",
        "files:_retrieval",
        "shared.lookup:find",
        "../evil",
    ],
)
def test_a_benchmark_names_code(reader: str, here: Path):
    (here / "own.toml").write_text(f'{BENCHMARK}reader = "{reader}"\n')
    with pytest.raises(ConfigError, match=r"Expected one of|key 'reader' got") as fault:
        load_benchmark(here / "own.toml").read(here, here / "work")
    assert "own.toml" in str(fault.value)
    assert not (here / "canary").exists()


def test_no_file_chooses_the_machine_that_work_is_sent_to(made: Path, here: Path):
    """Ray unpickles what a cluster answers: neither a configuration, a grid nor a bridge's record may name one."""
    (here / "c.toml").write_text('engine = "ray"\nengine_address = "evil.example:10001"\n')
    spaces = [str(made / f"{name}.space") for name in ("picture", "sound")]
    run = command(here, "extend", *spaces, "--via", "text", "--out", "x.bridge", "--config", "c.toml")
    assert run.returncode == 2
    assert "engine_address, which no file may choose. Pass --address" in run.stderr
    table = {
        "spaces": {"base": spaces[0], "leaf": spaces[1]},
        "via": "text",
        "settings": {"engine": "ray", "engine_address": "evil.example:10001"},
        "evaluate": [{"query": "a/text", "gallery": "b/text", "pairs": "p.csv"}],
    }
    with pytest.raises(ConfigError, match=r"engine_address, which no file may choose"):
        expand(parse_grid(table))
    bridge = isthmus.load_bridge(made / "joined.bridge")
    config = {"via": "text", "learning_rate": 0.1, "engine": "ray", "engine_address": "evil.example:10001"}
    trained = Bridge(bridge.method, bridge.dim, bridge.spaces, bridge.routes, bridge.arrays, config)
    assert not {"engine", "engine_address"} & set(own_steps(trained)[0]["config"])


def test_a_bridge_of_the_hub_points_at_nothing_here(made: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("isthmus.bridges.hub.download", lambda *_, **__: made / "joined.bridge")
    bridge = Bridge.from_pretrained("stranger/bridge")
    assert [space.path for space in bridge.spaces] == [None, None]
    assert isthmus.load_bridge(made / "joined.bridge").space_path("picture") == made / "picture.space"


# what the user says himself still works


@pytest.fixture
def colours(here: Path) -> tuple[Path, Path]:
    """A space of examples/own_encoder.py, and the bridge that is only its base."""
    from PIL import Image

    (here / "own_encoder.py").write_text((Path(__file__).parents[2] / "examples" / "own_encoder.py").read_text())
    (here / "photos").mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16), (60 * number, 10, 200)).save(here / "photos" / f"{number}.png")
    how = ("--encoder", "own_encoder:ColourGrid", "--option", "grid=4")
    made = command(here, "encode", "photos", *how, "--into", "colours.space")
    assert made.returncode == 0, made.stderr
    base = Bridge.over(open_space(here / "colours.space"))
    Bridge("base", base.dim, base.spaces, base.routes, base.arrays).save(here / "c.bridge")
    return here / "c.bridge", here / "colours.space"


def search(here: Path, *more: str) -> subprocess.CompletedProcess[str]:
    query = ("search", "c.bridge", "--image", "photos/2.png", "--gallery", "colours.space/image", "--json")
    return command(here, *query, *more)


def test_a_class_that_the_user_names(colours: tuple[Path, Path], here: Path):
    silent = search(here)
    assert silent.returncode == 2
    assert "own_encoder" in silent.stderr
    assert "--encoder" in silent.stderr
    named = search(here, "--encoder", "own_encoder:ColourGrid", "--option", "grid=4")
    assert named.returncode == 0, named.stderr
    assert json.loads(named.stdout)["hits"][0]["id"].endswith("2.png")
    other = search(here, "--encoder", "own_encoder:ColourGrid")
    assert other.returncode == 2
    assert "FingerprintError" in other.stderr


def test_a_class_that_the_user_allowed_beforehand(colours: tuple[Path, Path], here: Path, own_config: Path):
    manifest = json.loads((here / "c.bridge" / "bridge.json").read_text())
    manifest["spaces"][0]["encoders"]["image"]["name"] = "own_encoder:ColourGrid"
    (here / "c.bridge" / "bridge.json").write_text(json.dumps(manifest))
    assert search(here).returncode == 2
    entry = f'[[encoder]]\nname = "own_encoder:ColourGrid"\nfolder = "{here}"\n'
    trusted = own_config / "trusted.toml"
    trusted.write_text(entry)
    refused = search(here)
    assert refused.returncode == 2
    assert "allows 'own_encoder:ColourGrid' only without them" in refused.stderr
    trusted.write_text(entry + "options = { grid = 4 }\n")
    allowed = search(here)
    assert allowed.returncode == 0, allowed.stderr
    assert json.loads(allowed.stdout)["hits"][0]["id"].endswith("2.png")
    trusted.chmod(0o666)
    assert "other users may change it" in search(here).stderr
