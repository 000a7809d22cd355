"""The pickle inside an object .npy, run by a machine of its own that knows arrays, containers and numbers alone."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ARRAY_TYPES = ("f2", "f4", "f8", "u1", "i4", "i8")

_MAX_RANK = 3

_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
}

_MARK = object()


class PickleFault(Exception):
    """What is wrong with a pickle, in a few words."""


@dataclass(eq=False)
class _Name:
    """Stands for something that a pickle would import."""

    role: str


@dataclass(eq=False)
class _Type:
    """Stands for a dtype: its kind, and its byte order once that is set."""

    kind: str
    order: str = ""


@dataclass(eq=False)
class _Blank:
    """Stands for an array whose content is yet to come, and knows where the memo holds it."""

    memo: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class ObjectArray:
    """An object array: its items in row order."""

    shape: tuple[int, ...]
    items: list[Any]


class PickleMachine:
    """Follows the instructions of a pickle that build data, and knows no others."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: Any) -> Any:
        """Follow a pickle to its end; the stream then stands after it."""
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "STOP":
                    return self.pop()
                step = _STEPS.get(opcode.name)
                if step is None:
                    raise PickleFault(f"the instruction {opcode.name} has no place in plain data")
                step(self, argument)
        except PickleFault:
            raise
        except (ValueError, IndexError, KeyError, TypeError, MemoryError, OverflowError, RecursionError) as error:
            text = str(error).splitlines()
            raise PickleFault(f"damaged: {text[0][:120] if text else type(error).__name__}") from error
        raise PickleFault("damaged: it has no end")

    def pop(self) -> Any:
        """Take the value on top of the stack."""
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleFault("damaged: its instructions do not fit together")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Take all values above the last mark, and the mark."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise PickleFault("damaged: its instructions do not fit together")

    def top(self, kind: type) -> Any:
        """The container on top of the stack, of that kind."""
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise PickleFault(f"damaged: a {kind.__name__} was expected")
        return self.stack[-1]

    def keep(self, key: int) -> None:
        """Remember the value on top of the stack under a key of the memo."""
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleFault("damaged: its instructions do not fit together")
        value = self.stack[-1]
        self.memo[key] = value
        if isinstance(value, _Blank):
            value.memo.append(key)

    def name(self, module: Any, name: Any) -> None:
        """Put a stand-in on the stack for something that the pickle would import; refuse all but numpy's arrays."""
        role = _NAMES.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if role is None:
            raise PickleFault(f"it asks for {module}.{name}, which is no plain data")
        self.stack.append(_Name(role))

    def reduce(self) -> None:
        """What a pickle calls: only the two calls with which NumPy's arrays begin, and neither is made."""
        arguments, called = self.pop(), self.pop()
        role = called.role if isinstance(called, _Name) else ""
        arguments = arguments if isinstance(arguments, tuple) else ()
        if role == "reconstruct" and isinstance(arguments[0] if arguments else None, _Name):
            self.stack.append(_Blank())
        elif role == "dtype" and arguments and isinstance(arguments[0], str):
            self.stack.append(_Type(arguments[0]))
        else:
            raise PickleFault(f"it calls {role or type(called).__name__} in a way that no array needs")

    def build(self) -> None:
        """The state of a dtype or of an array."""
        state = self.pop()
        target = self.stack[-1] if self.stack else None
        if not isinstance(state, tuple):
            raise PickleFault("a state that no array has")
        if isinstance(target, _Type):
            target.order = _byte_order(target.kind, state)
        elif isinstance(target, _Blank):
            value = self.stack[-1] = _array(state)
            for key in target.memo:
                if self.memo.get(key) is target:
                    self.memo[key] = value
        else:
            raise PickleFault("a state for what has none")


def _byte_order(kind: str, state: tuple[Any, ...]) -> str:
    """The byte order that a dtype's state gives; everything else of it must be absent."""
    if kind not in (*ARRAY_TYPES, "O8", "O"):
        raise PickleFault(f"an array of type {kind!r}, expected one of {', '.join(ARRAY_TYPES)}")
    if len(state) < 5 or state[1] not in ("<", "|") or any(part is not None for part in state[2:5]):
        raise PickleFault(f"a type {kind!r} in a form that is not plain little-endian numbers")
    return str(state[1])


