"""Building blocks of LLVM code for the tiles: addresses, vectors, broadcasts, and the loop over panels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

TILE_ROWS, TILE_COLUMNS = 4, 16
"""4 by 16 sums of 32 bits are eight registers of AVX2's sixteen: the rest hold the operands of the next group."""

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
INT32X8 = ir.VectorType(I32, 8)
INT16X16 = ir.VectorType(I16, 16)
INT8X32 = ir.VectorType(I8, 32)
VECTORS = TILE_COLUMNS // 8


def address(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    """Pointer to element `offset` of an array."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [offset])


def load_vector(builder: Any, pointer: Any, offset: int) -> Any:
    """Eight lanes from there on."""
    place = builder.gep(pointer, [ir.Constant(I64, offset)])
    loaded = builder.load(builder.bitcast(place, INT32X8.as_pointer()))
    loaded.align = 4
    return loaded


def load_broadcast(builder: Any, pointer: Any, offset: int) -> Any:
    """One lane in all eight."""
    lane = builder.load(builder.gep(pointer, [ir.Constant(I64, offset)]))
    return splat(builder, lane)


def splat(builder: Any, lane: Any) -> Any:
    """A lane that is held already, in all eight lanes of a vector."""
    nothing = ir.Constant(INT32X8, ir.Undefined)
    first = builder.insert_element(nothing, lane, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(INT32X8, [0] * 8))


def call_instruction(builder: Any, name: str, result: Any, operands: list[Any]) -> Any:
    """An AVX2 instruction, declared once in a module, to be called with vectors of the types of `operands`."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, operands), f"llvm.x86.avx2.{name}")


def inner_loop(builder: Any, groups: Any, step: int, body: Callable[[Any, list[list[Any]]], list[list[Any]]]) -> Any:
    """Accumulate a tile over the groups, `step` at a time: `body` takes the group and the sums, and gives new sums."""
    entry, loop, after = builder.block, builder.append_basic_block("inner"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    group = builder.phi(I64)
    group.add_incoming(ir.Constant(I64, 0), entry)
    sums = [[builder.phi(INT32X8) for _ in range(VECTORS)] for _ in range(TILE_ROWS)]
    new = body(group, sums)
    following = builder.add(group, ir.Constant(I64, step))
    group.add_incoming(following, loop)
    for row, newer in zip(sums, new, strict=True):
        for phi, value in zip(row, newer, strict=True):
            phi.add_incoming(ir.Constant(INT32X8, [0] * 8), entry)
            phi.add_incoming(value, loop)
    branch = builder.cbranch(builder.icmp_signed("<", following, groups), loop, after)
    # Unrolled, the sums no longer fit into the registers.
    alone = builder.module.add_metadata([ir.MetaDataString(builder.module, "llvm.loop.unroll.disable")])
    branch.set_metadata("llvm.loop", builder.module.add_metadata([alone, alone]))
    builder.position_at_end(after)
    return new


def store_tile(builder: Any, tile: list[list[Any]], pointer: Any, width: Any) -> None:
    """Write a tile of int32 sums; `width` is from the start of a row to that of the next."""
    for i, row in enumerate(tile):
        line = builder.gep(pointer, [builder.mul(width, ir.Constant(I64, i))])
        for j, value in enumerate(row):
            place = builder.gep(line, [ir.Constant(I64, 8 * j)])
            builder.store(value, builder.bitcast(place, INT32X8.as_pointer())).align = 4


def add_scaled(builder: Any, tile: list[list[Any]], row_scales: Any, column_scales: Any, out: Any, width: Any) -> None:
    """Add a tile of int32 sums to floats, each times the quantisation scales of its row and its column."""
    floats = ir.VectorType(ir.FloatType(), 8)
    by = []
    for j in range(VECTORS):
        by.append(
            builder.bitcast(load_vector(builder, builder.bitcast(column_scales, I32.as_pointer()), 8 * j), floats)
        )
    for i, row in enumerate(tile):
        unit = builder.bitcast(load_broadcast(builder, builder.bitcast(row_scales, I32.as_pointer()), i), floats)
        line = builder.gep(out, [builder.mul(width, ir.Constant(I64, i))])
        for j, value in enumerate(row):
            place = builder.bitcast(builder.gep(line, [ir.Constant(I64, 8 * j)]), floats.as_pointer())
            before = builder.load(place)
            before.align = 4
            product = builder.fmul(builder.sitofp(value, floats), builder.fmul(unit, by[j]))
            builder.store(builder.fadd(before, product), place).align = 4
