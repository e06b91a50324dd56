"""Independent multiply-add chains in registers, to measure the peak of a core."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .isa import FMA_CHAINS, Isa
from .vector import F32, I32, multiply_add


def fma_chains(isa: Isa):
    """Return ``chains(n)``: n rounds of FMA_CHAINS vector multiply-adds; a float32 result."""

    @intrinsic
    def chains(typing, n):
        def emit(context, builder, signature, args):
            vector = ir.VectorType(F32, isa.lanes)
            factor = ir.Constant(vector, [1.0000001] * isa.lanes)
            term = ir.Constant(vector, [1e-7] * isa.lanes)
            sums = [builder.alloca(vector) for _ in range(FMA_CHAINS)]
            for index, slot in enumerate(sums):
                builder.store(ir.Constant(vector, [float(index)] * isa.lanes), slot)
            with cgutils.for_range(builder, args[0]):
                for slot in sums:
                    builder.store(
                        multiply_add(builder, isa, builder.load(slot), factor, term), slot
                    )
            total = builder.load(sums[0])
            for slot in sums[1:]:
                total = builder.fadd(total, builder.load(slot))
            return builder.extract_element(total, ir.Constant(I32, 0))

        return types.float32(types.int64), emit

    return chains
