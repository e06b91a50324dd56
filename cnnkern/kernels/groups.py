"""Group normalization: statistics of neighbouring channels over all pixels of a sample."""

from ..codegen.isa import Isa
from ..codegen.jit import inline
from ..codegen.vector import doubles, floats, sqrt
from .functions import ONE, ZERO, F
from .move import copy_row

BLOCK = 64  # pixels whose sums are taken in float32; sums of blocks are added in float64


@inline
def add_pixel(x, mean, part, part2, C):
    for c in range(C):
        d = x[c] - mean[c]
        part[c] += d
        part2[c] += d * d


@inline
def add_4_pixels(x0, x1, x2, x3, mean, part, part2, C):
    for c in range(C):
        d0, d1, d2, d3 = x0[c] - mean[c], x1[c] - mean[c], x2[c] - mean[c], x3[c] - mean[c]
        part[c] += (d0 + d1) + (d2 + d3)
        part2[c] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)


@inline
def add_block(x, x_w, n_pixels, mean, part, part2, sums, squares, C):
    """Add the pixels' differences from `mean`, and their squares, to the totals."""
    for c in range(C):
        part[c] = ZERO
        part2[c] = ZERO
    w = 0
    while w < n_pixels:
        x0 = x + w * x_w
        x1, x2, x3 = x0 + x_w, x0 + 2 * x_w, x0 + 3 * x_w
        if w + 4 <= n_pixels:
            add_4_pixels(floats(x0), floats(x1), floats(x2), floats(x3), mean, part, part2, C)
            w += 4
        else:
            add_pixel(floats(x0), mean, part, part2, C)
            w += 1
    for c in range(C):
        sums[c] += part[c]
        squares[c] += part2[c]


@inline
def add_image(p, x, mean, part, part2, sums, squares, C):
    for c in range(C):
        sums[c] = 0.0
        squares[c] = 0.0
    for d in range(p.D):
        for h in range(p.H):
            row = x + d * p.x_d + h * p.x_h
            w = 0
            while w < p.W:
                n_pixels = min(BLOCK, p.W - w)
                add_block(row + w * p.x_w, p.x_w, n_pixels, mean, part, part2, sums, squares, C)
                w += BLOCK


@inline
def group_means(totals, means, C, size, count):
    """Write each group's mean to its `size` channels; each channel sums `count` numbers."""
    c = 0
    while c < C:
        total = 0.0
        for i in range(c, c + size):
            total += totals[i]
        for i in range(c, c + size):
            means[i] = total / (count * size)
        c += size


@inline
def rewrite_pixel(y, mean, scale, beta, C):
    for c in range(C):
        y[c] = (y[c] - mean[c]) * scale[c] + beta[c]


@inline
def rewrite(p, x, y, mean, scale, beta, C):
    for d in range(p.D):
        for h in range(p.H):
            for w in range(p.W):
                pixel = y + d * p.y_d + h * p.y_h + w * p.y_w
                copy_row(x + d * p.x_d + h * p.x_h + w * p.x_w, pixel, C)
                rewrite_pixel(floats(pixel), mean, scale, beta, C)


def f32_group_norm(isa: Isa):
    """Return the kernel ``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta``.

    Record GROUP_NORM. A tile is some groups of one sample. Scratch: 4 float32 and 2 float64
    per channel of a tile.
    """

    def kernel(p, scratch, begin, end):
        room = p.channels_per_task
        sums, squares = doubles(scratch), doubles(scratch + 8 * room)
        mean, scale = floats(scratch + 16 * room), floats(scratch + 20 * room)
        part, part2 = floats(scratch + 24 * room), floats(scratch + 28 * room)
        count = p.D * p.H * p.W
        for task in range(begin, end):
            n, c0 = task // p.channel_blocks, task % p.channel_blocks * p.channels_per_task
            C = min(p.channels_per_task, p.C - c0)
            x, y = p.x + n * p.x_n + 4 * c0, p.y + n * p.y_n + 4 * c0
            gamma, beta = floats(p.gamma + 4 * c0), floats(p.beta + 4 * c0)
            for c in range(C):
                mean[c] = ZERO
            add_image(p, x, mean, part, part2, sums, squares, C)
            group_means(sums, mean, C, p.size, count)
            add_image(p, x, mean, part, part2, sums, squares, C)
            group_means(sums, sums, C, p.size, count)
            group_means(squares, squares, C, p.size, count)
            for c in range(C):
                variance = squares[c] - sums[c] * sums[c]
                scale[c] = ONE / sqrt(F(variance + p.epsilon)) * gamma[c]
                mean[c] = F(mean[c] + sums[c])
            rewrite(p, x, y, mean, scale, beta, C)

    return kernel
