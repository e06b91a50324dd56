"""Row functions: ``function(parameters, x, y, n)`` applies an activation to n floats.

They have the signature of every kernel, so that an epilogue or a map step calls them by
address. `x` and `y` may be the same row.
"""

from ..codegen.isa import Isa
from ..codegen.vector import floats
from . import functions


def _row_function(function):
    def factory(isa: Isa):
        def kernel(p, x_row, y_row, n):
            x, y = floats(x_row), floats(y_row)
            for i in range(n):
                y[i] = function(x[i])

        return kernel

    return factory


f32_relu = _row_function(functions.relu)
f32_sigmoid = _row_function(functions.sigmoid)
f32_tanh = _row_function(functions.tanh)


def f32_copy(isa: Isa):
    """Return the identity row function."""

    def kernel(p, x_row, y_row, n):
        x, y = floats(x_row), floats(y_row)
        for i in range(n):
            y[i] = x[i]

    return kernel
