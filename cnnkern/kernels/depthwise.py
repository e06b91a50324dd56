"""Depthwise convolution: every channel has filters of its own.

    for each task:  one row of output pixels (n, od, oh), a block of channels
        for each tile of output pixels, for all channel vectors:  codegen/depthwise.py

The filters of all channels and the input rows of a task stay in the L2 cache. Rows of the
window that lie outside of the image are left out, so that only W has a border of zeros.

A global mean that follows finds each row's sum taken while the row was in the L1 cache.
"""

from ..codegen.depthwise import depthwise_call
from ..codegen.fold import MEAN, fold_call
from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.vector import call_kernel
from .functions import ONE


def _depthwise(taps: int, stride: int):
    """Return the factory of ``y = activate(clip(depthwise(x, w) + b, lo, hi))``.

    Record DEPTHWISE. `taps` neighbouring filter columns are one run, output pixels step
    by `stride` input pixels.
    """

    def factory(isa: Isa):
        tile, add_pixels = depthwise_call(isa, taps, stride), fold_call(isa, MEAN)
        LANES = isa.lanes

        def kernel(p, scratch, begin, end):
            n_blocks = (p.C + p.channels_per_task - 1) // p.channels_per_task
            for task in range(begin, end):
                row, c0 = task // n_blocks, task % n_blocks * p.channels_per_task
                C = min(p.channels_per_task, p.C - c0)
                oh, od, n = row % p.OH, row // p.OH % p.OD, row // (p.OH * p.OD)
                x_row = p.x + n * p.x_n + od * p.x_d + oh * p.x_h + 4 * c0
                y_row = p.y + n * p.y_n + od * p.y_d + oh * p.y_h + 4 * c0
                first, n_runs = runs_inside(p, oh)
                runs = p.runs + 8 * first
                bias = p.filters + c0 * p.filter_nbytes
                filters = bias + 4 * LANES * (1 + first * taps)
                ow = 0
                while ow < p.OW:
                    width = 0
                    c = 0
                    while c < C:  # whole vectors, then what is left
                        n_vectors = max((C - c) // LANES, 1)
                        width = tile(
                            p.OW - ow,
                            x_row + ow * p.x_w + 4 * c, p.x_pixel, runs, n_runs,
                            bias + c * p.filter_nbytes, filters + c * p.filter_nbytes,
                            LANES * p.filter_nbytes,
                            y_row + ow * p.y_w + 4 * c, p.y_w, n_vectors, C - c, p.lo, p.hi,
                        )  # fmt: skip
                        c += n_vectors * LANES
                    if p.activate:
                        activate_pixels(p, y_row + ow * p.y_w, width, C)
                    ow += width
                if p.sums:
                    sums = p.sums + row * p.sums_row + 4 * c0
                    add_pixels(y_row, 1, 1, p.OW, 0, 0, p.y_w, C, sums, 1, 0, 0, ONE)

        return kernel

    return factory


@inline
def runs_inside(p, oh):
    """Return the first run of an output row that lies in the image, and how many do."""
    top = oh * p.SH - p.PH
    first = max(-(top // p.DH), 0)
    end = min((p.H - top + p.DH - 1) // p.DH, p.KH)
    return first * p.runs_per_row, max(end - first, 0) * p.runs_per_row


@inline
def activate_pixels(p, y, n_pixels, C):
    """Apply the epilogue's row function in place to C channels of neighbouring pixels."""
    if p.y_w == 4 * C:
        call_kernel(p.activate, p.activate_args, y, y, n_pixels * C)
        return
    for pixel in range(n_pixels):
        address = y + pixel * p.y_w
        call_kernel(p.activate, p.activate_args, address, address, C)


f32_depthwise_k3s1 = _depthwise(3, 1)
f32_depthwise_k3s2 = _depthwise(3, 2)
f32_depthwise_k5s1 = _depthwise(5, 1)
f32_depthwise_k5s2 = _depthwise(5, 2)
f32_depthwise_k7s1 = _depthwise(7, 1)
# Any other window, dilation or stride: every tap is a run of its own. The stride only
# tells which inputs neighbouring outputs share, and with one tap they share none.
f32_depthwise = _depthwise(1, 1)
