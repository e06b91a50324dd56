"""im2col: every receptive field as a row of a matrix."""

from ..codegen.isa import Isa
from ..codegen.vector import floats
from .functions import ZERO


def f32_im2col(isa: Isa):
    """Return the kernel ``y[m, (kh*KW + kw)*C + c] = x[n, oh*SH + kh*DH - PH, ..., c]``.

    Record UNFOLD. A tile is one output pixel m; taps outside the input give zeros.
    """

    def kernel(p, scratch, begin, end):
        for m in range(begin, end):
            ow, oh, n = m % p.OW, m // p.OW % p.OH, m // (p.OW * p.OH)
            y = p.y + m * p.y_w
            for kh in range(p.KH):
                h = oh * p.SH + kh * p.DH - p.PH
                for kw in range(p.KW):
                    w = ow * p.SW + kw * p.DW - p.PW
                    field = floats(y + 4 * p.C * (kh * p.KW + kw))
                    if 0 <= h < p.H and 0 <= w < p.W:
                        x = floats(p.x + n * p.x_n + h * p.x_h + w * p.x_w)
                        for c in range(p.C):
                            field[c] = x[c]
                    else:
                        for c in range(p.C):
                            field[c] = ZERO

    return kernel
