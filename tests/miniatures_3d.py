"""Miniatures of the 3D data sets, in their published layouts, made of the demo's carved numbers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.demo.world import SPLITS, draw_clouds
from miniatures_av import NUMBERS, save_picture, write

POINTS = 1200
SHAPES = {
    "airplane_0627": int(NUMBERS[0]),
    "flower_pot_0150": int(NUMBERS[1]),
    "flower_pot_0151": int(NUMBERS[2]),
    "night_stand_0201": int(NUMBERS[3]),
    "xbox_0104": int(NUMBERS[4]),
}
CLASS_OF = {name: name.rpartition("_")[0] for name in SHAPES}
INDEX = {"airplane": 0, "flower_pot": 15, "night_stand": 23, "xbox": 39}
"""Numbers of classes in the order of the alphabet, among the 40."""


def cloud(number: int, points: int = POINTS) -> np.ndarray:
    """A number as points, (points, 3) float32, y up."""
    writers = SPLITS["test"].cloud_writers
    found = draw_clouds(np.array([number]), writers, np.random.default_rng((5, number)))[0]
    return found[np.arange(points) % len(found)]


def objects(values: Sequence[Any] | None = None, *, one: Any = None) -> np.ndarray:
    """An object array of many values, or of one."""
    array = np.empty(() if values is None else len(values), object)
    array[... if values is None else slice(None)] = one if values is None else values
    return array


def save_objects(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=True)
    return path


def save_h5(path: Path, **arrays: Any) -> Path:
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


# ----------------------------------------------------------------------------------------------------------- ModelNet40


def make_modelnet_txt(folder: Path) -> Path:
    """modelnet40_normal_resampled: the last three numbers of a line are normals, far from 0 to 1."""
    root = folder / "modelnet40_normal_resampled"
    write(root / "modelnet40_shape_names.txt", "\r\n".join(sorted(INDEX)) + "\r\n")
    write(root / "modelnet40_test.txt", "\r\n".join(SHAPES) + "\r\n")
    for name, number in SHAPES.items():
        rows = np.concatenate([cloud(number), -np.ones((POINTS, 3))], axis=1)
        text = "\n".join(",".join(f"{value:.6f}" for value in row) for row in rows)
        write(root / CLASS_OF[name] / f"{name}.txt", text + "\n")
    return folder


def make_modelnet_h5(folder: Path) -> Path:
    """ply_hdf5_2048 in two parts, labels of shape (n, 1)."""
    names = list(SHAPES)
    for part, own in enumerate((names[:2], names[2:])):
        data = np.stack([cloud(SHAPES[name], 2048) for name in own]).astype(np.float32)
        label = np.array([[INDEX[CLASS_OF[name]]] for name in own], np.uint8)
        save_h5(folder / f"modelnet40_ply_hdf5_2048/ply_data_test{part}.h5", data=data, label=label)
    return folder


def make_modelnet_off(folder: Path) -> Path:
    """Meshes of a tripod with z up; one file has its counts in the first line, as many have."""
    for n, name in enumerate(SHAPES):
        first = "OFF" if n % 2 else "OFF\n# a comment\n\n"
        text = f"{first}4 2 0\n0 0 0\n1 0 0\n0 0 {10 + n}\n0.5 0 0\n3 0 1 2\n3 0 3 2\n"
        write(folder / "ModelNet40" / CLASS_OF[name] / "test" / f"{name}.off", text)
    return folder


def make_modelnet_ulip2(folder: Path) -> Path:
    """ULIP-2's: names of files that say colours, which ULIP-2 does not use; categories with underscores."""
    records = [{"category": CLASS_OF[name], "name": name} for name in SHAPES]
    write(folder / "modelnet40_test_split_10k_colored.json", json.dumps(records))
    values = [{"xyz": cloud(number), "rgb": np.full((POINTS, 3), 100.0, np.float32)} for number in SHAPES.values()]
    save_objects(folder / "modelnet40_colored_10k_pc.npy", objects(values))
    return folder


