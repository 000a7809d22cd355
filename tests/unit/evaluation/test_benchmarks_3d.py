"""Readers of the 3D data sets, on miniatures in their published layouts; each trap has a test."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.encoders import embed_items, load_encoder
from isthmus.errors import ConfigError, DependencyError, FormatError
from isthmus.evaluation.benchmarks.declaration import load_benchmark
from isthmus.evaluation.benchmarks.readers import modelnet40, scanobjectnn
from isthmus.evaluation.benchmarks.readers.shared.clouds import cloud_items, farthest_points, sample
from isthmus.evaluation.benchmarks.task import Classification, Reading, Retrieval
from isthmus.items.decoding.point_cloud import decode_point_cloud
from isthmus.spaces.space import make_space, open_space
from miniatures_3d import (
    CLASS_OF,
    LVIS,
    LVIS_LAYOUTS,
    MODELNET,
    POINTS,
    SCAN_CLASSES,
    SCANOBJECTNN,
    SCANS,
    SHAPES,
    VIEWS,
    cloud,
    make_lvis_openshape,
    make_lvis_pictures,
    make_lvis_ulip2,
    make_lvis_uni3d,
    make_modelnet_h5,
    make_modelnet_off,
    make_modelnet_openshape,
    make_modelnet_txt,
    make_modelnet_ulip2,
    make_scans_bin,
    make_scans_h5,
    make_scans_npy,
    objects,
    record,
    save_h5,
    save_objects,
)
from miniatures_av import write

TXT = "modelnet40_normal_resampled"
SPLIT = "meta_data/modelnet40/test_split.json"
ULIP2 = "modelnet40_test_split_10k_colored.json"
FEW = {"points": 256}


def read(name: str, folder: Path, **options: object) -> Reading:
    return load_benchmark(name).read(folder, folder / "work", options)


def classification(reading: Reading) -> Classification:
    assert isinstance(reading.task, Classification)
    return reading.task


def stored(reading: Reading, at: int = 0) -> dict[str, np.ndarray]:
    """The arrays of an item's file."""
    with np.load(classification(reading).query.items[at].path or "", allow_pickle=False) as arrays:
        return dict(arrays)


def words(reading: Reading) -> str:
    return "\n".join(reading.notes)


