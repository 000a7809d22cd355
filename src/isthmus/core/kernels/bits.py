"""Numbers and their bits inside compiled loops."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from isthmus.core.kernels.llvm import I32


@intrinsic
def float_of_bits(typing: Any, bits: Any) -> Any:
    """The float32 of the bits of an int32."""
    signature = types.float32(types.int32)
    return signature, lambda context, builder, signature, args: builder.bitcast(args[0], ir.FloatType())


@intrinsic
def bits_of_float(typing: Any, number: Any) -> Any:
    """The bits of a float32 as an int32."""
    signature = types.int32(types.float32)
    return signature, lambda context, builder, signature, args: builder.bitcast(args[0], I32)


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """Number of the lowest bit that is set in a 64-bit integer that is not 0."""
    signature = types.int64(types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return signature, generate
