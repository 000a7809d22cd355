"""Object arrays are read in full when they are plain data, and refused, without a thing run, when they are not."""

from __future__ import annotations

import contextlib
import copyreg
import io
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import FormatError
from isthmus.items import Rejected
from isthmus.items.decoding.object_npy import is_object_npy, read_object_npy
from isthmus.items.decoding.point_cloud import decode_point_cloud


def boxed(*values: Any, scalar: bool = True) -> np.ndarray:
    """An object array of shape (), or (n,)."""
    array = np.empty(() if scalar else len(values), object)
    array[... if scalar else slice(None)] = values[0] if scalar else values
    return array


def saved(array: np.ndarray, protocol: int | None = None) -> bytes:
    """A .npy as NumPy writes it, or with a pickle of another protocol, as older NumPy did."""
    stream = io.BytesIO()
    if protocol is None:
        np.save(stream, array, allow_pickle=True)
    else:
        return with_body(pickle.dumps(array, protocol), array.shape)
    return stream.getvalue()


def with_body(body: bytes, shape: tuple[int, ...] = ()) -> bytes:
    """The header of an object array, and any bytes after it."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": shape})
    return stream.getvalue() + body


def record() -> dict[str, Any]:
    """As OpenShape has one an object (the fields of the papers' sample records)."""
    rng = np.random.default_rng(0)
    features = [{"original": rng.random((1, 8), np.float32), "prompt_avg": rng.random((1, 8), np.float32)}]
    return {
        "dataset": "Objaverse",
        "group": "000-001",
        "id": "a" * 32,
        "text": ["a chair", "ein Stuhl ü"],
        "text_feat": features,
        "blip_caption": "a chair",
        "thumbnail_feat": rng.random(8, np.float32),
        "image_feat": rng.random((12, 8), np.float32),
        "xyz": rng.random((40, 3)).astype(np.float16),
        "rgb": rng.random((40, 3)).astype(np.float16),
    }


def check_equal(a: Any, b: Any) -> None:
    if isinstance(b, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(b, dict):
        assert list(a) == list(b)
        for key in b:
            check_equal(a[key], b[key])
    elif isinstance(b, list | tuple):
        assert type(a) is type(b)
        for x, y in zip(a, b, strict=True):
            check_equal(x, y)
    else:
        assert type(a) is type(b)
        assert a == b


@pytest.mark.parametrize("protocol", [None, 3, 4])
def test_a_record_is_read_in_full(protocol):
    check_equal(read_object_npy(saved(boxed(record()), protocol)), record())


def test_every_plain_value_and_kind_of_number_is_read():
    value = {
        "kinds": [np.arange(6).reshape(2, 3).astype(kind) for kind in ("f2", "f4", "f8", "u1", "i4", "i8")],
        "fortran": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        "empty": np.zeros((0, 3), np.float32),
        "cube": np.ones((2, 3, 4), np.float64),
        "plain": (1, -(2**40), 2.5, None, True, False, b"bytes", "text", [], {}, ()),
        7: "a number as a key",
    }
    check_equal(read_object_npy(saved(boxed(value))), value)


def test_many_records_of_one_file_share_what_they_share():
    clouds = [{"xyz": np.full((4, 3), n, np.float32), "rgb": np.full((4, 3), n, np.uint8)} for n in range(3)]
    check_equal(read_object_npy(saved(boxed(*clouds, scalar=False))), clouds)
    nested = {"xyz": boxed(*(cloud["xyz"] for cloud in clouds), scalar=False), "label": [0, 1, 2]}
    check_equal(read_object_npy(saved(boxed(nested)))["xyz"], [cloud["xyz"] for cloud in clouds])


def test_plain_arrays_are_read_too(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "plain.npy", array)
    np.testing.assert_array_equal(read_object_npy(tmp_path / "plain.npy"), array)
    np.save(tmp_path / "record.npy", boxed(record()), allow_pickle=True)
    check_equal(read_object_npy(tmp_path / "record.npy"), record())
    assert is_object_npy(saved(boxed(record())))
    assert not is_object_npy((tmp_path / "plain.npy").read_bytes())


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.binary(max_size=8)
    | st.builds(
        lambda shape, kind, order: np.asarray(np.arange(math.prod(shape)).reshape(shape), dtype=kind, order=order),
        st.lists(st.integers(0, 3), max_size=3),
        st.sampled_from(["f2", "f4", "f8", "u1", "i4", "i8"]),
        st.sampled_from("CF"),
    )
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3).filter(str.isprintable) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_any_plain_value_is_what_numpy_would_have_loaded(value):
    data = saved(boxed({"value": value}))
    check_equal(read_object_npy(data), np.load(io.BytesIO(data), allow_pickle=True).item())


class Payload:
    """Pickles as a call of anything."""

    def __init__(self, called: Any, *arguments: Any) -> None:
        self.called, self.arguments = called, arguments

    def __reduce__(self) -> Any:
        return self.called, self.arguments


def attack(value: Any) -> bytes:
    return saved(boxed({"xyz": value}))


def canary(tmp: Path) -> str:
    return f"touch {tmp / 'ran'}"


@pytest.mark.parametrize(
    ("called", "name"),
    [
        (os.system, "system"),
        (eval, "eval"),
        (getattr, "getattr"),
        (np.load, "load"),
        (np.frombuffer, "frombuffer"),
        (copyreg._reconstructor, "_reconstructor"),
        (__import__, "__import__"),
    ],
)
def test_a_call_is_named_and_not_made(called, name, tmp_path):
    with pytest.raises(
        FormatError, match=rf"it asks for \w[\w.]*\.{name}, which is no plain data.*Nothing in it was run"
    ):
        read_object_npy(attack(Payload(called, canary(tmp_path))))
    assert not (tmp_path / "ran").exists()


def test_the_payload_is_a_real_one(tmp_path):
    """The attack works on what would run it, so that the refusal means something."""
    np.load(io.BytesIO(attack(Payload(os.system, canary(tmp_path)))), allow_pickle=True)
    assert (tmp_path / "ran").exists()


def array_pickle(
    kind: str = "f4", shape: str = "(K\x02t", content: bytes = b"C\x08" + b"\0" * 8, order: str = "<"
) -> bytes:
    """A pickle of an object array () that holds one array, its parts as asked; protocol 3 as NumPy 1 wrote it."""
    make = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    inner = make + b"(K\x01" + shape.encode("latin-1") + _dtype(kind, order) + b"\x89" + content + b"tb"
    return b"\x80\x03" + make + b"(K\x01)" + _dtype("O8", "|") + b"\x89]" + inner + b"atb."


def _dtype(kind: str, order: str) -> bytes:
    name = b"X" + len(kind).to_bytes(4, "little") + kind.encode()
    end = b"X" + len(order).to_bytes(4, "little") + order.encode()
    flags = b"K?" if kind.startswith("O") else b"K\x00"
    rest = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" + flags + b"t"
    return b"cnumpy\ndtype\n" + name + b"\x89\x88\x87R(K\x03" + end + rest + b"b"


def test_the_handmade_pickle_is_one():
    np.testing.assert_array_equal(read_object_npy(with_body(array_pickle())), np.zeros(2, np.float32))
    np.testing.assert_array_equal(pickle.loads(array_pickle()).item(), np.zeros(2, np.float32))


NAN = np.array([np.nan, 1.0], np.float32).tobytes()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (with_body(array_pickle(shape="(K\x03t")), r"shape \(3,\) and type f4 with 8 bytes"),
        (with_body(array_pickle(shape="(J\xff\xff\xff\xfft")), r"shape \(-1,\)"),
        (with_body(array_pickle(shape="(K\x01K\x01K\x01K\x02t")), "at most 3 sizes"),
        (with_body(array_pickle(kind="V8")), "type 'V8', expected one of"),
        (with_body(array_pickle(kind="U2")), "type 'U2', expected one of"),
        (with_body(array_pickle(order=">")), "not plain little-endian"),
        (with_body(array_pickle(content=b"C\x08" + NAN)), "NaN or infinite"),
        (with_body(array_pickle(content=b"N")), "with 0 bytes"),
        (with_body(array_pickle() + b"more"), "bytes are left over"),
        (with_body(array_pickle()[:-1]), "damaged"),
        (with_body(array_pickle(), (5,)), "its content is something else"),
        (with_body(b"\x80\x03}."), "its content is something else"),
        (with_body(b"\x80\x04\x82\x01."), "EXT1 has no place in plain data"),
        (with_body(b"\x80\x04\x8c\x01aQ."), "BINPERSID has no place"),
        (with_body(b"(ios\nsystem\n."), "INST has no place"),
        (with_body(b"\x80\x03(cos\nsystem\no."), "asks for os.system"),
        (with_body(b"\x80\x03cnumpy\nndarray\n)\x81."), "NEWOBJ has no place"),
        (with_body(b"\x80\x03cnumpy\nndarray\n)R."), "calls ndarray"),
        (with_body(b"\x80\x03X\x01\0\0\0a)R."), "calls str"),
        (with_body(b"\x80\x03}cnumpy\nndarray\nK\x01s."), "damaged|key of type"),
        (with_body(b"\x80\x03]cnumpy\nndarray\na."), "a bare name"),
        (with_body(b"\x80\x03}}b."), "a state that no array has"),
        (with_body(b"\x80\x03}K\x01\x85b."), "a state for what has none"),
        (with_body(b"\x80\x03h\x05."), "damaged"),
        (with_body(b"\x80\x03."), "damaged"),
        (with_body(b"\x80\x03t."), "do not fit together"),
        (with_body(b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"."), "damaged"),
        (with_body(b"\x80\x04" + b"\x8c\x01a\x94" + b"\x85\x94" * 5000 + b"\x85a."), "damaged"),
        (b"\x80\x03}.", "no .npy"),
        (b"", "no .npy"),
        (saved(boxed(*"ab", scalar=False).reshape(2, 1)), r"shape \(2, 1\), expected"),
        (saved(np.zeros(3, np.float32))[:-2], "damaged"),
        (saved(boxed(np.float32(1.0))), r"asks for numpy\._?core\.multiarray\.scalar"),
        (saved(boxed({1.5: 1})), "key of type float"),
        (saved(boxed({"a": {1, 2}})), "EMPTY_SET has no place"),
        (saved(boxed({"a": 1}), 5)[:-9] + b"\x97.", "READONLY_BUFFER|NEXT_BUFFER|damaged|content"),
    ],
)
def test_anything_else_is_refused_and_named(data, reason):
    with pytest.raises(FormatError, match=reason):
        read_object_npy(data)


