"""A bridge's routes as ONNX models: embeddings in, unit rows of the unified space out, any number at once.

One file a route, `SPACE.MODALITY.onnx`, with the input `embeddings` (batch, d) and the output `unified` (batch, D),
both float32. Fifteen lines use it, without isthmus:

```python
import numpy as np
import onnxruntime as ort

session = ort.InferenceSession("clap.audio.onnx", providers=["CPUExecutionProvider"])
sounds = np.load("sounds.npy").astype(np.float32)  # (n, d), as the encoder made them
unified = session.run(["unified"], {"embeddings": sounds})[0]  # (n, D), unit rows
print(unified @ pictures.T)  # cosines with rows of another route
```
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.bridges.routes import Route, Step
from isthmus.core.version import __version__
from isthmus.errors import BridgeError, DependencyError

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge

OPSET = 17
EPSILON = 1e-12


class Graph:
    """An ONNX graph that grows by one operation at a time.

    Args:
        arrays: The bridge's arrays by name; each goes into the file once.
    """

    def __init__(self, arrays: Any) -> None:
        self.onnx = _load()
        self.arrays = arrays
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.count = 0

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation and return the name of its output."""
        self.count += 1
        name = f"{kind.lower()}_{self.count}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: Any, name: str | None = None, *, dtype: Any = np.float32) -> str:
        """A constant of the graph; floats become float32, or what `dtype` says."""
        self.count += 0 if name else 1
        key = name or f"constant_{self.count}"
        if key not in self.constants:
            array = np.asarray(value)
            array = array.astype(dtype) if array.dtype.kind == "f" else array
            self.constants[key] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), key)
        return key

    def array(self, name: str, *, transposed: bool = False) -> str:
        """An array of the bridge."""
        value = np.asarray(self.arrays[name], np.float32)
        return self.constant(value.T if transposed else value, f"{name}{'^T' if transposed else ''}")

    def normalized(self, x: str) -> str:
        """Rows at unit length."""
        length = self.add("ReduceL2", x, axes=[1], keepdims=1)
        return self.add("Div", x, self.add("Max", length, self.constant(np.float32(EPSILON))))

    def route(self, steps: Route, x: str) -> str:
        """A chain of steps.

        Raises:
            BridgeError: A step has no counterpart here.
        """
        for step in steps:
            if step["kind"] not in STEPS:
                raise BridgeError(f"the step {step['kind']!r} cannot be written as ONNX. Known: {', '.join(STEPS)}.")
            x = STEPS[step["kind"]](self, step, x)
        return x


def _center(graph: Graph, step: Step, x: str) -> str:
    return graph.add("Sub", x, graph.array(step["mean"]))


def _linear(graph: Graph, step: Step, x: str) -> str:
    return _affine(graph, x, step["weight"], step.get("bias"))


def _affine(graph: Graph, x: str, weight: str, bias: str | None) -> str:
    y = graph.add("MatMul", x, graph.array(weight, transposed=True))
    return y if bias is None else graph.add("Add", y, graph.array(bias))


def _mlp(graph: Graph, step: Step, x: str) -> str:
    layers, place = step["layers"], 0
    while place < len(layers):
        layer = layers[place]
        following = layers[place + 1] if place + 1 < len(layers) else {}
        if "linear" in layer and "batch_norm" in following:
            weight, bias = folded(graph.arrays, layer, following)
            y = graph.add("MatMul", x, graph.constant(np.ascontiguousarray(weight.T)))
            x, place = graph.add("Add", y, graph.constant(bias)), place + 2
            continue
        if "linear" in layer:
            x = _affine(graph, x, *layer["linear"])
        elif "batch_norm" in layer:
            scale, shift = batch_norm(graph.arrays, layer)
            x = graph.add("Add", graph.add("Mul", x, graph.constant(scale)), graph.constant(shift))
        else:
            x = graph.add("Relu", x)
        place += 1
    return x


