"""The same texts embedded by each space's own encoder: shared ids, kept embeddings, encoders that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import isthmus
from isthmus.cli import main
from isthmus.encoders import Item, load_encoder
from isthmus.encoders.protocol import embed_items
from isthmus.errors import ConfigError, EncoderError, FingerprintError
from isthmus.items.vocabulary import text_id
from isthmus.recipes.texts import cache_folder, encode_texts, share_texts
from isthmus.spaces.overlap import overlap
from isthmus.spaces.space import Space
from tiny_encoder import TinyEncoder

TEXTS = [f"{word} {number}" for word in ("red", "blue", "green") for number in range(20)]


class Counting(TinyEncoder):
    """Counts the texts that went through the model."""

    encoded = 0

    def __init__(self, *, weights: str = "0", **options):  # type: ignore[no-untyped-def]
        super().__init__(weights=weights, coupled=0.0, **options)
        self._weights = np.random.default_rng(ord(weights[0])).normal(size=self._weights.shape).astype(np.float32)

    def encode_batch(self, batch, modality):  # type: ignore[no-untyped-def]
        Counting.encoded += len(batch)
        return super().encode_batch(batch, modality)


def encoder_of(weights: str) -> Counting:
    Counting.encoded = 0
    return Counting(weights=weights)


def space_of(path: Path, encoder: TinyEncoder, texts: list[str] | None = None, **identity: str) -> Space:
    rng = np.random.default_rng(1)
    modalities: dict[str, tuple] = {"image": ([f"i{i}" for i in range(50)], rng.normal(size=(50, encoder.dim)))}
    if texts is not None:
        rows = embed_items(encoder, [Item(str(i), text=text) for i, text in enumerate(texts)], modality="text")
        modalities["text"] = ([f"own{i}" for i in range(len(texts))], rows, {"text": texts})
    made_by = {**encoder.identity, **identity} if identity.get("library") != "unknown" else None
    return isthmus.make_space(
        path, modalities, encoder=made_by, preprocessing=encoder.preprocessing("image" if texts is None else "text")
    )


def test_two_spaces_share_every_text_by_id(tmp_path: Path):
    first, second = encoder_of("a"), Counting(weights="b", dim=24)
    spaces = [space_of(tmp_path / "a.space", first), space_of(tmp_path / "b.space", second)]
    given = share_texts(spaces, TEXTS, encoders={"a": first, "b": second}, cache=tmp_path / "cache", quiet=True)
    shared = overlap(*given, "text")
    assert shared.ids == [text_id(text) for text in TEXTS]
    assert [space.modalities for space in spaces] == [("image",), ("image",)], "the spaces themselves stay"
    alone = embed_items(first, [Item("x", text=TEXTS[7])], modality="text")
    assert float((given[0]["text"].unit([7]) * alone).sum()) > 0.98
    bridge = isthmus.extend(base=given[0], leaf=given[1], via="text", method="ridge", quiet=True)
    assert bridge.project(given[1]["image"]).shape == (50, first.dim)


def test_the_second_time_nothing_is_encoded(tmp_path: Path):
    encoder = encoder_of("a")
    space = space_of(tmp_path / "a.space", encoder)
    first = share_texts([space], TEXTS, encoders={"a": encoder}, cache=tmp_path / "cache", quiet=True)[0]
    count = Counting.encoded
    again = share_texts([space], TEXTS, encoders={"a": encoder}, cache=tmp_path / "cache", quiet=True)[0]
    assert Counting.encoded == count > 0
    assert np.array_equal(np.asarray(first["text"]), np.asarray(again["text"]))
    share_texts([space], TEXTS[:9], encoders={"a": encoder}, cache=tmp_path / "cache", quiet=True)
    assert Counting.encoded > count, "other texts are other embeddings"


def test_other_weights_are_another_entry_of_the_cache(tmp_path: Path):
    one = encode_texts(TEXTS, encoder_of("a"), tmp_path, quiet=True)
    other = encode_texts(TEXTS, encoder_of("b"), tmp_path, quiet=True)
    assert one.path != other.path


def test_an_interrupted_run_goes_on(tmp_path: Path):
    texts = [f"text number {i}" for i in range(3000)]
    with pytest.raises(ValueError, match="the model failed"):
        encode_texts(texts, Counting(weights="a", fail_at=3), tmp_path, quiet=True, batch_size=16)
    encoder = encoder_of("a")
    whole = encode_texts(texts, encoder, tmp_path, quiet=True, batch_size=16)
    assert whole["text"].ids == [text_id(text) for text in texts]


def test_own_texts_come_first_and_are_not_encoded_again(tmp_path: Path):
    encoder = encoder_of("a")
    space = space_of(tmp_path / "a.space", encoder, texts=["a cat", "a dog"])
    given = share_texts([space], TEXTS, encoders={"a": encoder}, cache=tmp_path / "cache", quiet=True)[0]
    assert given["text"].ids == ["own0", "own1", *(text_id(text) for text in TEXTS)]
    assert given["text"].metadata.column("text").to_pylist() == ["a cat", "a dog", *TEXTS]
    assert np.array_equal(given["text"].take([0, 1]), space["text"].take([0, 1]))
    assert given["text"].take([1, 2, 61]).shape == (3, encoder.dim)
    assert given.fingerprint("text") == space.fingerprint("text")
    assert sum(len(block) for block in given["text"].blocks(7)) == len(given["text"]) == 62
    assert set(given.verify()) == {"image", "text"}
    count = Counting.encoded
    assert share_texts([given], TEXTS, encoders={"a": encoder}, cache=tmp_path / "other", quiet=True)[0] is given
    assert Counting.encoded == count


def test_an_encoder_that_gives_other_texts_back_is_refused(tmp_path: Path):
    encoder = encoder_of("a")
    declared = space_of(tmp_path / "a.space", encoder, ["a cat", "a dog on a log"], library="declared", id="mine")
    share_texts([declared], TEXTS[:3], encoders={"a": encoder}, cache=tmp_path / "cache", quiet=True)
    with pytest.raises(FingerprintError, match=r"gives the texts of space 'a' back at a mean cosine of"):
        share_texts([declared], TEXTS, encoders={"a": Counting(weights="b")}, cache=tmp_path / "cache", quiet=True)


def test_an_encoder_with_another_identity_is_refused_where_nothing_else_speaks_for_it(tmp_path: Path):
    space = space_of(tmp_path / "a.space", encoder_of("a"))
    with pytest.raises(FingerprintError, match="another weights_sha256"):
        share_texts([space], TEXTS, encoders={"a": Counting(weights="b")}, cache=tmp_path / "cache", quiet=True)


def test_a_space_that_does_not_tell_its_encoder_asks_for_it(tmp_path: Path):
    space = space_of(tmp_path / "a.space", encoder_of("a"), library="unknown")
    with pytest.raises(EncoderError, match=r"space 'a' cannot embed the texts: .*--text-encoder a=ENCODER"):
        share_texts([space], TEXTS, cache=tmp_path / "cache", quiet=True)
    with pytest.raises(EncoderError, match=r"need an encoder of text with dim 16"):
        share_texts([space], TEXTS, encoders={"a": Counting(dim=9)}, cache=tmp_path / "cache", quiet=True)
    with pytest.raises(ConfigError, match=r"encoders name 'b', which is none of the spaces\. Expected one of a"):
        share_texts([space], TEXTS, encoders={"b": Counting()}, cache=tmp_path / "cache", quiet=True)


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "texts"
    monkeypatch.delenv("ISTHMUS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "isthmus" / "texts"


@pytest.fixture
def toy_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two spaces of the toy encoders without any text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name, other in {"picture": "image", "sound": "audio"}.items():
        encoder = load_encoder(f"toy:{name}")
        rows = rng.normal(size=(60, encoder.dim)).astype(np.float32)
        isthmus.make_space(
            f"{name}.space",
            {other: ([f"i{i}" for i in range(60)], rows)},
            encoder=encoder.identity,
            preprocessing=encoder.preprocessing(other),
        )
    (tmp_path / "numbers.txt").write_text("\n".join(TEXTS))
    return tmp_path


def test_spaces_without_text_are_joined_by_a_list_of_texts(toy_spaces: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["extend", "picture.space", "sound.space", "--via", "text", "--texts", "numbers.txt"]
    assert main([*arguments, "--method", "ridge", "--out", "x.bridge", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["record"]["overlap"] == {"text": len(TEXTS)}
    assert sorted(isthmus.load_bridge("x.bridge").routes) == [
        "picture/image", "picture/text", "sound/audio", "sound/text",
    ]  # fmt: skip
    # a bridge as base gets them too
    third = isthmus.open_space("sound.space")
    rows = (third["audio"].ids, np.asarray(third["audio"]))
    isthmus.make_space("third.space", {"audio": rows}, encoder="declared only")
    more = ["extend", "x.bridge", "third.space", "--via", "text", "--texts", "numbers.txt", "--method", "ridge"]
    assert main([*more, "--out", "y.bridge"]) == 2
    assert "Name its text encoder: --text-encoder third=ENCODER" in capsys.readouterr().err
    assert main([*more, "--out", "y.bridge", "--quiet", "--text-encoder", "third=toy:sound"]) == 0


def test_the_command_line_says_what_texts_are_missing(toy_spaces: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["connect", "picture.space", "sound.space", "--via", "text", "--out", "x.bridge"]
    assert main([*arguments, "--texts", "words.txt"]) == 2
    assert "texts got 'words.txt', which is no file" in capsys.readouterr().err
    assert main([*arguments, "--text-encoder", "picture=toy:picture"]) == 2
    assert "--text-encoder is of --texts, which is not given" in capsys.readouterr().err
    assert main([*arguments, "--texts", "numbers.txt", "--text-encoder", "picture"]) == 2
    assert "--text-encoder got 'picture', expected SPACE=NAME" in capsys.readouterr().err