def _array(state: tuple[Any, ...]) -> Any:
    """An array of checked size from (version, shape, dtype, is Fortran, content)."""
    if len(state) != 5:
        raise PickleFault("an array in a form that is not known")
    _, shape, kind, fortran, content = state
    if not isinstance(shape, tuple) or len(shape) > _MAX_RANK or not all(type(n) is int and n >= 0 for n in shape):
        raise PickleFault(f"an array of shape {str(shape)[:60]}, expected at most {_MAX_RANK} sizes")
    if not isinstance(kind, _Type) or not kind.order:
        raise PickleFault("an array without a type")
    count = 1
    for size in shape:
        count *= size
    if kind.kind.startswith("O"):
        if not isinstance(content, list) or len(content) != count or len(shape) > 1:
            raise PickleFault(f"an object array of shape {shape} whose items are not there")
        return ObjectArray(shape, content)
    number = np.dtype(kind.kind).newbyteorder("<")
    if not isinstance(content, bytes) or len(content) != count * number.itemsize:
        got = len(content) if isinstance(content, bytes) else 0
        raise PickleFault(f"an array of shape {shape} and type {kind.kind} with {got:,} bytes")
    return _finite(np.frombuffer(content, number).reshape(shape, order="F" if fortran else "C"))


def _finite(array: Any) -> Any:
    """An array without NaN and infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise PickleFault("an array with NaN or infinite values")
    return array


def _push(machine: PickleMachine, value: Any) -> None:
    machine.stack.append(value)


def _constant(make: Callable[[], Any]) -> Callable[[PickleMachine, Any], None]:
    """Instruction that puts a value of its own on the stack."""
    return lambda machine, _: machine.stack.append(make())


def _tuple(count: int) -> Callable[[PickleMachine, Any], None]:
    """Instruction that makes a tuple of so many values."""

    def step(machine: PickleMachine, _: Any) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(items)))

    return step


def _append(machine: PickleMachine, _: Any) -> None:
    """Instruction that appends a value to the list below it."""
    value = machine.pop()
    machine.top(list).append(_contained_value(value))


def _appends(machine: PickleMachine, _: Any) -> None:
    """Instruction that appends values to the list below their mark."""
    items = machine.pop_to_mark()
    machine.top(list).extend(map(_contained_value, items))


def _set_item(machine: PickleMachine, _: Any) -> None:
    """Instruction that sets a key of the dict below."""
    value, key = machine.pop(), machine.pop()
    machine.top(dict)[_key(key)] = _contained_value(value)


def _set_items(machine: PickleMachine, _: Any) -> None:
    """Instruction that sets several keys of the dict below their mark."""
    items = machine.pop_to_mark()
    if len(items) % 2:
        raise PickleFault("damaged: a key without a value")
    machine.top(dict).update(
        (_key(key), _contained_value(value)) for key, value in zip(items[::2], items[1::2], strict=True)
    )


def _key(value: Any) -> str | int:
    """Key of a dict: text or a number."""
    if not isinstance(value, str | int):
        raise PickleFault(f"a dict with a key of type {type(value).__name__}, expected text or a number")
    return value


def _contained_value(value: Any) -> Any:
    """Value of a pickle as it may stand in a list or dict: object arrays as lists, never a stand-in for a name."""
    if isinstance(value, ObjectArray):
        return value.items if value.shape else value.items[0]
    if isinstance(value, tuple):
        return tuple(map(_contained_value, value))
    if isinstance(value, _Name | _Type | _Blank) or value is _MARK:
        raise PickleFault("a bare name or a type where data should stand")
    return value


def _stack_global(machine: PickleMachine, _: Any) -> None:
    """Instruction that names what would be imported by two values of the stack."""
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _skip(machine: PickleMachine, _: Any) -> None:
    """Protocol and frames say nothing about the data."""


_STEPS: dict[str, Callable[[PickleMachine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), _skip),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _push),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda machine, key: machine.keep(key)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, key: machine.stack.append(machine.memo[key])),
    "MEMOIZE": lambda machine, _: machine.keep(len(machine.memo)),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "MARK": _constant(lambda: _MARK),
    "EMPTY_LIST": _constant(list),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_TUPLE": _constant(tuple),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "GLOBAL": lambda machine, both: machine.name(*both.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}
