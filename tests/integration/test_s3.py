"""Encode, connect, project and search with all spaces on a local S3 server, from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from isthmus.cli import main
from isthmus.demo import raw
from isthmus.spaces.space import open_space

pytest.importorskip("s3fs", reason="S3 is an extra: pip install 'isthmus[s3]'")
pytest.importorskip("flask_cors", reason="the S3 server of the tests needs moto, flask and flask-cors")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket on a server of its own; the environment tells every client of S3 where it is."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    told = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    before = dict(os.environ)
    os.environ.update(told)
    try:
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("vectors")
        yield "s3://vectors"
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    raw.write_memory(folder, seed=0, sizes={"image": 40, "audio": 40, "point_cloud": 10, "text": 60})
    return folder


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    assert main([*arguments, "--json", "--quiet"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_all_spaces_on_s3(
    files: Path,
    bucket: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    for name, modality, encoder in (("clip", "image", "toy:picture"), ("clap", "audio", "toy:sound")):
        into = ["--into", f"{bucket}/{name}.space", "--encoder", encoder]
        told(["encode", str(files / modality), *into], capsys)
        told(["encode", str(files / "texts.txt"), *into], capsys)
        told(["encode", str(files / modality), "--into", str(tmp_path / f"{name}.space"), "--encoder", encoder], capsys)
        local = open_space(tmp_path / f"{name}.space")[modality]
        sent = open_space(f"{bucket}/{name}.space")[modality]
        assert sent.ids == local.ids
        np.testing.assert_array_equal(np.asarray(sent), np.asarray(local))
    clip, clap = f"{bucket}/clip.space", f"{bucket}/clap.space"
    health = told(["inspect", clip, clap, "--via", "text", "--no-estimate"], capsys)
    assert health["overlap"]["text"]["shared"] > 50
    bridge = str(tmp_path / "u.bridge")
    told(["connect", clip, clap, "--via", "text", "--out", bridge], capsys)
    # Another machine: nothing of the spaces is here.
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "other"))
    report = told(["project", bridge, clip, clap, "--into", f"{bucket}/u.space"], capsys)
    assert report["path"] == f"{bucket}/u.space"
    assert report["rows"]["image"] == report["rows"]["audio"] == 40
    queries = ["--audio", str(files / "audio/0003.wav")]
    galleries = ["--gallery", f"{clip}/image", "--gallery", f"{bucket}/u.space/audio"]
    hits = told(["search", bridge, *queries, *galleries, "-k", "4"], capsys)["hits"]
    assert any(hit["id"].endswith("0003.wav") for hit in hits)
    item = ["--id", f"{clap}/audio/{open_space(clap)['audio'].ids[3]}"]
    assert told(["search", bridge, *item, "--gallery", f"{clip}/image", "-k", "1"], capsys)["hits"]
    told(["update", clip, str(files / "image"), "--modality", "image", "--encoder", "toy:picture"], capsys)
    first = open_space(clip)["image"].ids[0]
    told(["remove", clip, first, "--modality", "image"], capsys)
    assert first not in open_space(clip)["image"].ids


def test_an_encoding_that_was_killed_goes_on_and_ends_in_the_same_bytes(
    files: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    url = f"{bucket}/killed.space"
    command = [sys.executable, "-m", "isthmus", "encode", str(files / "image"), "--encoder", "toy:picture"]
    command += ["--batch-size", "2", "--workers", "0", "--quiet", "--into"]
    process = subprocess.Popen([*command, url])
    journals = tmp_path / "cache"
    while process.poll() is None and not any(journals.rglob("killed.space/.encode/image/*")):
        time.sleep(0.02)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*command, url], check=True)
    subprocess.run([*command, str(tmp_path / "killed.space")], check=True)
    assert open_space(url).content_hash == open_space(tmp_path / "killed.space").content_hash


def test_what_s3_refuses_is_one_line(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    for url, fault in ((f"{bucket}/no.space", "no such space"), ("s3://no-such-bucket/x.space", "no such space")):
        assert main(["inspect", url]) == 2
        message = capsys.readouterr().err
        assert fault in message
        assert url in message
        assert len(message.strip().splitlines()) == 1
    np.save(tmp_path / "x.npy", np.eye(3, dtype=np.float32))
    assert (
        main(["import", str(tmp_path / "x.npy"), "--into", "s3://no-such-bucket/x.space", "--modality", "image"]) == 2
    )
    message = capsys.readouterr().err
    assert "s3://no-such-bucket/x.space: the store does not do it" in message
    assert len(message.strip().splitlines()) == 1, "told before anything is read"
