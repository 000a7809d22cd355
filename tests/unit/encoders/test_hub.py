"""Finding a model's files: folders, the Hub's cache, weights and revisions, and what is said where there is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.encoders.hub import find_checkpoint, weight_files
from isthmus.encoders.protocol import weights_sha256
from isthmus.errors import EncoderError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_a_folder_is_itself(tmp_path: Path) -> None:
    write(tmp_path / "mine", "config.json", "model.safetensors")
    found = find_checkpoint(str(tmp_path / "mine"))
    assert (found.id, found.revision) == ("mine", "local")
    identity = found.identity("transformers")
    assert identity["weights_sha256"] == weights_sha256([tmp_path / "mine" / "model.safetensors"])
    assert identity["library"] == "transformers"


def test_a_folder_of_the_cache_knows_its_repository_and_commit(tmp_path: Path) -> None:
    folder = tmp_path / "models--openai--clip-vit-base-patch32" / "snapshots" / COMMIT
    write(folder, "model.safetensors")
    found = find_checkpoint(str(folder))
    assert (found.id, found.revision) == ("openai/clip-vit-base-patch32", COMMIT)


def test_a_repository_comes_from_the_cache_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--me--model"
    write(repository / "snapshots" / COMMIT, "config.json", "pytorch_model.bin")
    write(repository, "refs/main")
    (repository / "refs" / "main").write_text(COMMIT)
    calls = []

    def offline(name: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        calls.append(allow_patterns[-1])
        return str(repository / "snapshots" / COMMIT)

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    found = find_checkpoint("me/model")
    assert (found.id, found.revision) == ("me/model", COMMIT)
    assert [file.name for file in found.weights] == ["pytorch_model.bin"]
    assert calls == ["*.safetensors"]  # the .bin lay there already
    exact = find_checkpoint(f"me/model@{COMMIT}")
    assert (exact.id, exact.revision, exact.given) == ("me/model", COMMIT, f"me/model@{COMMIT}")


def test_weights_are_what_the_loader_takes(tmp_path: Path) -> None:
    write(tmp_path, "model.safetensors", "pytorch_model.bin", "onnx/model.safetensors", "2_Dense/model.safetensors")
    write(tmp_path, "training_args.bin", "3_Head/pytorch_model.bin", "openvino/x.bin")
    names = [file.relative_to(tmp_path).as_posix() for file in weight_files(tmp_path)]
    assert names == ["2_Dense/model.safetensors", "3_Head/pytorch_model.bin", "model.safetensors"]


def test_shards_are_all_taken(tmp_path: Path) -> None:
    write(tmp_path, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.fp16.safetensors")
    assert [file.name[:11] for file in weight_files(tmp_path)] == ["model-00001", "model-00002"]


def test_parts_of_one_name_all_count_for_the_identity(tmp_path: Path) -> None:
    write(tmp_path / "a", "model.safetensors", "2_Dense/model.safetensors")
    write(tmp_path / "b", "model.safetensors", "2_Dense/model.safetensors")
    digest = weights_sha256(weight_files(tmp_path / "a"))
    assert digest == weights_sha256(weight_files(tmp_path / "b"))
    for name in ("model.safetensors", "2_Dense/model.safetensors"):
        kept = (tmp_path / "b" / name).read_bytes()
        (tmp_path / "b" / name).write_bytes(b"other")
        assert digest != weights_sha256(weight_files(tmp_path / "b"))
        (tmp_path / "b" / name).write_bytes(kept)


def test_what_is_not_there_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(EncoderError, match=r"holds no weights\. Expected model\.safetensors"):
        find_checkpoint(str(tmp_path / "empty"))
    with pytest.raises(EncoderError, match=r"is a file; expected the folder of a model"):
        find_checkpoint(str(tmp_path / "file"))
    with pytest.raises(EncoderError, match=r"there is no folder '/not/here/at/all'"):
        find_checkpoint("/not/here/at/all")

    def refuse(*_: object, **__: object) -> str:
        raise OSError("no route to the Hub\nand a second line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(
        EncoderError, match=r"'me/model' at revision v2 is neither a folder.*no route to the Hub\)"
    ) as got:
        find_checkpoint("me/model", revision="v2")
    assert "\n" not in str(got.value)
