"""A bridge in words: the model card that is saved with it, and the summary that `describe` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.bridges.folder import FORMAT_VERSION, plain

if TYPE_CHECKING:
    from isthmus.bridges.joined import JoinedSpaces
    from isthmus.bridges.routes import Arrays

Shape = Callable[[str], tuple[int, ...]]

_ROLES = {
    "base": "the base, kept as it is",
    "leaf": "a leaf, projected into the base",
    "first": "the first, projected into a new space",
    "second": "the second, projected into a new space",
    "joined": "a further one, projected into the same space",
}


def route_words(steps: Sequence[Mapping[str, Any]], shape: Shape) -> str:
    """A route in a few words, such as `normalize, linear 192, mlp 384-256`; `shape` gives an array's shape by name."""
    return ", ".join(_step_words(step, shape) for step in steps) or "as it is"


def _step_words(step: Mapping[str, Any], shape: Shape) -> str:
    """One step of a route in a few words."""
    kind = str(step["kind"])
    if kind == "linear":
        return f"linear {shape(step['weight'])[0]}"
    if kind == "mlp":
        return "mlp " + "-".join(str(shape(layer["linear"][0])[0]) for layer in step["layers"] if "linear" in layer)
    if kind == "dictionary":
        return f"dictionary of {shape(step['keys'])[0]:,} at {step['temperature']:g}"
    if kind == "posterior":
        head = f" times {shape(step['values'])[1]:,}" if step.get("values") else ""
        return f"posterior over {shape(step['keys'])[0]:,} at {step['temperature']:g}{head}"
    if kind == "stack":
        chains = zip(step["scales"], step["chains"], strict=True)
        return "stack of " + " | ".join(f"{s:.3g} ({route_words(c, shape)})" for s, c in chains)
    if kind in ("blend", "concat"):
        return f"{kind} of " + " | ".join(f"{w:g} ({route_words(c, shape)})" for w, c in _weighted(step))
    return kind


def _weighted(step: Mapping[str, Any]) -> Iterator[tuple[float, Any]]:
    """Chains of a step with their weights."""
    return zip(step["weights"], step["chains"], strict=True)


def summary(description: Mapping[str, Any]) -> str:
    """Summary of a bridge in lines for a person, from what `Bridge.describe` gives."""
    joins = " + ".join(space["name"] for space in description["spaces"])
    lines = [f"bridge {joins}, method {description['method']}, {description['dim']} dimensions"]
    for space in description["spaces"]:
        lines.append(f"  {space['name']} ({space['role']}, {space['dim']} dimensions): {', '.join(space['encoders'])}")
    lines.append("routes")
    lines += [f"  {key}: {words}" for key, words in description["routes"].items()]
    if description["base_moved"]:
        lines.append(_moved(description))
    lines.append(f"{description['parameters']:,} numbers in {len(description['arrays'])} arrays")
    lines += [
        f"{key}: {_short(value)}" for key, value in _flat(description["record"].get("held_out") or {}, "held out")
    ]
    return "\n".join(lines)


def _moved(description: Mapping[str, Any]) -> str:
    """Warning of the card that embeddings of the base do not stay."""
    moved = ", ".join(description["base_moved"])
    return (
        f"THE BASE IS MOVED: {moved} do not stay as their encoder made them; indexes of the base must be projected anew"
    )


