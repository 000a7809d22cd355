"""The official heads: recognised, refused by name, and giving what their own modules give.

The modules below are written from the published description (layers, key names, normalisation), not from the code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from isthmus.bridges.bridge import load_bridge
from isthmus.bridges.official import HEADS, load_official
from isthmus.errors import ConfigError, FingerprintError, FormatError
from isthmus.spaces.space import make_space


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net1 = nn.Sequential(nn.Linear(512, 1024), nn.BatchNorm1d(1024), nn.ReLU())
        self.net2 = nn.Sequential(nn.Linear(1024, 512), nn.BatchNorm1d(512))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net2(self.net1(x))


class MlpHalf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Connect(nn.Module):
    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.Head_A, self.Head_B = block(), block()


class Projector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp1, self.mlp2 = Mlp(), Mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return normalize(self.mlp2(self.mlp1(x)), dim=-1)


class Extend(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.Head1, self.Head2 = nn.Linear(512, 512), Projector()


MODULES: dict[str, Any] = {
    "clap_clip": lambda: Connect(Mlp),
    "ulip_clip": lambda: Connect(MlpHalf),
    "ex_clap": Extend,
    "ex_ulip": Extend,
}
WAYS: dict[str, dict[str, Any]] = {
    "clap_clip": {
        "clap/audio": lambda m, x: m.Head_A(x),
        "clap/text": lambda m, x: m.Head_A(x),
        "clip/image": lambda m, x: m.Head_B(x),
        "clip/text": lambda m, x: m.Head_B(x),
    },
    "ulip_clip": {
        "clip/image": lambda m, x: m.Head_A(x),
        "clip/text": lambda m, x: m.Head_A(x),
        "ulip/point_cloud": lambda m, x: m.Head_B(x),
        "ulip/image": lambda m, x: m.Head_B(x),
    },
    "ex_clap": {
        "clip/image": lambda m, x: x,
        "clip/text": lambda m, x: x,
        "clap/audio": lambda m, x: m.Head2(m.Head1(x)),
        "clap/text": lambda m, x: m.Head2(x),
    },
    "ex_ulip": {
        "clip/image": lambda m, x: x,
        "clip/text": lambda m, x: x,
        "ulip/point_cloud": lambda m, x: m.Head2(m.Head1(x)),
        "ulip/image": lambda m, x: m.Head2(x),
    },
}


def trained(name: str) -> nn.Module:
    """A module whose BatchNorm has seen something, in eval mode."""
    torch.manual_seed(0)  # the default initialisation of torch's layers draws from the global generator
    module: nn.Module = MODULES[name]()
    draw = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.running_mean.normal_(0, 0.1, generator=draw)
            layer.running_var.uniform_(0.5, 2.0, generator=draw)
            layer.weight.data.uniform_(0.5, 1.5, generator=draw)
            layer.bias.data.normal_(0, 0.1, generator=draw)
            layer.num_batches_tracked.fill_(3080)
    return module.eval()


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((9, 512)).astype(np.float32)


@pytest.mark.parametrize("name", list(HEADS))
def test_a_bridge_gives_what_the_official_module_gives(name: str, tmp_path: Path, x: np.ndarray) -> None:
    module = trained(name)
    torch.save(module.state_dict(), tmp_path / f"{name}.pt")
    bridge = load_official(tmp_path / f"{name}.pt")
    assert set(bridge.routes) == set(WAYS[name])
    unit = normalize(torch.from_numpy(x), dim=-1)
    for key, way in WAYS[name].items():
        with torch.no_grad():
            expected = normalize(way(module, unit), dim=-1).numpy()
        space, _, modality = key.rpartition("/")
        np.testing.assert_allclose(bridge.project(x, space=space, modality=modality), expected, atol=1e-5, err_msg=key)


@pytest.mark.parametrize(("name", "count"), [("clap_clip", 2_106_368), ("ulip_clip", 527_360), ("ex_clap", 2_369_024)])
def test_parameter_counts_are_the_published_ones(name: str, count: int) -> None:
    assert sum(p.numel() for p in MODULES[name]().parameters()) == count
    assert HEADS[name].parameters == count
    assert set(HEADS[name].shapes) == set(MODULES[name]().state_dict())


def test_roles_and_identities(tmp_path: Path) -> None:
    torch.save(trained("ex_ulip").state_dict(), tmp_path / "EX_ULIP.pt")
    bridge = load_official(tmp_path / "EX_ULIP.pt")
    assert [(space.name, space.role) for space in bridge.spaces] == [("clip", "base"), ("ulip", "leaf")]
    assert bridge.space("clip").encoders["image"]["id"] == "openai/clip-vit-base-patch32"
    assert bridge.base_moved == []
    assert bridge.method == "ex-mcr"
    torch.save(trained("clap_clip").state_dict(), tmp_path / "x.pt")
    bridge = load_official(tmp_path / "x.pt")
    assert [(space.name, space.role) for space in bridge.spaces] == [("clip", "first"), ("clap", "second")]
    bridge.save(tmp_path / "x.bridge")
    assert load_bridge(tmp_path / "x.bridge").routes == bridge.routes


def test_spaces_of_the_user_take_the_place_of_names(tmp_path: Path, x: np.ndarray) -> None:
    torch.save(trained("ex_clap").state_dict(), tmp_path / "head.pt")
    ids = [str(i) for i in range(len(x))]
    clap = make_space(tmp_path / "mine.space", {"audio": (ids, x)}, encoder="630k-fusion-best", dtype="float32")
    bridge = load_official(tmp_path / "head.pt", leaf="clap", spaces={"clap": clap})
    assert bridge.project(clap["audio"]).shape == (9, 512)
    assert bridge.space_path("mine") == tmp_path / "mine.space"
    with pytest.raises(
        FingerprintError, match=r"mine/audio was made by declared 630k-fusion-best, the bridge for laion-clap"
    ):
        load_official(tmp_path / "head.pt", leaf="clap").project(clap["audio"])
    with pytest.raises(ConfigError, match=r"^spaces got 'ulip'\. Expected some of clip, clap\.$"):
        load_official(tmp_path / "head.pt", leaf="clap", spaces={"ulip": clap})
    small = make_space(tmp_path / "small.space", {"audio": (ids, x[:, :64])})
    with pytest.raises(ConfigError, match=r"spaces\['clap'\] has 64 dimensions\. The official heads work in 512\.$"):
        load_official(tmp_path / "head.pt", leaf="clap", spaces={"clap": small})


def test_faults_name_file_and_keys(tmp_path: Path) -> None:
    path = tmp_path / "head.pt"

    def fails(message: str, error: type[Exception] = FormatError, **kw: Any) -> None:
        with pytest.raises(error, match=message) as caught:
            load_official(path, **kw)
        assert "\n" not in str(caught.value)

    fails(r"head\.pt: no such file\. Expected one of clap_clip\.pt, ulip_clip\.pt, ex_clap\.pt, ex_ulip\.pt\.$")
    path.write_bytes(b"not a zip")
    fails(r"head\.pt: is no plain file of weights")
    torch.save([1, 2], path)
    fails(r"head\.pt: holds list, not a state dict")
    torch.save({"code": Path("x")}, path)
    fails(r"head\.pt: is no plain file of weights")
    torch.save({"conv.weight": torch.zeros(3)}, path)
    fails(r"head\.pt: has no key of an official head\.")
    state = trained("ulip_clip").state_dict()
    torch.save({k: v for k, v in state.items() if k != "Head_B.net.0.bias"}, path)
    fails(r"looks like ulip_clip\.pt but lacks Head_B\.net\.0\.bias\. Download it again\.$")
    torch.save({k: v for k, v in state.items() if "Head_A" in k}, path)
    fails(r"looks like ulip_clip\.pt but lacks Head_B\.net\.0\.bias, .* and 4 more\.")
    torch.save(state | {"Head_C.weight": torch.zeros(3)}, path)
    fails(r"looks like ulip_clip\.pt but also has Head_C\.weight\. This is another model\.$")
    torch.save(state | {"Head_A.net.0.bias": torch.zeros(256)}, path)
    fails(r"Head_A\.net\.0\.bias has shape \(256,\), ulip_clip\.pt has \(512,\)\.")
    torch.save(state | {"Head_A.net.0.bias": torch.full((512,), torch.nan)}, path)
    fails(r"Head_A\.net\.0\.bias holds NaN or infinite values\.")
    torch.save(trained("ex_clap").state_dict(), path)
    fails(r"is an Ex-MCR head, but of which leaf\? Pass leaf='clap' or leaf='ulip'\.$", ConfigError)
    fails(r"of which leaf\?", ConfigError, leaf="dog")


def test_the_released_file(shared: Path, x: np.ndarray) -> None:
    path = shared / "data" / "official" / "ulip_clip.pt"
    bridge = load_official(path)
    module = Connect(MlpHalf).eval()
    module.load_state_dict(torch.load(path, weights_only=True), strict=True)
    unit = normalize(torch.from_numpy(x), dim=-1)
    for key, way in WAYS["ulip_clip"].items():
        space, _, modality = key.rpartition("/")
        got = bridge.project(x, space=space, modality=modality)
        with torch.no_grad():
            np.testing.assert_allclose(got, normalize(way(module, unit), dim=-1).numpy(), atol=1e-5)
        assert (got >= 0).all()
        assert 0.3 < (got > 0).mean() < 0.7
