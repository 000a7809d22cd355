"""From folders to a search: everything encoded, all spaces joined, an index made, in one folder kept up to date.

Read `join` from top to bottom. Every step looks at what is there and does what is missing, so that a killed run goes on
where it stopped, ends in the same bytes, and a later one takes up what is new and drops what is gone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.fingerprint import bridge_fingerprint
from isthmus.core.files import read_json, sha256_json, write_json
from isthmus.core.modality import TEXT
from isthmus.core.replace import claim_folder, remove_written
from isthmus.errors import ConfigError
from isthmus.search.gallery import index_of
from isthmus.search.index import ANN_ROWS, SearchIndex
from isthmus.spaces.manifest import MANIFEST as SPACE_MANIFEST
from isthmus.spaces.manifest import lock
from isthmus.spaces.product import SPACE_FILES
from isthmus.spaces.selection import Selection
from isthmus.spaces.space import Space, open_space
from isthmus.worlds.bridging import bridge_key, make_bridge
from isthmus.worlds.plan import WorldPlan, check_at_hand, load_chosen, make_plan, plan_rows
from isthmus.worlds.readme import write_readme
from isthmus.worlds.survey import survey
from isthmus.worlds.world import BRIDGE, FORMAT, FORMAT_VERSION, INDEX, MANIFEST, SPACES, check_world

if TYPE_CHECKING:
    from isthmus.spaces.embeddings import Embeddings


@dataclass(frozen=True)
class JoinReport:
    """Report of `join`: what it did, or, with `dry_run`, would do.

    Attributes:
        path: The world.
        spaces: A row for each modality of each space: space, modality, encoder, items, and what was done or is to do.
        bridge: "made" or "kept"; of a dry run "to make", "to keep", or "to make or keep" where spaces that are there
            already have to embed texts before it is known.
        index: Rows of the index.
        seconds: Wall-clock time.
    """

    path: str
    spaces: list[dict[str, Any]]
    bridge: str
    index: int
    seconds: float


def join(
    paths: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    encoders: Mapping[str, str] | None = None,
    texts: str | Path | None = None,
    method: str | None = None,
    seed: int = 0,
    retrain: bool = False,
    dry_run: bool = False,
    device: str | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    max_rejected: float = 0.01,
    quiet: bool = False,
) -> JoinReport:
    """Make a world of raw files, lists of texts and spaces, or bring it up to date.

    Args:
        paths: Folders of raw files, lists of texts, spaces.
        out: The world's folder.
        encoders: By modality, an encoder other than the default (clip, clap, ulip).
        texts: What spaces are joined through: "builtin", a file, or None: the texts among the paths where they are
            many, else the vocabulary that ships.
        method: How spaces are connected; None is the default of `connect`.
        seed: Seed of everything random.
        retrain: Connect again although spaces, texts and method are as they were.
        dry_run: Only say what would be done.
        device: Where the models go.
        batch_size: Items in one pass through a model.
        workers: Decoding processes; None chooses.
        max_rejected: Share of items of one modality above which the run ends as failed.
        quiet: Show no progress.

    Raises:
        ConfigError: The paths or options do not fit, or something else lies at `out`.
        EncoderError: A checkpoint cannot be had; told before anything is encoded.
        OverlapError: Two spaces share too few items to be joined.
        CheckFailed: Too many items were rejected.
    """
    begin, folder = time.monotonic(), Path(out)
    check_world(folder)
    surveyed = survey(paths)
    plan = make_plan(surveyed, encoders=dict(encoders or {}), texts=texts)
    if dry_run:
        bridge_then = "to make" if retrain else _bridge_after(plan, folder, method, seed)
        return JoinReport(str(folder), plan_rows(plan, folder), bridge_then, 0, round(time.monotonic() - begin, 3))
    check_at_hand(plan)
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder, wait=False) as free:
        if not free:
            raise ConfigError(f"--out {folder}: another process is joining it. Wait for it to end, or stop it.")
        record = _begin(folder)
        options = {"device": device, "batch_size": batch_size, "workers": workers, "quiet": quiet}
        done = _encode_all(plan, folder, max_rejected=max_rejected, **options)
        _drop_spaces(plan, folder)
        spaces = _open_spaces(plan, folder)
        bridge, made = make_bridge(
            plan, folder, spaces, record, method=method, seed=seed, retrain=retrain, device=device, quiet=quiet
        )
        index = _index(plan, folder, spaces, bridge, record)
        write_readme(folder, plan, spaces, bridge, index)
        write_json(folder / MANIFEST, record)
    seconds = round(time.monotonic() - begin, 3)
    return JoinReport(str(folder), done, "made" if made else "kept", len(index), seconds)


def _bridge_after(plan: WorldPlan, folder: Path, method: str | None, seed: int) -> str:
    """What a run would do with the bridge that is there."""
    if not (folder / BRIDGE / "bridge.json").is_file():
        return "to make"
    if plan.existing and plan.texts:
        return "to make or keep"
    paths = [folder / SPACES / f"{space.name}.space" for space in plan.spaces]
    if not all((path / SPACE_MANIFEST).is_file() for path in paths):
        return "to make"
    spaces = [open_space(path) for path in [*paths, *plan.existing]]
    if any(set(space) != set(planned.items) for space, planned in zip(spaces, plan.spaces, strict=False)):
        return "to make"
    record = read_json(folder / MANIFEST, kind="world")
    return "to keep" if record.get("bridge") == bridge_key(plan, spaces, method, seed) else "to make"


def _begin(folder: Path) -> dict[str, Any]:
    """The world's record, of an earlier run or new; it lies there from the start, so that the folder is a world."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION}
    if (folder / MANIFEST).is_file():
        return {**read_json(folder / MANIFEST, kind="world"), **head}
    write_json(folder / MANIFEST, head)
    return head