def model_card(description: Mapping[str, Any]) -> str:
    """The model card (`README.md`) of a bridge, for people and for the Hugging Face Hub.

    Args:
        description: What `Bridge.describe` gives.

    Returns:
        Markdown with YAML front matter. Equal descriptions give equal text.
    """
    names = [space["name"] for space in description["spaces"]]
    sections = [
        _front_matter(description),
        f"# {' + '.join(names)}: a bridge between embedding spaces\n\n" + _what(description),
        "## Spaces and encoders\n\n" + _spaces(description),
        "## Routes\n\n" + _routes(description),
        "## How it was made\n\n" + _made(description),
        "## Scores on held-out items\n\n" + _scores(description),
        "## How to use it\n\n" + _usage(description),
        "## Limits\n\n" + _limits(description),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(description: Mapping[str, Any]) -> str:
    """YAML front matter of the card, which the Hugging Face Hub reads."""
    modalities = sorted({key.rpartition("/")[2] for key in description["routes"]})
    tags = ["isthmus", "multimodal", "embeddings", "feature-extraction", description["method"], *modalities]
    return "---\nlibrary_name: isthmus\ntags:\n" + "\n".join(f"- {_yaml(tag)}" for tag in tags) + "\n---"


def _yaml(text: str) -> str:
    """A text as a YAML scalar, quoted where it must be."""
    plain = text.replace("-", "").replace("_", "")
    return (
        text if plain.isalnum() and plain[0].isalpha() else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )


def _what(description: Mapping[str, Any]) -> str:
    """First paragraph of the card: what the bridge is and what it joins."""
    roles = [f"- **{space['name']}**: {_ROLES[space['role']]}" for space in description["spaces"]]
    moved = [f"\n**{_moved(description)}.**"] if description["base_moved"] else []
    head = (
        f"Made by [isthmus](https://pypi.org/project/isthmus/) by `{description['method']}`, without paired data. "
        f"Embeddings of the spaces below land in one space of {description['dim']} dimensions; scores are cosines."
    )
    return "\n".join([head, "", *roles, *moved])


def _spaces(description: Mapping[str, Any]) -> str:
    """Table of the card with the encoder of every space and modality."""
    rows = ["| space | modality | dim | encoder | revision | weights sha256 |", "|---|---|---|---|---|---|"]
    for space in description["spaces"]:
        for modality, encoder in space["encoders"].items():
            name = f"{encoder.get('library') or 'unknown'}: {encoder.get('id') or 'unknown'}"
            sha = (encoder.get("weights_sha256") or "not recorded")[:16]
            cells = (space["name"], modality, space["dim"], name, encoder.get("revision") or "not recorded", sha)
            rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(rows) + "\n\nEmbeddings of any other encoder are refused, equal dimensions or not."


def _routes(description: Mapping[str, Any]) -> str:
    """Table of the card with the route of every modality."""
    rows = ["| from | through |", "|---|---|"]
    return "\n".join([*rows, *(f"| {_cell(key)} | {_cell(words)} |" for key, words in description["routes"].items())])


def _made(description: Mapping[str, Any]) -> str:
    """Section of the card on how the bridge was made: record and settings."""
    facts = dict(_flat({key: value for key, value in description["record"].items() if key != "held_out"}))
    return _table("fact", facts) + "\n\nSettings:\n\n" + _table("setting", dict(_flat(description["config"])))


def _scores(description: Mapping[str, Any]) -> str:
    """Section of the card with what was measured on held-out pseudo pairs."""
    scores = dict(_flat(description["record"].get("held_out") or {}))
    if not scores:
        return "None were recorded. Measure on pairs of your own: `isthmus evaluate`."
    return "Measured on what was held out of fitting, not on true pairs between the spaces.\n\n" + _table(
        "score", scores
    )


def _usage(description: Mapping[str, Any]) -> str:
    """Section of the card with code that loads the bridge and projects a space."""
    key = next((k for k in description["routes"] if _role(description, k) in ("leaf", "second")), None)
    space, _, modality = (key or next(iter(description["routes"]))).rpartition("/")
    return f"""```python
import isthmus

bridge = isthmus.Bridge.from_pretrained("FOLDER_OR_REPOSITORY")
items = isthmus.open_space("{space}.space")["{modality}"]      # made by the encoder named above
unified = bridge.project(items)                # (n, {description["dim"]}) float32, unit rows
```

```
isthmus project FOLDER {space}.space --into unified.space
isthmus evaluate FOLDER --query {space}.space/{modality} --gallery T.space/M --pairs pairs.csv --baselines
```"""


def _role(description: Mapping[str, Any], key: str) -> str:
    """Role of the space that a route starts from."""
    roles = {space["name"]: str(space["role"]) for space in description["spaces"]}
    return roles[key.rpartition("/")[0]]


def _limits(description: Mapping[str, Any]) -> str:
    """Section of the card on what the bridge cannot do."""
    lines = [
        "- It fits exactly the encoders above; another revision or another preprocessing is another space.",
        "- It was fitted without true pairs between the spaces: measure it on pairs of your own before you rely on it.",
        "- What the encoders do not know, or judge with prejudice, the bridge does not mend.",
    ]
    if any(space["role"] == "base" for space in description["spaces"]) and not description["base_moved"]:
        lines.append("- The base keeps its modality gap: a mixed index of several modalities ranks by modality first.")
    return "\n".join(lines)


def _table(head: str, values: Mapping[str, Any]) -> str:
    """Markdown table of two columns, names and values."""
    if not values:
        return "None recorded."
    rows = [
        f"| {_cell(key)} | {_cell(_short(value))} |"
        for key, value in (values.items() if isinstance(values, Mapping) else ())
    ]
    return "\n".join([f"| {head} | value |", "|---|---|", *rows])


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as `outer.inner` keys; lists and empty objects stay values."""
    for key, value in values.items() if isinstance(values, Mapping) else ():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping) and value:
            yield from _flat(value, name)
        else:
            yield name, value


def _short(value: Any) -> str:
    """A value of the record in few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _cell(value: Any) -> str:
    """A value as a cell of a Markdown table."""
    return " ".join(str(value).replace("|", "\\|").split())


def bridge_description(bridge: JoinedSpaces, config: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Everything about a bridge but its numbers, ready for json."""
    shapes = {name: list(_shape(bridge.arrays, name)) for name in sorted(bridge.arrays)}
    about: dict[str, Any] = plain(
        {
            "format_version": FORMAT_VERSION,
            "method": bridge.method,
            "dim": bridge.dim,
            "spaces": [vars(space) for space in bridge.spaces],
            "routes": {k: route_words(r, lambda name: _shape(bridge.arrays, name)) for k, r in bridge.routes.items()},
            "base_moved": bridge.base_moved,
            "arrays": shapes,
            "parameters": sum(int(np.prod(shape)) for shape in shapes.values()),
            "config": config,
            "record": record,
        }
    )
    return about


def _shape(arrays: Arrays, name: str) -> tuple[int, ...]:
    """Shape of an array of the bridge; where arrays are lazy it is known without reading them."""
    lazy = getattr(arrays, "shape", None)
    return tuple(lazy(name)) if lazy else tuple(arrays[name].shape)