def same_cloud(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two clouds are the same points, whatever their order."""
    one, two = (np.array(sorted(map(tuple, np.round(x, 4)))) for x in (a, b))
    return one.shape == two.shape and bool(np.allclose(one, two, atol=2e-4))


# ----------------------------------------------------------------------------------------------------------- ModelNet40


@pytest.mark.parametrize("layout", MODELNET)
def test_modelnet_layouts_give_the_same_classes_by_name(tmp_path, layout):
    reading = read("modelnet40", MODELNET[layout](tmp_path), **FEW)
    task = classification(reading)
    assert f"layout {layout}, 5 objects, y up" in words(reading)
    assert [label for _, label in task.labels] == list(CLASS_OF.values())
    assert list(task.classes) == sorted(task.classes)
    assert len(task.classes) == 40
    assert task.classes["flower_pot"] == "flower pot"
    assert task.classes["xbox"] == "xbox"
    for item in task.query.items:
        assert decode_point_cloud(item.path or "", points=256).shape == (256, 3)


@pytest.mark.parametrize("layout", ["txt", "h5", "ulip2", "openshape"])
def test_modelnet_clouds_stand_by_their_own_labels(tmp_path, layout):
    task = classification(read("modelnet40", MODELNET[layout](tmp_path), sampling="all"))
    for item, number in zip(task.query.items, SHAPES.values(), strict=True):
        with np.load(item.path or "") as arrays:
            assert list(arrays) == ["xyz"]  # normals are no colours, and colours are grey unless asked for
            np.testing.assert_allclose(arrays["xyz"], cloud(number, 2048 if layout == "h5" else POINTS), atol=1e-5)


def test_modelnet_is_encoded_and_told_apart(tmp_path):
    """Each cloud is nearest to another drawing of its own number."""
    task = classification(read("modelnet40", make_modelnet_txt(tmp_path), points=1024))
    encoder = load_encoder("toy:shape")
    found = embed_items(encoder, task.query.items, modality="point_cloud")
    other = classification(read("modelnet40", make_modelnet_h5(tmp_path / "other")))
    again = embed_items(encoder, other.query.items, modality="point_cloud")
    assert ((found @ again.T).argmax(axis=1) == np.arange(5)).mean() >= 0.8


def test_modelnet_sampling(tmp_path):
    make_modelnet_txt(tmp_path)
    full = cloud(SHAPES["airplane_0627"])
    first = stored(read("modelnet40", tmp_path, sampling="first", points=100))["xyz"]
    np.testing.assert_allclose(first, full[:100], atol=1e-5)
    one, again, other = (stored(read("modelnet40", tmp_path, points=100, seed=seed))["xyz"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert "100 farthest points from a start of seed 0" in words(read("modelnet40", tmp_path, points=100))
    everything = stored(read("modelnet40", tmp_path, points=POINTS))["xyz"]
    np.testing.assert_allclose(everything, full, atol=1e-5)


def test_modelnet_openshape_colours_are_of_255_even_where_all_are_dark(tmp_path):
    make_modelnet_openshape(tmp_path)
    assert "rgb" not in stored(read("modelnet40", tmp_path))
    reading = read("modelnet40", tmp_path, colours="file")
    np.testing.assert_allclose(stored(reading, 0)["rgb"], 100 / 255, atol=1e-6)
    np.testing.assert_allclose(stored(reading, 4)["rgb"], 1 / 255, atol=1e-6)


def test_modelnet_openshape_s_swap_is_a_mirror_and_off_by_default(tmp_path):
    make_modelnet_ulip2(tmp_path)
    plain, swapped = (stored(read("modelnet40", tmp_path, swap_yz=on))["xyz"] for on in (False, True))
    np.testing.assert_array_equal(swapped, plain[:, [0, 2, 1]])
    assert "mirrors" in words(read("modelnet40", tmp_path, swap_yz=True))
    assert "mirrors" not in words(read("modelnet40", tmp_path))


def test_modelnet_meshes_are_turned_from_z_up_to_y_up(tmp_path):
    reading = read("modelnet40", make_modelnet_off(tmp_path), points=500)
    for at in range(5):
        extent = np.ptp(stored(reading, at)["xyz"], axis=0)
        assert extent.argmax() == 1  # the mast of the tripod stands up
    assert "z turned up to y: figures differ from those of the resampled clouds" in words(reading)


def test_modelnet_h5_parts_are_read_in_the_order_of_their_names(tmp_path):
    task = classification(read("modelnet40", make_modelnet_h5(tmp_path)))
    parts = [name.rpartition(":")[0] for name in task.query.ids]
    assert parts == ["ply_data_test0"] * 2 + ["ply_data_test1"] * 3


def test_modelnet_the_big_array_is_read_only_while_clouds_are_missing(tmp_path, monkeypatch):
    make_modelnet_ulip2(tmp_path)
    first = classification(read("modelnet40", tmp_path)).query.items
    monkeypatch.setattr(modelnet40, "read_object_npy", lambda path: pytest.fail("read again"))
    assert classification(read("modelnet40", tmp_path)).query.items == first


def test_modelnet_a_missing_cloud_is_counted(tmp_path):
    make_modelnet_txt(tmp_path)
    (tmp_path / "modelnet40_normal_resampled/xbox/xbox_0104.txt").unlink()
    reading = read("modelnet40", tmp_path, **FEW)
    assert reading.missing == ["xbox_0104"]
    assert len(classification(reading).labels) == 4


def test_modelnet_a_pickled_cache_is_refused_and_what_to_use_is_said(tmp_path):
    cache = tmp_path / "modelnet40_test_8192pts_fps.dat"
    cache.write_bytes(pickle.dumps([[np.zeros((1, 6))], [np.zeros(1)]]))
    with pytest.raises(
        FormatError, match=r"8192pts_fps\.dat: is a pickle.*use the \.txt files of modelnet40_normal_res"
    ):
        read("modelnet40", tmp_path)
    make_modelnet_txt(tmp_path)  # beside the texts it is passed over
    assert len(classification(read("modelnet40", tmp_path, **FEW)).labels) == 5


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_modelnet_a_poisoned_array_is_refused_and_not_run(tmp_path):
    make_modelnet_openshape(tmp_path)
    values = [{"xyz": Payload(tmp_path / "ran")} for _ in SHAPES]
    save_objects(tmp_path / "meta_data/modelnet40/test_pc.npy", objects(values))
    with pytest.raises(FormatError, match=r"test_pc\.npy: cannot be read.*it asks for \w+\.system"):
        read("modelnet40", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("make", "file", "content", "message"),
    [
        (make_modelnet_txt, f"{TXT}/modelnet40_test.txt", "spoon_1\n", r"line 1 is 'spoon_1', expected"),
        (make_modelnet_txt, f"{TXT}/modelnet40_shape_names.txt", "xbox\nbed\n", "no list of ModelNet40"),
        (make_modelnet_txt, f"{TXT}/xbox/xbox_0104.txt", "1,2\nx\n", "is no table of numbers"),
        (make_modelnet_txt, f"{TXT}/xbox/xbox_0104.txt", "1,2\n", r"shape \(1, 2\), expected \(n, 3\)"),
        (make_modelnet_txt, f"{TXT}/xbox/xbox_0104.txt", "1,2,nan\n", "NaN or infinite"),
        (make_modelnet_ulip2, ULIP2, "[]", "lists no object"),
        (make_modelnet_ulip2, ULIP2, '[{"category": "bed"}]', r"holds 5 objects, .* lists 1"),
        (make_modelnet_openshape, SPLIT, json.dumps([{"category": "spoon"}] * 5), "record 0 has the category 'spoon'"),
        (make_modelnet_off, "ModelNet40/xbox/test/xbox_0104.off", "no mesh", r"xbox_0104\.off: damaged"),
        (make_modelnet_h5, "modelnet40_ply_hdf5_2048/ply_data_test0.h5", "no h5", r"is no whole \.h5 file"),
    ],
)  # fmt: skip
def test_modelnet_names_the_fault_of_another_file(tmp_path, make, file, content, message):
    write(make(tmp_path) / file, content)
    with pytest.raises(FormatError, match=message):
        read("modelnet40", tmp_path, **FEW)


def test_modelnet_h5_with_another_content(tmp_path):
    file = tmp_path / "ply_data_test0.h5"
    data = np.zeros((2, 8, 3), np.float32)
    for arrays, message in (
        ({"data": data}, "has no dataset 'label'. It has: data"),
        ({"data": data[0], "label": np.zeros(2, np.uint8)}, r"'data' is of float32 and shape \(8, 3\); expected"),
        ({"data": data, "label": np.zeros(3, np.uint8)}, r"labels of shape \(3,\)"),
        ({"data": data, "label": np.array([0, 40], np.uint8)}, "row 1 has the label 40, expected 0 to 39"),
        ({"data": data, "label": np.array([b"a", b"b"])}, "'label' is of"),
    ):
        file.unlink(missing_ok=True)
        save_h5(file, **arrays)
        with pytest.raises(FormatError, match=message):
            read("modelnet40", tmp_path)


def test_an_h5_that_points_into_another_file_is_refused(tmp_path):
    import h5py

    save_h5(tmp_path / "elsewhere.h5", data=np.zeros((2, 8, 3), np.float32))
    with h5py.File(tmp_path / "ply_data_test0.h5", "w") as file:
        file["data"] = h5py.ExternalLink("elsewhere.h5", "/data")
        file["label"] = np.zeros(2, np.uint8)
    with pytest.raises(FormatError, match="'data' is no dataset of this file"):
        read("modelnet40", tmp_path)
    layout = h5py.VirtualLayout((2, 8, 3), np.float32)
    layout[:] = h5py.VirtualSource(tmp_path / "elsewhere.h5", "data", (2, 8, 3))
    with h5py.File(tmp_path / "ply_data_test0.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
        file["label"] = np.zeros(2, np.uint8)
    with pytest.raises(FormatError, match="'data' is no dataset of this file"):
        read("modelnet40", tmp_path)


def test_h5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    make_modelnet_h5(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DependencyError, match=r"reading \.h5 files needs h5py.*pip install 'isthmus\[benchmarks\]'"):
        read("modelnet40", tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("modelnet40", r"modelnet40_normal_resampled/modelnet40_test\.txt.*test_pc\.npy"),
        ("scanobjectnn", r"test_objectdataset_augmentedrot_scale75\.h5.*scanobjectnn/xyz_label\.npy.*main_split\.txt"),
        ("objaverse-lvis", r"lvis_testset\.txt .*lvis\.json .*lvis-annotations\.json\.gz"),
    ],
)
def test_an_empty_folder_is_told_which_file_is_expected(tmp_path, name, expected):
    with pytest.raises(FormatError, match=rf"{tmp_path}.*{expected}.*isthmus benchmarks"):
        read(name, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("points", 0, "option 'points' got 0"),
        ("sampling", "random", "'sampling' got 'random'. Expected one of fps, first, all"),
        ("layout", "obj", "'layout' got 'obj'. Expected one of auto, txt"),
        ("colours", "red", "'colours' got 'red'. Expected one of grey, file"),
    ],
)
def test_modelnet_options_are_checked(tmp_path, key, value, message):
    with pytest.raises(ConfigError, match=message):
        read("modelnet40", make_modelnet_txt(tmp_path), **{key: value})


# --------------------------------------------------------------------------------------------------- sampling and files


def naive_farthest(xyz: np.ndarray, count: int, start: int) -> list[int]:
    """The definition: the point whose nearest chosen point is farthest."""
    rows = [start]
    while len(rows) < count:
        away = [min(float(((p - xyz[r]) ** 2).sum()) for r in rows) for p in xyz]
        rows.append(int(np.argmax(away)))
    return rows


def test_farthest_points_are_those_of_the_definition():
    xyz = np.random.default_rng(2).standard_normal((60, 3)).astype(np.float32)
    for start in (0, 17):
        assert farthest_points(xyz, 20, start).tolist() == naive_farthest(xyz, 20, start)
    assert farthest_points(xyz, 60, 5).tolist() == list(range(60))


def test_each_object_has_a_start_of_its_own():
    xyz = np.random.default_rng(2).standard_normal((500, 3)).astype(np.float32)
    starts = {int(sample(xyz, "fps", 5, seed=0, name=name)[0]) for name in "abcdef"}
    assert len(starts) > 3


def test_clouds_are_written_once_and_a_killed_run_goes_on(tmp_path):
    source = write(tmp_path / "source.bin", "x")
    clouds = [cloud(number, 50) for number in SHAPES.values()]
    loaded: list[int] = []

    def load(at: int, stop: int | None = None) -> np.ndarray:
        if at == stop:
            raise KeyboardInterrupt
        loaded.append(at)
        return clouds[at]

    arguments: dict[str, Any] = {"sources": source, "settings": {"points": 50}}
    with pytest.raises(KeyboardInterrupt):
        cloud_items(list(SHAPES), lambda at: load(at, 3), tmp_path / "work", **arguments)
    items = cloud_items(list(SHAPES), load, tmp_path / "work", **arguments)
    assert loaded == [0, 1, 2, 3, 4]
    assert cloud_items(list(SHAPES), load, tmp_path / "work", **arguments) == items
    assert len(loaded) == 5
    assert not list(tmp_path.rglob("*partial*"))
    cloud_items(list(SHAPES), load, tmp_path / "work", sources=source, settings={"points": 40})
    assert len(loaded) == 10  # other settings make other clouds
    source.write_bytes(b"another source")
    cloud_items(list(SHAPES), load, tmp_path / "work", **arguments)
    assert len(loaded) == 15


# --------------------------------------------------------------------------------------------------------- ScanObjectNN


@pytest.mark.parametrize("layout", SCANOBJECTNN)
def test_scan_labels_are_numbers_in_an_order_that_is_not_the_alphabet_s(tmp_path, layout):
    task = classification(read("scanobjectnn", SCANOBJECTNN[layout](tmp_path)))
    expected = SCAN_CLASSES[1:4] if layout == "bin" else SCAN_CLASSES
    assert [label for _, label in task.labels] == expected
    assert list(task.classes) == list(scanobjectnn.CLASSES) != sorted(task.classes)
    assert len(task.classes) == 15


def test_scan_variants_of_one_file_name_differ_in_their_folder(tmp_path):
    make_scans_h5(tmp_path)
    sizes = {
        ("obj_bg", True): 5,
        ("obj_bg", False): 5,
        ("obj_only", True): 4,
        ("pb_t50_rs", True): 5,
        ("pb_t50_rs", False): 3,
        ("hardest", True): 5,
    }
    for (variant, background), size in sizes.items():
        reading = read("scanobjectnn", tmp_path, variant=variant, background=background)
        assert len(classification(reading).labels) == size, variant
    assert "ScanObjectNN obj_only test, main_split_nobg, without background" in words(
        read("scanobjectnn", tmp_path, variant="obj_only")
    )
    assert "25.0% of the points are background" in words(read("scanobjectnn", tmp_path))
    with pytest.raises(FormatError, match=r"h5_files/main_split/test_objectdataset_augmented25rot\.h5 or .* not found"):
        read("scanobjectnn", tmp_path, variant="pb_t25_r")
    with pytest.raises(FormatError, match=r"h5_files/split2/training_objectdataset\.h5"):
        read("scanobjectnn", tmp_path, variant="obj_bg", fold="split2", split="train")
    with pytest.raises(ConfigError, match=r"'fold' got '\.\./x'\. Expected main_split"):
        read("scanobjectnn", tmp_path, fold="../x")
    with pytest.raises(ConfigError, match=r"'variant' got 'hard'\. Expected one of obj_bg"):
        read("scanobjectnn", tmp_path, variant="hard")


def test_scans_are_stored_as_they_are_and_scaled_by_the_decoder(tmp_path):
    reading = read("scanobjectnn", make_scans_h5(tmp_path))
    xyz = stored(reading)["xyz"]
    assert np.linalg.norm(xyz, axis=1).min() > 2  # not centred in the file
    decoded = decode_point_cloud(classification(reading).query.items[0].path or "", points=None)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1).max(), 1.0, atol=1e-6)
    np.testing.assert_allclose(decoded.mean(axis=0), 0.0, atol=1e-6)


def test_scan_npy_is_called_no_test_set(tmp_path):
    reading = read("scanobjectnn", make_scans_npy(tmp_path))
    assert "5 objects of OpenShape and Uni3D, training and test objects of the plain variant together" in words(reading)
    assert same_cloud(stored(reading, 2)["xyz"], cloud(SCANS[2][0]))
    assert "rgb" not in stored(reading)
    np.testing.assert_allclose(stored(read("scanobjectnn", tmp_path, colours="file"))["rgb"], 0.25)


def test_scan_npy_as_one_plain_array_of_clouds(tmp_path):
    value = {"xyz": np.stack([cloud(n, 64) for n, _ in SCANS]), "label": np.array([label for _, label in SCANS])}
    save_objects(tmp_path / "xyz_label.npy", objects(one=value))
    task = classification(read("scanobjectnn", tmp_path))
    assert [label for _, label in task.labels] == SCAN_CLASSES


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"xyz": [1]}, "expected a dict of xyz and as many labels"),
        ({"xyz": [np.zeros((4, 3))], "label": [1, 2]}, "expected a dict of xyz and as many labels"),
        ({"xyz": [np.zeros((4, 3))], "label": ["bag"]}, "labels that are no whole numbers"),
        ({"xyz": [np.zeros((4, 3))], "label": [15]}, "has the label 15, expected 0 to 14"),
        ([1, 2], "expected a dict of xyz"),
    ],
)
def test_scan_npy_names_the_fault(tmp_path, value, message):
    save_objects(tmp_path / "xyz_label.npy", objects(one=value))
    with pytest.raises(FormatError, match=message):
        read("scanobjectnn", tmp_path)


def test_scan_npy_with_colours_of_some(tmp_path):
    save_objects(tmp_path / "xyz_label.npy", objects(one={"xyz": [np.ones((4, 3))], "label": [1], "rgb": []}))
    with pytest.raises(FormatError, match="has rgb, but not for each of its 1 objects"):
        read("scanobjectnn", tmp_path, colours="file")


def test_raw_scans_of_the_test_split(tmp_path):
    reading = read("scanobjectnn", make_scans_bin(tmp_path), colours="file")
    assert reading.missing == ["scene0004_00_00004.bin"]
    assert same_cloud(stored(reading)["xyz"], cloud(SCANS[1][0]))
    np.testing.assert_allclose(stored(reading)["rgb"], 51 / 255)
    assert [label for _, label in classification(read("scanobjectnn", tmp_path, split="train")).labels] == ["toilet"]


def test_a_raw_scan_of_another_length_is_refused(tmp_path):
    make_scans_bin(tmp_path)
    path = next((tmp_path / "object_dataset").rglob("scene0001*"))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FormatError, match=r"scene0001_00_00001\.bin: has 13,200 numbers, expected 11 a point"):
        read("scanobjectnn", tmp_path)
    write(tmp_path / "main_split.txt", "scene0001.bin bag\n")
    with pytest.raises(FormatError, match=r"main_split\.txt: line 1 is 'scene0001\.bin bag', expected ID\.bin, a tab"):
        read("scanobjectnn", tmp_path)


def test_a_pickled_cache_of_scans_is_refused(tmp_path):
    (tmp_path / "scanobjectnn_test_fps.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(FormatError, match=r"test_fps\.pkl: is a pickle.*use the \.h5 files of h5_files"):
        read("scanobjectnn", tmp_path)


# ------------------------------------------------------------------------------------------------------- Objaverse-LVIS


@pytest.mark.parametrize("layout", LVIS_LAYOUTS)
def test_lvis_lists_give_the_same_categories(tmp_path, layout):
    task = classification(read("objaverse-lvis", LVIS_LAYOUTS[layout](tmp_path)))
    found = {uid: task.classes[label] for uid, label in task.labels if "#" not in uid}
    expected = {uid: name.replace("_", " ") for uid, (_, name) in LVIS.items()}
    assert found == {uid: name for uid, name in expected.items() if layout != "openshape" or uid != list(LVIS)[-1]}
    assert list(task.classes) == sorted(task.classes)
    assert len(task.classes) == 4
    for item in task.query.items:
        assert decode_point_cloud(item.path or "", points=128).shape == (128, 3)


def test_lvis_an_object_under_two_categories_counts_under_each(tmp_path):
    reading = read("objaverse-lvis", make_lvis_openshape(tmp_path))
    first, last = next(iter(LVIS)), list(LVIS)[-1]
    assert [label for uid, label in classification(reading).labels if uid.startswith(first)] == ["Band_Aid", "toilet"]
    assert "1 objects stand under a further category" in words(reading)
    assert reading.missing == [last]
    assert "5 objects under 4 categories of lvis.json: sets of this name differ in size" in words(reading)


def test_lvis_two_files_of_one_name_are_told_apart(tmp_path):
    one = classification(read("objaverse-lvis", make_lvis_openshape(tmp_path / "a"), layout="json"))
    two = classification(read("objaverse-lvis", make_lvis_ulip2(tmp_path / "b"), layout="json"))
    assert set(one.classes) == {"Band_Aid", "bullet_train", "toilet", "bow_(weapon)"}
    assert set(two.classes) == {"Band Aid", "bullet train", "toilet", "bow (weapon)"}
    assert set(one.classes.values()) == set(two.classes.values())


def test_lvis_categories_without_an_object_are_classes_too(tmp_path):
    make_lvis_ulip2(tmp_path)
    path = tmp_path / "objaverse-lvis/objaverse_lvis_metadata.json"
    value = json.loads(path.read_text())
    write(path, json.dumps({**value, "all_keys": [*value["all_keys"], "zebra"]}))
    assert list(classification(read("objaverse-lvis", tmp_path)).classes)[-1] == "zebra"


def test_lvis_names_with_underscores_as_uni3d_prompts_them(tmp_path):
    task = classification(read("objaverse-lvis", make_lvis_uni3d(tmp_path), names="underscores"))
    assert list(task.classes.values()) == ["Band_Aid", "bow_(weapon)", "bullet_train", "toilet"]


def test_lvis_records_are_decoded_where_they_lie(tmp_path):
    task = classification(read("objaverse-lvis", make_lvis_uni3d(tmp_path)))
    item = task.query.items[0]
    assert (item.path or "").endswith(f"objaverse_lvis/000-001/{next(iter(LVIS))}.npy")
    found = decode_point_cloud(item.path or "", points=None, colours=True)
    own = record(LVIS[item.id][0], item.id)["xyz"].astype(np.float64)
    own = own - own.mean(axis=0)
    np.testing.assert_allclose(found[:, :3], own / np.linalg.norm(own, axis=1).max(), atol=1e-6)
    np.testing.assert_allclose(found[:, 3:], 0.5)


def test_lvis_clouds_that_were_converted_to_npz_are_found(tmp_path):
    make_lvis_ulip2(tmp_path)
    for path in (tmp_path / "objaverse-lvis/000-009").glob("*.npy"):
        np.savez(path.with_suffix(".npz"), xyz=cloud(LVIS[path.stem][0]))
        path.unlink()
    assert len(classification(read("objaverse-lvis", tmp_path)).labels) == 5


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("lvis.json", '"text"', "holds a str, expected the lvis.json of OpenShape or of ULIP-2"),
        ("lvis.json", "[]", "lists no object"),
        ("lvis.json", '[{"uid": 1}]', "record 0 has 'uid' = '1', expected str"),
        ("lvis.json", '{"a": "b"}', r"objaverse_lvis_metadata\.json not found"),
        ("lvis.json", '[{"uid": "../a", "category": "b"}]', "leads out of the folder"),
        ("lvis.json", '[{"uid": "a", "category": "b"}]', r"none of the 1 objects of Objaverse-LVIS is there .*'a'"),
        ("lvis_testset.txt", "a,b,c\n", "line 1 is 'a,b,c', expected NUMBER,NAME,UID,/PATH"),
        ("lvis-annotations.json.gz", "no gzip", "cannot be read as gzipped json"),
    ],
)
def test_lvis_names_the_fault_of_another_file(tmp_path, file, content, message):
    write(tmp_path / file, content)
    with pytest.raises(FormatError, match=message):
        read("objaverse-lvis", tmp_path)


# --------------------------------------------------------------------------------------------------------- 3D to images


def retrieval(folder: Path, **options: object) -> tuple[Retrieval, Reading]:
    reading = read("objaverse-lvis-images", folder, **options)
    assert isinstance(reading.task, Retrieval)
    return reading.task, reading


def test_the_picture_must_be_said(tmp_path):
    with pytest.raises(ConfigError, match=r"the papers do not say which picture.*--set image=thumbnail"):
        retrieval(make_lvis_ulip2(tmp_path))


@pytest.mark.parametrize("image", ["thumbnail", "view"])
def test_pictures_as_files(tmp_path, image):
    task, reading = retrieval(make_lvis_pictures(tmp_path), image=image, view=1)
    uids = list(LVIS)[:-1]
    assert task.query.ids == task.gallery.ids == uids
    assert list(task.pairs) == [(uid, uid) for uid in uids]
    assert reading.missing == [list(LVIS)[-1]]
    ends = {"thumbnail": "thumbnails/{}.jpg", "view": "views/{}/001.png"}[image]
    assert [(item.path or "").endswith(ends.format(item.id)) for item in task.gallery.items] == [True] * 4
    assert f"4 objects of lvis.json and as many pictures: {'thumbnail' if image == 'thumbnail' else 'view 1'}" in words(
        reading
    )


def test_pictures_are_encoded_and_find_their_objects(tmp_path):
    task, _ = retrieval(make_lvis_pictures(tmp_path), image="thumbnail")
    encoder = load_encoder("toy:shape")
    query, gallery = (embed_items(encoder, side.items, modality=side.modality) for side in (task.query, task.gallery))
    assert ((query @ gallery.T).argmax(axis=1) == np.arange(4)).mean() >= 0.5


@pytest.mark.parametrize("image", ["thumbnail", "view", "mean"])
def test_stored_features_become_a_space(tmp_path, image):
    make_lvis_ulip2(tmp_path)
    task, reading = retrieval(tmp_path, image=image, view=2, source="stored")
    embeddings = task.gallery.embeddings
    assert embeddings is not None
    assert task.query.ids == list(embeddings.ids) == list(LVIS)
    for row, (uid, (number, _)) in zip(np.asarray(embeddings), LVIS.items(), strict=True):
        own = record(number, uid)
        views = own["image_feat"] / np.linalg.norm(own["image_feat"], axis=1, keepdims=True)
        expected = {"thumbnail": own["thumbnail_feat"], "view": own["image_feat"][2], "mean": views.mean(axis=0)}[image]
        np.testing.assert_allclose(row, expected, rtol=1e-5)
    assert embeddings.info["encoder"]["id"] == "ViT-bigG-14/laion2b_s39b_b160k"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.npy")}
    again, _ = retrieval(tmp_path, image=image, view=2, source="stored")
    assert again.gallery.ids == task.gallery.ids
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.npy")}
    assert "of stored" in words(reading)


def test_features_and_pictures_of_a_space(tmp_path):
    make_lvis_ulip2(tmp_path)
    rng = np.random.default_rng(0)
    ids = [f"{uid}/{view:03d}" for uid in list(LVIS)[:3] for view in range(VIEWS)] + [f"{next(iter(LVIS))}.png"]
    rows = rng.standard_normal((len(ids), 6)).astype(np.float32)
    encoder = {"library": "tests", "id": "e", "revision": "1", "weights_sha256": "0" * 64}
    make_space(
        tmp_path / "views.space", {"image": (ids, rows)}, encoder=encoder, preprocessing={"size": 8}, dtype="float32"
    )
    of_views = open_space(tmp_path / "views.space")["image"]
    task, reading = retrieval(tmp_path, image="mean", source="space", space="views.space")
    assert task.gallery.embeddings is not None
    assert task.gallery.embeddings.fingerprint == of_views.fingerprint  # still the encoder's, so that bridges take it
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(task.gallery.embeddings)[1], units[3:6].mean(axis=0), rtol=1e-5)
    assert len(reading.missing) == 2
    view, _ = retrieval(tmp_path, image="view", view=2, source="space", space="views.space")
    np.testing.assert_allclose(np.asarray(view.gallery.embeddings)[0], rows[2], rtol=1e-5)
    thumbnail, _ = retrieval(tmp_path, image="thumbnail", source="space", space="views.space")
    assert thumbnail.gallery.ids == [next(iter(LVIS))]


def test_stored_features_that_are_not_there(tmp_path):
    make_lvis_ulip2(tmp_path)
    path = tmp_path / f"objaverse-lvis/000-009/{next(iter(LVIS))}.npy"
    save_objects(path, objects(one={"xyz": cloud(1)}))
    with pytest.raises(FormatError, match=r"holds no image_feat\. Expected a record"):
        retrieval(tmp_path, image="mean", source="stored")
    path.with_suffix(".npz").write_bytes(b"no zip")
    path.unlink()
    with pytest.raises(FormatError, match=r"is no \.npz of plain arrays"):
        retrieval(tmp_path, image="mean", source="stored")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image": "mean"}, ConfigError, r"'mean' with source=files.*encode the views first"),
        ({"image": "view", "view": -1}, ConfigError, "'view' got -1"),
        ({"image": "view", "view": 9, "source": "stored"}, ConfigError, r"'view' got 9, but .*\.npy has 3 views"),
        ({"image": "thumbnail"}, FormatError, r"no picture of the 5 objects is there \(looked in thumbnails, images"),
        ({"image": "mean", "source": "space"}, ConfigError, "option 'space' is empty"),
        ({"image": "mean", "source": "space", "space": "x.space"}, FormatError, r"x\.space not found"),
        ({"image": "mean", "source": "web"}, ConfigError, "'source' got 'web'. Expected one of files, stored, space"),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be_had(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        retrieval(make_lvis_ulip2(tmp_path), **options)


def test_the_papers_own_samples_are_read_alike_as_records(shared, tmp_path):
    """The three published sample clouds, as plain arrays and, put back into records, as OpenShape stores them."""
    samples = sorted((shared / "data/official").glob("*_points.npz"))
    assert len(samples) == 3
    for path in samples:
        with np.load(path, allow_pickle=False) as arrays:
            stored_as = save_objects(tmp_path / f"{path.stem}.npy", objects(one={"id": path.stem, **arrays}))
        options: dict[str, Any] = {"points": None, "colours": True}
        one, other = (decode_point_cloud(each, **options) for each in (path, stored_as))
        assert one.shape == (10_000, 6)
        np.testing.assert_array_equal(one, other)


def test_class_numbers_are_those_of_the_layouts():
    assert len(modelnet40.CLASSES) == 40
    assert sorted(modelnet40.CLASSES) == list(modelnet40.CLASSES)
    assert (modelnet40.CLASSES[0], modelnet40.CLASSES[15], modelnet40.CLASSES[39]) == ("airplane", "flower_pot", "xbox")
    assert (scanobjectnn.CLASSES[0], scanobjectnn.CLASSES[10], scanobjectnn.CLASSES[14]) == ("bag", "bed", "toilet")