def _encode_all(plan: WorldPlan, folder: Path, *, max_rejected: float, **options: Any) -> list[dict[str, Any]]:
    """Encode what is new or changed, drop what is gone; a row for each modality of each space."""
    from isthmus.encoders.pipeline.update import update_space

    done = []
    for space in plan.spaces:
        encoder = load_chosen(space.encoder, device=options["device"])
        for modality, items in space.items.items():
            report = update_space(
                items,
                folder / SPACES / f"{space.name}.space",
                modality=modality,
                encoder=encoder,
                content=modality != TEXT,
                max_rejected=max_rejected,
                **options,
            )
            done.append({"space": space.name, "modality": modality, "encoder": space.encoder, **vars(report)})
    return done


def _drop_spaces(plan: WorldPlan, folder: Path) -> None:
    """Remove modalities and spaces of this world that nothing is left of."""
    from isthmus.spaces.editing import remove_modality

    wanted = {f"{space.name}.space": set(space.items) for space in plan.spaces}
    for path in sorted((folder / SPACES).glob("*.space")):
        if path.name not in wanted:
            # A space that nothing is left of: only what isthmus wrote goes, and a person's file in it is told instead.
            claim_folder(path, SPACE_FILES, "space of this world", make=False)
            remove_written(path, SPACE_FILES)
            continue
        for modality in set(open_space(path).modalities) - wanted[path.name]:
            remove_modality(path, modality)


def _open_spaces(plan: WorldPlan, folder: Path) -> list[Space]:
    """All spaces, the base first; those that existed before get the texts that the others have."""
    own = [open_space(folder / SPACES / f"{space.name}.space") for space in plan.spaces]
    existing = [open_space(path) for path in plan.existing]
    if existing and plan.texts:
        from isthmus.recipes.texts import share_texts

        existing = share_texts(existing, plan.texts, cache=folder / "texts")
    names = [space.name for space in [*own, *existing]]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two spaces are called {min(twice)!r}. Rename one: isthmus rename S.space --name NAME.")
    return [*own, *existing]


def _galleries(plan: WorldPlan, spaces: Sequence[Space]) -> dict[str, Embeddings | Selection]:
    """What is searched: each modality of the user's once, from the space of its own encoder."""
    galleries: dict[str, Embeddings | Selection] = {}
    for modality, ids in plan.shown.items():
        home = next((space.name for space in plan.spaces if modality in space.items), None)
        # A modality that two encoders embed is shown from the one that was chosen for it, which lists it first.
        home = next((s.name for s in plan.spaces if next(iter(s.items), None) == modality), home)
        space = next((one for one in spaces if one.name == home), None)
        if space is None or modality not in space:
            continue
        whole = space[modality]
        galleries[f"{space.name}/{modality}"] = (
            whole if ids is None else Selection.of_ids(whole, [name for name in whole.ids if name in ids])
        )
    for space in spaces[len(plan.spaces) :]:
        for modality in space.modalities:
            galleries[f"{space.name}/{modality}"] = space[modality]
    return {name: each for name, each in galleries.items() if len(each)}


def _index(
    plan: WorldPlan, folder: Path, spaces: Sequence[Space], bridge: Bridge, record: dict[str, Any]
) -> SearchIndex:
    """The index of all that the user gave, made again where rows or the bridge changed."""
    galleries = _galleries(plan, spaces)
    key = sha256_json(
        {"bridge": bridge_fingerprint(bridge), "galleries": {n: _content(g) for n, g in galleries.items()}}
    )
    path = folder / INDEX
    if record.get("index") == key and path.is_dir():
        return SearchIndex.open(path)
    index = index_of(bridge, galleries)
    if len(index) >= ANN_ROWS:
        index.build_ann()
    index.save(path)
    record["index"] = key
    return index


def _content(gallery: Embeddings | Selection) -> list[Any]:
    """What a gallery's rows are, by the hashes of its shards."""
    whole = gallery.whole if isinstance(gallery, Selection) else gallery
    hashes = [[shard.marker["embeddings"]["sha256"], shard.marker["metadata"]["sha256"]] for shard in whole.shards]
    return [whole.fingerprint, len(gallery), hashes, sha256_json(gallery.ids)]