def batch_norm(arrays: Any, layer: Step) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift that a BatchNorm with its running statistics is."""
    weight, bias, mean, var = (np.asarray(arrays[name], np.float64) for name in layer["batch_norm"])
    scale = weight / np.sqrt(var + layer["eps"])
    return scale.astype(np.float32), (bias - mean * scale).astype(np.float32)


def folded(arrays: Any, linear: Step, norm: Step) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a linear layer with the BatchNorm behind it folded in."""
    weight = np.asarray(arrays[linear["linear"][0]], np.float64)
    bias = 0.0 if linear["linear"][1] is None else np.asarray(arrays[linear["linear"][1]], np.float64)
    gamma, beta, mean, var = (np.asarray(arrays[name], np.float64) for name in norm["batch_norm"])
    scale = gamma / np.sqrt(var + norm["eps"])
    return (weight * scale[:, None]).astype(np.float32), ((bias - mean) * scale + beta).astype(np.float32)


def _softmax(graph: Graph, step: Step, x: str) -> str:
    scores = graph.add("MatMul", x, graph.array(step["keys"], transposed=True))
    scores = graph.add("Div", scores, graph.constant(np.float32(step["temperature"])))
    if step.get("bias") is not None:
        scores = graph.add("Add", scores, graph.array(step["bias"]))
    return graph.add("Softmax", scores, axis=1)


def _posterior(graph: Graph, step: Step, x: str) -> str:
    weights = _softmax(graph, step, x)
    if step.get("values") is not None:
        return graph.add("MatMul", weights, graph.array(step["values"]))
    rows = len(graph.arrays[step["keys"]])
    if step.get("top") is None or step["top"] >= rows:
        return weights
    return graph.add("Mul", weights, _above(graph, weights, step["top"]))


def _above(graph: Graph, scores: str, count: int) -> str:
    """Ones where a score is among the largest `count` of its row, zeros elsewhere."""
    values, indices = f"top_{graph.count + 1}", f"top_{graph.count + 1}_rows"
    graph.count += 1
    wanted = graph.constant(np.array([count], np.int64))
    graph.nodes.append(
        graph.onnx.helper.make_node("TopK", [scores, wanted], [values, indices], name=values, axis=1, largest=1)
    )
    least = graph.add("ReduceMin", values, axes=[1], keepdims=1)
    return graph.add("Cast", graph.add("GreaterOrEqual", scores, least), to=graph.onnx.TensorProto.FLOAT)


def _power_average(graph: Graph, step: Step, x: str) -> str:
    tiny = graph.constant(np.float32(1e-30))
    scores = graph.add("Relu", graph.add("MatMul", x, graph.array(step["keys"], transposed=True)))
    largest = graph.add("ReduceMax", scores, axes=[1], keepdims=1)
    scores = graph.add("Div", scores, graph.add("Max", largest, tiny))
    scores = graph.add("Pow", scores, graph.constant(np.float32(step["power"])))
    total = graph.add("ReduceSum", scores, graph.constant(np.array([1], np.int64)), keepdims=1)
    return graph.add("MatMul", graph.add("Div", scores, graph.add("Max", total, tiny)), graph.array(step["values"]))


def _denoise(graph: Graph, step: Step, x: str) -> str:
    scores = graph.add("MatMul", x, graph.array(step["memory"], transposed=True))
    near = graph.add("MatMul", _above(graph, scores, step["neighbours"]), graph.array(step["memory"]))
    moved = graph.add("Mul", graph.normalized(near), graph.constant(np.float32(step["weight"])))
    return graph.normalized(graph.add("Add", x, moved))


def _blend(graph: Graph, step: Step, x: str) -> str:
    parts = [
        graph.add("Mul", graph.normalized(graph.route(chain, x)), graph.constant(np.float32(weight)))
        for weight, chain in zip(step["weights"], step["chains"], strict=True)
    ]
    return graph.normalized(graph.add("Sum", *parts))


