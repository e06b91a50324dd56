"""Vectors of one instruction set as an LLVM builder sees them."""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

from .isa import Isa
from .vector import F32, I1, I32, I64, VOID, external, multiply_add


class Mask(NamedTuple):
    """The first lanes of a vector."""

    lanes: Any  # <LANES x i1>
    count: Any  # int64, 0 .. LANES


@dataclass
class Simd:
    """Emits vector code of `isa` through `builder`; addresses are int64 values."""

    isa: Isa
    builder: ir.IRBuilder

    @property
    def vector(self) -> ir.Type:
        return ir.VectorType(F32, self.isa.lanes)

    @property
    def int32s(self) -> ir.Type:
        return ir.VectorType(I32, self.isa.lanes)

    @property
    def vector_nbytes(self) -> int:
        return 4 * self.isa.lanes

    @property
    def _numbers(self) -> Any:
        return ir.Constant(self.int32s, list(range(self.isa.lanes)))

    def of_lanes(self, lanes: int) -> "Simd":
        """Return the emitter for vectors of another length."""
        return Simd(replace(self.isa, lanes=lanes), self.builder)

    def pointer(self, address: Any, element: ir.Type) -> Any:
        """Return an address as a pointer."""
        return self.builder.inttoptr(address, element.as_pointer())

    def offset(self, address: Any, nbytes: int) -> Any:
        """Return an address moved by a constant."""
        return self.builder.add(address, ir.Constant(I64, nbytes)) if nbytes else address

    def opaque(self, value: Any) -> Any:
        """Return `value` as one that LLVM takes for another: what it leads to is read anew."""
        signature = ir.FunctionType(value.type, [value.type])
        return self.builder.asm(signature, "", "=r,0", [value], False)

    def forget(self) -> None:
        """Let LLVM read memory anew from here on, in this order."""
        self.builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], True)

    def later(self, value: Any) -> Any:
        """Return `value` as one that LLVM has from here on: its uses follow earlier stores."""
        register = "v" if self.isa.has_masks else "x"  # any vector register
        signature = ir.FunctionType(value.type, [value.type])
        constraint = f"={register},0,~{{memory}}"
        return self.builder.asm(signature, "", constraint, [value], True)

    def word(self, table: Any, index: Any) -> Any:
        """Load one int64 of those at the address `table`."""
        return self.builder.load(self.builder.gep(self.pointer(table, I64), [index]))

    def words(self, table: Any, count: int) -> list[Any]:
        """Load `count` int64 from the address `table`."""
        return [self.word(table, ir.Constant(I64, i)) for i in range(count)]

    def zeros(self) -> Any:
        """Return a vector of zeros."""
        return ir.Constant(self.vector, None)

    def constant(self, number: float) -> Any:
        """Return a number in every lane."""
        return ir.Constant(self.vector, [number] * self.isa.lanes)

    def splat(self, scalar: Any) -> Any:
        """Return a scalar in every lane."""
        vector = ir.VectorType(scalar.type, self.isa.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, self.isa.lanes), None)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def mask(self, n_valid: Any, first: int = 0) -> Mask:
        """Return which of the lanes first, first+1, ... are below `n_valid`."""
        b, LANES = self.builder, self.isa.lanes
        count = self.offset(n_valid, -first)
        none, all_lanes = ir.Constant(I64, 0), ir.Constant(I64, LANES)
        count = b.select(b.icmp_signed(">", count, none), count, none)
        count = b.select(b.icmp_signed("<", count, all_lanes), count, all_lanes)
        return Mask(b.icmp_signed("<", self._numbers, self.splat(b.trunc(count, I32))), count)

    def load(self, address: Any, mask: Mask | None = None) -> Any:
        """Load a vector; masked-off lanes are zero and their memory is not touched."""
        pointer = self.pointer(address, self.vector)
        if mask is None:
            return self.builder.load(pointer, align=4)
        signature = [pointer.type, I32, mask.lanes.type, self.vector]
        name = f"llvm.masked.load.v{self.isa.lanes}f32.p0"
        function = external(self.builder, name, self.vector, signature)
        arguments = [pointer, ir.Constant(I32, 4), mask.lanes, self.zeros()]
        return self.builder.call(function, arguments)

    def load_words(self, address: Any) -> Any:
        """Load a vector of int32."""
        return self.builder.load(self.pointer(address, self.int32s), align=4)

    def word_constant(self, number: int) -> Any:
        """Return an int32 in every lane."""
        return ir.Constant(self.int32s, [number] * self.isa.lanes)

    def shift_right(self, upper: Any, lower: Any, bits: int) -> Any:
        """Return the lower words of pairs of int32 that are shifted to the right."""
        t = self.int32s
        function = external(self.builder, f"llvm.fshr.v{self.isa.lanes}i32", t, [t] * 3)
        return self.builder.call(function, [upper, lower, self.word_constant(bits)])

    def join(self, lower: Any, upper: Any) -> Any:
        """Return the vector of which two half vectors are the lanes."""
        return self.builder.shuffle_vector(lower, upper, self._numbers)

    def store(self, value: Any, address: Any, mask: Mask | None = None) -> None:
        """Store a vector; the memory of masked-off lanes is not touched."""
        pointer = self.pointer(address, self.vector)
        if mask is None:
            self.builder.store(value, pointer, align=4)
        elif self.isa.has_masks:
            arguments = [self.vector, pointer.type, I32, mask.lanes.type]
            name = f"llvm.masked.store.v{self.isa.lanes}f32.p0"
            function = external(self.builder, name, VOID, arguments)
            self.builder.call(function, [value, pointer, ir.Constant(I32, 4), mask.lanes])
        else:
            self._store_pieces(value, address, mask.count)

    def _store_pieces(self, value: Any, address: Any, count: Any) -> None:
        """Store the first lanes in pieces of 8, 4, 2 and 1.

        A masked store of AVX2 takes Zen 3 as long as 16 whole ones.
        """
        b, n = self.builder, self.isa.lanes
        rest, place = self.variables([value, address])
        while n:
            with b.if_then(b.trunc(b.lshr(count, ir.Constant(I64, n.bit_length() - 1)), I1)):
                lanes, target = b.load(rest), b.load(place)
                piece = self._lanes(lanes, range(n))
                b.store(piece, self.pointer(target, piece.type), align=4)
                b.store(self._lanes(lanes, range(n, n + self.isa.lanes)), rest)
                b.store(self.offset(target, 4 * n), place)
            n //= 2

    def _lanes(self, value: Any, numbers: range) -> Any:
        """Return some lanes of a vector, its last one for those beyond its end."""
        indices = [min(n, self.isa.lanes - 1) for n in numbers]
        chosen = ir.Constant(ir.VectorType(I32, len(indices)), indices)
        return self.builder.shuffle_vector(value, value, chosen)

    def prefetch(self, address: Any, for_write: bool = False, level: int = 1) -> None:
        """Ask for the cache line of `address`, to come to the cache of this level."""
        pointer = self.pointer(address, I32)
        function = external(
            self.builder, "llvm.prefetch.p0", VOID, [pointer.type, I32, I32, I32]
        )
        flags = [ir.Constant(I32, flag) for flag in (int(for_write), 4 - level, 1)]
        self.builder.call(function, [pointer, *flags])

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return a * b + c."""
        return multiply_add(self.builder, self.isa, a, b, c)

    def is_bounded(self, low: Any, high: Any) -> Any:
        """Return whether to clip to the floats `low` and `high` changes anything."""
        b = self.builder
        return b.or_(
            b.fcmp_ordered(">", low, ir.Constant(F32, -math.inf)),
            b.fcmp_ordered("<", high, ir.Constant(F32, math.inf)),
        )

    def at_most(self, x: Any, high: Any) -> Any:
        """Return ``x > high ? high : x``, which keeps NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, high), high, x)

    def clip(self, x: Any, low: Any, high: Any) -> Any:
        """Return ``x < low ? low : x > high ? high : x``, which keeps NaN."""
        x = self.builder.select(self.builder.fcmp_ordered("<", x, low), low, x)
        return self.at_most(x, high)

    def leaky(self, x: Any, slope: Any) -> Any:
        """Return ``x > 0 ? x : x * slope``, which keeps NaN and makes -0 a zero."""
        negative = self.multiply_add(x, slope, self.zeros())
        is_positive = self.builder.fcmp_ordered(">", x, self.zeros())
        return self.builder.select(is_positive, x, negative)

    def in_memory(self, values: list[Any]) -> Any:
        """Return the address of float32 values that LLVM keeps there and reads anew."""
        slot = cgutils.alloca_once(self.builder, F32, len(values))
        for i, value in enumerate(values):
            self.builder.store(value, self.builder.gep(slot, [ir.Constant(I32, i)]))
        return self.opaque(self.builder.ptrtoint(slot, I64))

    def variables(self, values: list[Any]) -> list[Any]:
        """Return stack slots that hold `values`.

        LLVM keeps them in registers, as it does with slots of the function's first block.
        """
        slots = [cgutils.alloca_once(self.builder, value.type) for value in values]
        for slot, value in zip(slots, values, strict=True):
            self.builder.store(value, slot)
        return slots
