"""Convolution of one channel to few: vectors along the rows of the image.

    for each row of the output:
        for each tile of neighbouring pixels:  codegen/plane.py

The filters are few enough to stay in the L1 cache.
"""

from ..codegen.isa import PLANE_VECTORS, Isa
from ..codegen.plane import plane_call
from ..codegen.vector import call_kernel


def f32_plane_conv(isa: Isa):
    """Return the kernel ``y = activate(clip(conv(x, w) + b, lo, hi))``; record CONV.

    A tile is a row of pixels, which touch each other in `x` and in `y`.
    """
    tile, PIXELS = plane_call(isa), PLANE_VECTORS * isa.lanes

    def kernel(p, scratch, begin, end):
        for row in range(begin, end):
            oh, od, n = row % p.OH, row // p.OH % p.OD, row // (p.OH * p.OD)
            x = p.x + n * p.x_n + od * p.x_d + oh * p.x_h
            y = p.y + n * p.y_n + od * p.y_d + oh * p.y_h
            for ow in range(0, p.OW, PIXELS):
                tile(
                    p.OC, x + ow * p.x_w, p.runs, p.n_runs, p.run_len, p.panels,
                    y + ow * p.y_w, min(p.OW - ow, PIXELS), p.lo, p.hi,
                )  # fmt: skip
            if p.activate:
                call_kernel(p.activate, p.activate_args, y, y, p.OW * p.OC)

    return kernel
