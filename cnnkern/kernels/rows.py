"""Row functions: ``function(parameters, x, y, n)`` applies an activation to n floats.

They have the signature of every kernel, so that an epilogue or a map step calls them by
address. `x` and `y` may be the same row. Record PARAMETERS.
"""

from ..codegen import logistic
from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.vector import floats
from . import functions
from .move import copy_row


def _rows(function):
    """Return the factory of a row function; `function` takes x and the parameters a, b, c."""

    def factory(isa: Isa):
        def kernel(p, x_row, y_row, n):
            y, a, b, c = floats(y_row), p.a, p.b, p.c
            copy_row(x_row, y_row, n)
            for i in range(n):
                y[i] = function(y[i], a, b, c)

        return kernel

    return factory


def _plain(f):
    return _rows(inline(lambda x, a, b, c: f(x)))


def _with_table(by_table, f):
    """Return the factory of a row function that looks powers up where registers hold them."""

    def factory(isa: Isa):
        if isa.name not in logistic.PERMUTES:
            return _plain(f)(isa)
        map_row = logistic.map_row(isa, by_table)

        def kernel(p, x_row, y_row, n):
            map_row(x_row, y_row, n)

        return kernel

    return factory


def _with_a(f):
    return _rows(inline(lambda x, a, b, c: f(x, a)))


def _with_a_b(f):
    return _rows(inline(lambda x, a, b, c: f(x, a, b)))


f32_exponential = _plain(functions.exp)
f32_gelu = _plain(functions.gelu)
f32_gelu_tanh = _plain(functions.gelu_tanh)
f32_hard_sigmoid = _plain(functions.hard_sigmoid)
f32_hard_silu = _plain(functions.hard_silu)
f32_log_sigmoid = _plain(functions.log_sigmoid)
f32_mish = _plain(functions.mish)
f32_selu = _plain(functions.selu)
f32_sigmoid = _with_table(logistic.sigmoid, functions.sigmoid)
f32_silu = _with_table(logistic.silu, functions.silu)
f32_softplus = _plain(functions.softplus)
f32_softsign = _plain(functions.softsign)
f32_sparse_plus = _plain(functions.sparse_plus)
f32_sparse_sigmoid = _plain(functions.sparse_sigmoid)
f32_tanh = _plain(functions.tanh)
f32_tanh_shrink = _plain(functions.tanh_shrink)
f32_celu = _with_a(functions.celu)
f32_elu = _with_a(functions.elu)
f32_hard_shrink = _with_a(functions.hard_shrink)
f32_leaky_relu = _with_a(functions.leaky_relu)
f32_soft_shrink = _with_a(functions.soft_shrink)
f32_squareplus = _with_a(functions.squareplus)
f32_affine = _with_a_b(inline(lambda x, a, b: x * a + b))
f32_clip = _with_a_b(functions.clip)
f32_threshold = _with_a_b(functions.threshold)
f32_bounded_relu = _rows(functions.bounded_relu)