def make_modelnet_openshape(folder: Path) -> Path:
    """OpenShape's and Uni3D's: categories with blanks, colours of 0 to 255, one object nearly black."""
    records = [{"category": CLASS_OF[name].replace("_", " "), "name": name} for name in SHAPES]
    write(folder / "meta_data/modelnet40/test_split.json", json.dumps(records))
    grey = [100.0, 100.0, 100.0, 100.0, 1.0]
    values = [
        {"xyz": cloud(number), "rgb": np.full((POINTS, 3), shade, np.float32)}
        for shade, number in zip(grey, SHAPES.values(), strict=True)
    ]
    save_objects(folder / "meta_data/modelnet40/test_pc.npy", objects(values))
    return folder


MODELNET = {
    "txt": make_modelnet_txt,
    "h5": make_modelnet_h5,
    "off": make_modelnet_off,
    "ulip2": make_modelnet_ulip2,
    "openshape": make_modelnet_openshape,
}

# --------------------------------------------------------------------------------------------------------- ScanObjectNN

SCANS = [(int(number), label) for number, label in zip(NUMBERS[:5], (14, 0, 9, 2, 10), strict=True)]
"""A number and a label: toilet, bag, table, box and bed, in an order that is not the alphabet's."""
SCAN_CLASSES = ["toilet", "bag", "table", "box", "bed"]


def make_scans_h5(folder: Path) -> Path:
    """Two variants of one file name in the folders with and without background, and the hardest."""
    labels = np.array([label for _, label in SCANS], np.int32)
    data = np.stack([cloud(number, 2048) * 0.5 + 3.0 for number, _ in SCANS]).astype(np.float32)
    mask = np.zeros((len(SCANS), 2048), np.int32)
    mask[:, :512] = -1
    save_h5(folder / "h5_files/main_split/test_objectdataset.h5", data=data, label=labels, mask=mask)
    save_h5(folder / "h5_files/main_split_nobg/test_objectdataset.h5", data=data[:4], label=labels[:4])
    hardest = "test_objectdataset_augmentedrot_scale75.h5"
    save_h5(folder / f"h5_files/main_split/{hardest}", data=data, label=labels, mask=mask)
    save_h5(folder / f"h5_files/main_split_nobg/{hardest}", data=data[:3], label=labels[:3])
    return folder


def make_scans_npy(folder: Path) -> Path:
    value = {
        "xyz": objects([cloud(number) for number, _ in SCANS]),
        "label": [label for _, label in SCANS],
        "rgb": objects([np.full((POINTS, 3), 0.25, np.float32) for _ in SCANS]),
    }
    save_objects(folder / "scanobjectnn/xyz_label.npy", objects(one=value))
    return folder


def make_scans_bin(folder: Path) -> Path:
    """Raw scans: eleven numbers a point, their count first; one is missing."""
    lines = []
    for n, (number, label) in enumerate(SCANS):
        name = f"scene{n:04d}_00_0000{n}.bin"
        lines.append(f"{name}\t{label}" + ("\tt" if n else ""))
        rows = np.zeros((POINTS, 11), np.float32)
        rows[:, :3], rows[:, 6:9], rows[:, 9:] = cloud(number), 51.0, 7.0
        path = folder / f"object_dataset/{SCAN_CLASSES[n]}/{name}"
        if n != 4:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.concatenate([[np.float32(POINTS)], rows.reshape(-1)]).astype("<f4").tofile(path)
    write(folder / "main_split.txt", "\n".join(lines) + "\n")
    return folder


SCANOBJECTNN = {"h5": make_scans_h5, "npy": make_scans_npy, "bin": make_scans_bin}

# ------------------------------------------------------------------------------------------------------- Objaverse-LVIS

LVIS = {f"{n:032x}": (int(number), name) for n, (number, name) in enumerate(
    zip(NUMBERS[:5], ("Band_Aid", "bullet_train", "toilet", "bow_(weapon)", "toilet"), strict=True), 10)}  # fmt: skip