def test_a_large_or_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "test_pc.npy"
    np.save(path, boxed(record()), allow_pickle=True)
    with pytest.raises(FormatError, match=r"test_pc\.npy: cannot be read.*bytes, the limit is 100"):
        read_object_npy(path, max_bytes=100)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="an empty file"):
        read_object_npy(path)


def test_damage_anywhere_is_a_format_error_or_harmless():
    """No cut and no flipped byte raises anything but FormatError."""
    data = saved(boxed(record()))
    rng = np.random.default_rng(3)
    for position in rng.integers(0, len(data), 300):
        for broken in (data[:position], data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :]):
            with contextlib.suppress(FormatError):
                read_object_npy(broken)


def test_a_cloud_in_a_record_is_decoded_like_one_in_arrays():
    value = record()
    packed = io.BytesIO()
    np.savez(packed, xyz=value["xyz"], rgb=value["rgb"])
    options: dict[str, Any] = {"points": None, "colours": True}
    own = decode_point_cloud(saved(boxed(value)), suffix=".npy", **options)
    np.testing.assert_array_equal(own, decode_point_cloud(packed.getvalue(), suffix=".npz", **options))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"text": ["no points"]}, "pickled, without an array xyz"),
        ({"xyz": [1, 2, 3]}, "pickled, without an array xyz"),
        (Payload(os.system, "true"), r"pickled: it asks for \w+\.system, which is no plain data; save"),
    ],
)
def test_a_record_without_a_cloud_is_rejected(value, reason):
    with pytest.raises(Rejected, match=reason):
        decode_point_cloud(saved(boxed(value)), suffix=".npy")