def _concat(graph: Graph, step: Step, x: str) -> str:
    parts = [
        graph.add("Mul", graph.normalized(graph.route(chain, x)), graph.constant(np.float32(math.sqrt(weight))))
        for weight, chain in zip(step["weights"], step["chains"], strict=True)
    ]
    return graph.add("Concat", *parts, axis=1)


def _stack(graph: Graph, step: Step, x: str) -> str:
    parts = [
        graph.add("Mul", graph.route(chain, x), graph.constant(np.float32(scale)))
        for scale, chain in zip(step["scales"], step["chains"], strict=True)
    ]
    return graph.add("Concat", *parts, axis=1)


def _filler(graph: Graph, step: Step, x: str) -> str:
    """Coordinates that make rows unit rows, by sums in float64 as `isthmus.bridges.steps.filler` has them."""
    types, one = graph.onnx.TensorProto, graph.constant(np.float64(1.0), dtype=np.float64)
    length = graph.constant(np.float64(step["length"]), dtype=np.float64)
    share = graph.add("Div", graph.add("Cast", x, to=types.DOUBLE), length)
    axis = graph.constant(np.array([1], np.int64))
    squares = graph.add("ReduceSum", graph.add("Mul", share, share), axis, keepdims=1)
    scale = graph.add("Div", one, graph.add("Mul", length, graph.add("Sqrt", graph.add("Max", squares, one))))
    rows = graph.add("Mul", x, graph.add("Cast", scale, to=types.FLOAT))
    rest = graph.add("Max", graph.add("Sub", one, squares), graph.constant(np.float64(0.0), dtype=np.float64))
    filler = graph.add("Cast", graph.add("Sqrt", rest), to=types.FLOAT)
    place = np.zeros((1, step["coordinates"]), np.float32)
    place[0, step["index"]] = 1.0
    return graph.add("Concat", rows, graph.add("Mul", filler, graph.constant(place)), axis=1)


STEPS: dict[str, Callable[[Graph, Step, str], str]] = {
    "normalize": lambda graph, step, x: graph.normalized(x),
    "center": _center,
    "linear": _linear,
    "mlp": _mlp,
    "dictionary": lambda graph, step, x: graph.add("MatMul", _softmax(graph, step, x), graph.array(step["values"])),
    "posterior": _posterior,
    "power_average": _power_average,
    "denoise": _denoise,
    "blend": _blend,
    "concat": _concat,
    "stack": _stack,
    "filler": _filler,
}
"""How each kind of step is written."""


def write_onnx(bridge: Bridge, folder: Path) -> list[Path]:
    """Write every route of a bridge as a model; returns the files.

    Raises:
        BridgeError: A step has no counterpart in ONNX.
        DependencyError: onnx is not installed.
    """
    return [_write_route(bridge, key, folder) for key in bridge.routes]


def _write_route(bridge: Bridge, key: str, folder: Path) -> Path:
    graph = Graph(bridge.arrays)
    helper, kind = graph.onnx.helper, graph.onnx.TensorProto.FLOAT
    name, _, modality = key.rpartition("/")
    steps = bridge.routes[key]
    out = graph.route(steps, "embeddings")
    if not steps or steps[-1]["kind"] != "normalize":
        out = graph.normalized(out)
    graph.nodes.append(helper.make_node("Identity", [out], ["unified"], name="unified"))
    takes = helper.make_tensor_value_info("embeddings", kind, ["batch", bridge.space(name).dim])
    gives = helper.make_tensor_value_info("unified", kind, ["batch", bridge.dim])
    content = helper.make_graph(graph.nodes, key, [takes], [gives], initializer=list(graph.constants.values()))
    model = helper.make_model(
        content,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="isthmus",
        producer_version=__version__,
        ir_version=8,
    )
    graph.onnx.checker.check_model(model)
    path = folder / f"{name}.{modality}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _load() -> Any:
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError as error:
        raise DependencyError(
            "ONNX needs onnx, which is not installed. Install it: pip install 'isthmus[onnx]'."
        ) from error
    return onnx