"""By uid a number and a category."""
VIEWS = 3


def record(number: int, uid: str) -> dict[str, Any]:
    """OpenShape's record of an object: points and colours in half precision, features that are not of unit length."""
    rng = np.random.default_rng(number)
    return {
        "dataset": "Objaverse",
        "group": "000-000",
        "id": uid,
        "text": ["a shape"],
        "text_feat": [{"original": rng.random((1, 8), np.float32)}],
        "thumbnail_feat": rng.standard_normal(8).astype(np.float32) * 40,
        "image_feat": rng.standard_normal((VIEWS, 8)).astype(np.float32) * 40,
        "xyz": cloud(number).astype(np.float16),
        "rgb": np.full((POINTS, 3), 0.5, np.float16),
    }


def save_records(folder: Path, group: str = "000-000", uids: Mapping[str, Any] | None = None) -> None:
    for uid in uids or LVIS:
        save_objects(folder / group / f"{uid}.npy", objects(one=record(LVIS[uid][0], uid)))


def make_lvis_openshape(folder: Path) -> Path:
    """A list of records; the last object has no file, and one stands under two categories."""
    rows = [
        {"uid": uid, "category": name, "group": "000-000", "data_path": f"/Objaverse/000-000/{uid}.npy"}
        for uid, (_, name) in LVIS.items()
    ]
    rows.append({**rows[0], "category": "toilet"})
    write(folder / "meta_data/split/lvis.json", json.dumps(rows))
    save_records(folder / "objaverse-processed/Objaverse", uids=dict(list(LVIS.items())[:-1]))
    return folder


def make_lvis_ulip2(folder: Path) -> Path:
    """An object of paths under the same name, its names with blanks in a file beside it."""
    root = folder / "objaverse-lvis"
    write(root / "lvis.json", json.dumps({uid: f"000-009/{uid}.npy" for uid in LVIS}))
    names = {uid: name.replace("_", " ") for uid, (_, name) in LVIS.items()}
    keys = sorted(set(names.values()))
    ids = {name: n for n, name in enumerate(keys)}
    value = {"all_keys": keys, "key_to_id": ids, "value_to_key_mapping": names}
    write(root / "objaverse_lvis_metadata.json", json.dumps(value))
    save_records(root, "000-009")
    return folder


def make_lvis_uni3d(folder: Path) -> Path:
    """Lines of number, name, uid and a path that begins with a slash."""
    keys = sorted({name for _, name in LVIS.values()})
    lines = [f"{keys.index(name)},{name},{uid},/000-001/{uid}.npy" for uid, (_, name) in LVIS.items()]
    write(folder / "objaverse_lvis/lvis_testset.txt", "\n".join(lines) + "\n")
    save_records(folder / "objaverse_lvis", "000-001")
    return folder


def make_lvis_source(folder: Path) -> Path:
    """The package's own: uids by category, gzipped, and meshes."""
    import trimesh

    categories: dict[str, list[str]] = {}
    for uid, (_, name) in LVIS.items():
        categories.setdefault(name, []).append(uid)
    paths = {uid: f"glbs/000-002/{uid}.glb" for uid in LVIS}
    for name, value in (("lvis-annotations", categories), ("object-paths", paths)):
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(value).encode()))
    for n, path in enumerate(paths.values()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        trimesh.creation.box((1, 2 + n, 3)).export(folder / path)
    return folder


LVIS_LAYOUTS = {
    "openshape": make_lvis_openshape,
    "ulip2": make_lvis_ulip2,
    "uni3d": make_lvis_uni3d,
    "source": make_lvis_source,
}


def make_lvis_pictures(folder: Path) -> Path:
    """Thumbnails and views; one object has neither."""
    make_lvis_ulip2(folder)
    for uid, (number, _) in list(LVIS.items())[:-1]:
        save_picture(folder / f"thumbnails/{uid}.jpg", number)
        for view in range(VIEWS):
            save_picture(folder / f"views/{uid}/{view:03d}.png", number)
    return folder
