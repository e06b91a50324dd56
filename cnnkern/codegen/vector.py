"""Intrinsics: what Numba's language lacks, each a few lines of LLVM IR."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .isa import Isa

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
F32 = ir.FloatType()
VOID = ir.VoidType()


def external(builder: ir.IRBuilder, name: str, result: ir.Type, args: list[ir.Type]) -> Any:
    """Return the declaration of an LLVM intrinsic or C function in the current module."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, args), name)


def function_in(
    module: ir.Module,
    name: str,
    integers: Sequence[str],
    numbers: Sequence[str],
    emit: Callable[[ir.IRBuilder, dict[str, Any]], None],
) -> Any:
    """Return function `name` of the module, whose int64 and float32 arguments have names.

    ``emit(builder, named)`` writes its body once. It is never inlined: each has all registers.
    """
    if name not in module.globals:
        arguments = [I64] * len(integers) + [F32] * len(numbers)
        function = ir.Function(module, ir.FunctionType(VOID, arguments), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block())
        emit(builder, dict(zip((*integers, *numbers), function.args, strict=True)))
        builder.ret_void()
    return module.globals[name]


def call_one_of(
    builder: ir.IRBuilder,
    number: Any,
    functions: Iterable[tuple[Iterable[int], Any]],
    arguments: Sequence[Any],
) -> None:
    """Emit a call of the function that an int64 stands for; each comes with its numbers.

    For another number nothing is called.
    """
    done = builder.append_basic_block("called")
    switch = builder.switch(number, done)
    for numbers, function in functions:
        block = builder.append_basic_block(function.name)
        for case in numbers:
            switch.add_case(ir.Constant(I64, case), block)
        with builder.goto_block(block):
            builder.call(function, arguments)
            builder.branch(done)
    builder.position_at_end(done)


def multiply_add(builder: ir.IRBuilder, isa: Isa, a: Any, b: Any, c: Any) -> Any:
    """Emit a * b + c on vectors, with one rounding where the instruction set has it."""
    if not isa.has_fma:  # LLVM would call the C library for every lane
        return builder.fadd(builder.fmul(a, b), c)
    function = external(builder, f"llvm.fma.v{isa.lanes}f32", a.type, [a.type] * 3)
    return builder.call(function, [a, b, c])


@intrinsic
def record_at(typing, address, record):
    """Return the record of dtype `record` that stands at `address`."""

    def emit(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(record.dtype))

    return record.dtype(address, record), emit


@intrinsic
def address_of(typing, record):
    """Return the address at which a record stands."""

    def emit(context, builder, signature, args):
        return builder.ptrtoint(args[0], I64)

    return types.int64(record), emit


def _pointer_cast(element):
    @intrinsic
    def cast(typing, address):
        pointer = types.CPointer(element)

        def emit(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.int64), emit

    return cast


# floats(address)[i] and its like read and write memory without bound checks.
floats = _pointer_cast(types.float32)
doubles = _pointer_cast(types.float64)
integers = _pointer_cast(types.int64)


@intrinsic
def call_kernel(typing, function, args, scratch, begin, end):
    """Call a compiled kernel by its address."""

    def emit(context, builder, signature, values):
        function_type = ir.FunctionType(VOID, [I64] * 4)
        builder.call(builder.inttoptr(values[0], function_type.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), emit


@intrinsic
def fma(typing, a, b, c):
    """Return a * b + c in float32 with one rounding, so that loop bodies and tails agree."""

    def emit(context, builder, signature, args):
        return builder.call(external(builder, "llvm.fma.f32", F32, [F32] * 3), args)

    return types.float32(*[types.float32] * 3), emit


@intrinsic
def sqrt(typing, x):
    """Return the square root in float32, correctly rounded."""

    def emit(context, builder, signature, args):
        return builder.call(external(builder, "llvm.sqrt.f32", F32, [F32]), args)

    return types.float32(types.float32), emit


@intrinsic
def maximum(typing, a, b):
    """Return the larger number, or NaN if there is one; a loop over it becomes vectors."""

    def emit(context, builder, signature, args):
        return builder.call(external(builder, "llvm.maximum.f32", F32, [F32] * 2), args)

    return types.float32(*[types.float32] * 2), emit


@intrinsic
def add_to_exponent(typing, x, t):
    """Return x * 2**n, where n stands in the low bits of `t` (a float of 1.5 * 2**23 + n)."""

    def emit(context, builder, signature, args):
        x, t = (builder.bitcast(a, I32) for a in args)
        exponent = builder.shl(t, ir.Constant(I32, 23))
        return builder.bitcast(builder.add(x, exponent), F32)

    return types.float32(types.float32, types.float32), emit
