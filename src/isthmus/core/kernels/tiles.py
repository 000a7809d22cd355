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
from numba.core import cgutils, types
from numba.extending import intrinsic

TILE_ROWS, TILE_COLUMNS = 4, 16
"""4 by 16 sums of 32 bits are eight registers of AVX2's sixteen: the rest hold the operands of the next group."""

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_INT32X8 = ir.VectorType(_I32, 8)
_INT16X16 = ir.VectorType(_I16, 16)
_INT8X32 = ir.VectorType(_I8, 32)
_VECTORS = TILE_COLUMNS // 8


def _place(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    """Pointer to element `offset` of an array."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [offset])


def _vector(builder: Any, pointer: Any, offset: int) -> Any:
    """Eight lanes from there on."""
    place = builder.gep(pointer, [ir.Constant(_I64, offset)])
    loaded = builder.load(builder.bitcast(place, _INT32X8.as_pointer()))
    loaded.align = 4
    return loaded


def _broadcast(builder: Any, pointer: Any, offset: int) -> Any:
    """One lane in all eight."""
    lane = builder.load(builder.gep(pointer, [ir.Constant(_I64, offset)]))
    return _splat(builder, lane)


def _splat(builder: Any, lane: Any) -> Any:
    nothing = ir.Constant(_INT32X8, ir.Undefined)
    first = builder.insert_element(nothing, lane, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_INT32X8, [0] * 8))


def _instruction(builder: Any, name: str, result: Any, operands: list[Any]) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, operands), f"llvm.x86.avx2.{name}")


def _inner_loop(builder: Any, groups: Any, step: int, body: Callable[[Any, list[list[Any]]], list[list[Any]]]) -> Any:
    """Accumulate a tile over the groups, `step` at a time: `body` takes the group and the sums, and gives new sums."""
    entry, loop, after = builder.block, builder.append_basic_block("inner"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    group = builder.phi(_I64)
    group.add_incoming(ir.Constant(_I64, 0), entry)
    sums = [[builder.phi(_INT32X8) for _ in range(_VECTORS)] for _ in range(TILE_ROWS)]
    new = body(group, sums)
    following = builder.add(group, ir.Constant(_I64, step))
    group.add_incoming(following, loop)
    for row, newer in zip(sums, new, strict=True):
        for phi, value in zip(row, newer, strict=True):
            phi.add_incoming(ir.Constant(_INT32X8, [0] * 8), entry)
            phi.add_incoming(value, loop)
    branch = builder.cbranch(builder.icmp_signed("<", following, groups), loop, after)
    # Unrolled, the sums no longer fit into the registers.
    alone = builder.module.add_metadata([ir.MetaDataString(builder.module, "llvm.loop.unroll.disable")])
    branch.set_metadata("llvm.loop", builder.module.add_metadata([alone, alone]))
    builder.position_at_end(after)
    return new


def _store(builder: Any, tile: list[list[Any]], pointer: Any, width: Any) -> None:
    for i, row in enumerate(tile):
        line = builder.gep(pointer, [builder.mul(width, ir.Constant(_I64, i))])
        for j, value in enumerate(row):
            place = builder.gep(line, [ir.Constant(_I64, 8 * j)])
            builder.store(value, builder.bitcast(place, _INT32X8.as_pointer())).align = 4


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
        rows = _place(context, builder, kinds[0], args[0], args[1])
        query_panels = _place(context, builder, kinds[2], args[2], args[3])
        floor = _place(context, builder, kinds[5], args[5], args[6])
        into = _place(context, builder, kinds[7], args[7], ir.Constant(_I64, 0))
        multiply_add_int8 = _instruction(builder, "pmadd.ub.sw", _INT16X16, [_INT8X32, _INT8X32])
        multiply_add_int16 = _instruction(builder, "pmadd.wd", _INT32X8, [_INT16X16, _INT16X16])
        ones = ir.Constant(_INT16X16, [1] * 16)

        def body(group: Any, sums: list[list[Any]]) -> list[list[Any]]:
            b_panel = builder.gep(rows, [builder.mul(group, ir.Constant(_I64, TILE_COLUMNS))])
            a_panel = builder.gep(query_panels, [builder.mul(group, ir.Constant(_I64, TILE_ROWS))])
            vectors = [
                [
                    builder.bitcast(_vector(builder, b_panel, TILE_COLUMNS * g + 8 * j), _INT8X32)
                    for j in range(_VECTORS)
                ]
                for g in range(2)
            ]
            new = []
            for i, row in enumerate(sums):
                both = [builder.bitcast(_broadcast(builder, a_panel, TILE_ROWS * g + i), _INT8X32) for g in range(2)]
                newer = []
                for j, total in enumerate(row):
                    first, second = (builder.call(multiply_add_int8, [vectors[g][j], both[g]]) for g in range(2))
                    pairs_of_sums = builder.add(first, second)
                    newer.append(builder.add(total, builder.call(multiply_add_int16, [pairs_of_sums, ones])))
                new.append(newer)
            return new

        tile = _inner_loop(builder, args[4], 2, body)
        _store(builder, tile, into, ir.Constant(_I64, TILE_COLUMNS))
        found = ir.Constant(_I64, 0)
        for i, row in enumerate(tile):
            least = _splat(builder, builder.load(builder.gep(floor, [ir.Constant(_I64, i)])))
            for j, value in enumerate(row):
                over = builder.bitcast(builder.icmp_signed(">", value, least), _I8)
                shift = ir.Constant(_I64, TILE_COLUMNS * i + 8 * j)
                found = builder.or_(found, builder.shl(builder.zext(over, _I64), shift))
        return found

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
        places = [_place(context, builder, signature.args[k], args[k], args[k + 1]) for k in (0, 2, 5)]
        _store(
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
            _place(context, builder, signature.args[k], args[k], args[k + 1]) for k in (0, 2, 5, 7, 9, 11)
        )
        tile = _int16_products(
            builder, rows, query_panels, args[4], lambda group: builder.load(builder.gep(chosen, [group]))
        )
        _add_scaled(builder, tile, unit, scale, into, args[13])
        return context.get_dummy_value()

    return signature, generate


def _add_scaled(builder: Any, tile: list[list[Any]], row_scales: Any, column_scales: Any, out: Any, width: Any) -> None:
    floats = ir.VectorType(ir.FloatType(), 8)
    by = []
    for j in range(_VECTORS):
        by.append(builder.bitcast(_vector(builder, builder.bitcast(column_scales, _I32.as_pointer()), 8 * j), floats))
    for i, row in enumerate(tile):
        unit = builder.bitcast(_broadcast(builder, builder.bitcast(row_scales, _I32.as_pointer()), i), floats)
        line = builder.gep(out, [builder.mul(width, ir.Constant(_I64, i))])
        for j, value in enumerate(row):
            place = builder.bitcast(builder.gep(line, [ir.Constant(_I64, 8 * j)]), floats.as_pointer())
            before = builder.load(place)
            before.align = 4
            product = builder.fmul(builder.sitofp(value, floats), builder.fmul(unit, by[j]))
            builder.store(builder.fadd(before, product), place).align = 4


def _int16_products(
    builder: Any, rows: Any, query_panels: Any, groups: Any, number: Callable[[Any], Any]
) -> list[list[Any]]:
    """A tile of products of 16-bit integers; `number` is that of a group among those of the 16 rows."""
    multiply_add_int16 = _instruction(builder, "pmadd.wd", _INT32X8, [_INT16X16, _INT16X16])

    def body(group: Any, sums: list[list[Any]]) -> list[list[Any]]:
        b_panel = builder.gep(rows, [builder.mul(number(group), ir.Constant(_I64, TILE_COLUMNS))])
        a_panel = builder.gep(query_panels, [builder.mul(group, ir.Constant(_I64, TILE_ROWS))])
        vectors = [builder.bitcast(_vector(builder, b_panel, 8 * j), _INT16X16) for j in range(_VECTORS)]
        new = []
        for i, row in enumerate(sums):
            one = builder.bitcast(_broadcast(builder, a_panel, i), _INT16X16)
            pairs = zip(row, vectors, strict=True)
            new.append([builder.add(total, builder.call(multiply_add_int16, [one, v])) for total, v in pairs])
        return new

    tile: list[list[Any]] = _inner_loop(builder, groups, 1, body)
    return tile


@intrinsic
def float_of_bits(typing: Any, bits: Any) -> Any:
    """The float32 of the bits of an int32."""
    signature = types.float32(types.int32)
    return signature, lambda context, builder, signature, args: builder.bitcast(args[0], ir.FloatType())


@intrinsic
def bits_of_float(typing: Any, number: Any) -> Any:
    """The bits of a float32 as an int32."""
    signature = types.int32(types.float32)
    return signature, lambda context, builder, signature, args: builder.bitcast(args[0], _I32)


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """Number of the lowest bit that is set in a 64-bit integer that is not 0."""
    signature = types.int64(types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return signature, generate
