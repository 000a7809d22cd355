"""Micro-kernel tiles of integer products, held in registers: TILE_ROWS (MR) of a matrix by TILE_COLUMNS (NR).

An x86 processor with AVX2 multiplies 16-bit integers twice as fast as float32, and bytes again faster, but no array
library hands a tile of the products to what follows while it is still in registers. Each function here is one loop over
the inner dimension, written as LLVM instructions for numba to inline.

Operands are packed into panels (as in BLIS), so that a tile reads forward. A *group* is what one 32-bit lane holds, two
16-bit numbers or four bytes: the instructions multiply and add these pairwise. Panel a, whose rows are broadcast, is
(n / TILE_ROWS, groups, TILE_ROWS) int32, panel b, which fills vectors, (m / TILE_COLUMNS, groups, TILE_COLUMNS).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from isthmus.core.kernels.llvm import (
    I8,
    I64,
    INT8X32,
    INT16X16,
    INT32X8,
    TILE_COLUMNS,
    TILE_ROWS,
    VECTORS,
    add_scaled,
    address,
    call_instruction,
    inner_loop,
    load_broadcast,
    load_vector,
    splat,
    store_tile,
)


@intrinsic
def int8_tile(
    typing: Any,
    b_panel: Any,
    b_offset: Any,
    a_panel: Any,
    a_offset: Any,
    groups: Any,
    floors: Any,
    at_floor: Any,
    out: Any,
) -> Any:
    """Products of bytes, and which of them exceed their floor.

    Args:
        b_panel: (...) int32 lanes of four bytes from 0 to 127, flat.
        b_offset: Where the tile's 16 rows start.
        a_panel: (...) int32 lanes of four bytes from -63 to 63, flat: two products of two such stay in 16 bits.
        a_offset: Where the tile's 4 rows start.
        groups: Lanes of a row, an even number.
        floors: (...) int32 of the 4 rows.
        at_floor: Where they start.
        out: (64,) int32 receives the products, the 4 rows one after another.

    Returns:
        int64, bit 16 i + j set where row i's product with row j exceeds floor i.
    """
    signature = types.int64(b_panel, b_offset, a_panel, a_offset, groups, floors, at_floor, out)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        rows = address(context, builder, kinds[0], args[0], args[1])
        query_panels = address(context, builder, kinds[2], args[2], args[3])
        floor = address(context, builder, kinds[5], args[5], args[6])
        into = address(context, builder, kinds[7], args[7], ir.Constant(I64, 0))
        tile = _int8_products(builder, rows, query_panels, args[4])
        store_tile(builder, tile, into, ir.Constant(I64, TILE_COLUMNS))
        return _bits_above(builder, tile, floor)

    return signature, generate


@intrinsic
def int16_tile(
    typing: Any,
    b_panel: Any,
    b_offset: Any,
    a_panel: Any,
    a_offset: Any,
    groups: Any,
    out: Any,
    at_out: Any,
    width: Any,
) -> Any:
    """Products of 16-bit integers whose sums stay in 32 bits.

    Args:
        b_panel: (...) int32 lanes of two 16-bit integers, flat.
        b_offset: Where the tile's 16 rows start.
        a_panel: The same of the 4 rows.
        a_offset: Where they start.
        groups: Lanes of a row.
        out: (...) int32 receives the products, flat.
        at_out: Where those of the first of the 4 rows start.
        width: From there to those of the next.
    """
    signature = types.void(b_panel, b_offset, a_panel, a_offset, groups, out, at_out, width)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        places = [address(context, builder, signature.args[k], args[k], args[k + 1]) for k in (0, 2, 5)]
        store_tile(
            builder, _int16_products(builder, places[0], places[1], args[4], lambda group: group), places[2], args[7]
        )
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_gathered_int16_tile(
    typing: Any,
    b_panel: Any,
    b_offset: Any,
    a_panel: Any,
    a_offset: Any,
    groups: Any,
    which: Any,
    at_which: Any,
    row_scales: Any,
    row_at: Any,
    column_scales: Any,
    column_at: Any,
    out: Any,
    at_out: Any,
    width: Any,
) -> Any:
    """Add the products of some groups to floats, times a scale of each row and of each column of the tile.

    Weights of a softmax are mostly 0, and panel a then holds the groups that are not alone; `which` says what they are
    in panel b.

    Args:
        b_panel: (...) int32 groups of two 16-bit integers, flat.
        b_offset: Where the tile's columns start.
        a_panel: The same of the tile's rows, of the gathered groups.
        a_offset: Where they start.
        groups: Gathered groups.
        which: (...) int64 number of each in panel b.
        at_which: Where those of the tile start.
        row_scales: (...) float32 quantisation scales of the rows.
        row_at: Where they start.
        column_scales: (...) float32 quantisation scales of the columns.
        column_at: Where they start.
        out: (...) float32, flat.
        at_out: Where what is added to the first row starts.
        width: From there to the next row.
    """
    signature = types.void(
        b_panel,
        b_offset,
        a_panel,
        a_offset,
        groups,
        which,
        at_which,
        row_scales,
        row_at,
        column_scales,
        column_at,
        out,
        at_out,
        width,
    )

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, query_panels, chosen, unit, scale, into = (
            address(context, builder, signature.args[k], args[k], args[k + 1]) for k in (0, 2, 5, 7, 9, 11)
        )
        tile = _int16_products(
            builder, rows, query_panels, args[4], lambda group: builder.load(builder.gep(chosen, [group]))
        )
        add_scaled(builder, tile, unit, scale, into, args[13])
        return context.get_dummy_value()

    return signature, generate


def _int8_products(builder: Any, rows: Any, query_panels: Any, groups: Any) -> list[list[Any]]:
    """A tile of products of bytes, in sums of 32 bits."""
    # Unsigned by signed bytes, neighbours added into 16 bits; then, times one, neighbours of these into 32.
    multiply_add_int8 = call_instruction(builder, "pmadd.ub.sw", INT16X16, [INT8X32, INT8X32])
    multiply_add_int16 = call_instruction(builder, "pmadd.wd", INT32X8, [INT16X16, INT16X16])
    ones = ir.Constant(INT16X16, [1] * 16)

    def body(group: Any, sums: list[list[Any]]) -> list[list[Any]]:
        b_panel = builder.gep(rows, [builder.mul(group, ir.Constant(I64, TILE_COLUMNS))])
        a_panel = builder.gep(query_panels, [builder.mul(group, ir.Constant(I64, TILE_ROWS))])
        vectors = [
            [builder.bitcast(load_vector(builder, b_panel, TILE_COLUMNS * g + 8 * j), INT8X32) for j in range(VECTORS)]
            for g in range(2)
        ]
        new = []
        for i, row in enumerate(sums):
            both = [builder.bitcast(load_broadcast(builder, a_panel, TILE_ROWS * g + i), INT8X32) for g in range(2)]
            newer = []
            for j, total in enumerate(row):
                # Two groups still fit into 16 bits together (see `a_panel`), which saves every second widening.
                first, second = (builder.call(multiply_add_int8, [vectors[g][j], both[g]]) for g in range(2))
                pairs_of_sums = builder.add(first, second)
                newer.append(builder.add(total, builder.call(multiply_add_int16, [pairs_of_sums, ones])))
            new.append(newer)
        return new

    tile: list[list[Any]] = inner_loop(builder, groups, 2, body)
    return tile


def _bits_above(builder: Any, tile: list[list[Any]], floor: Any) -> Any:
    """A bit for each sum of a tile that exceeds the floor of its row."""
    hit_bits = ir.Constant(I64, 0)
    for i, row in enumerate(tile):
        least = splat(builder, builder.load(builder.gep(floor, [ir.Constant(I64, i)])))
        for j, value in enumerate(row):
            # A comparison of eight lanes is a mask of eight bits: one byte of the answer.
            over = builder.bitcast(builder.icmp_signed(">", value, least), I8)
            shift = ir.Constant(I64, TILE_COLUMNS * i + 8 * j)
            hit_bits = builder.or_(hit_bits, builder.shl(builder.zext(over, I64), shift))
    return hit_bits


def _int16_products(
    builder: Any, rows: Any, query_panels: Any, groups: Any, number: Callable[[Any], Any]
) -> list[list[Any]]:
    """A tile of products of 16-bit integers; `number` is that of a group among those of the 16 rows."""
    multiply_add_int16 = call_instruction(builder, "pmadd.wd", INT32X8, [INT16X16, INT16X16])

    def body(group: Any, sums: list[list[Any]]) -> list[list[Any]]:
        b_panel = builder.gep(rows, [builder.mul(number(group), ir.Constant(I64, TILE_COLUMNS))])
        a_panel = builder.gep(query_panels, [builder.mul(group, ir.Constant(I64, TILE_ROWS))])
        vectors = [builder.bitcast(load_vector(builder, b_panel, 8 * j), INT16X16) for j in range(VECTORS)]
        new = []
        for i, row in enumerate(sums):
            one = builder.bitcast(load_broadcast(builder, a_panel, i), INT16X16)
            pairs = zip(row, vectors, strict=True)
            new.append([builder.add(total, builder.call(multiply_add_int16, [one, v])) for total, v in pairs])
        return new

    tile: list[list[Any]] = inner_loop(builder, groups, 1, body)
    return tile
