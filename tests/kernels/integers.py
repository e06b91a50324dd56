"""What convolutions compute, in int64, from the definitions in Keras' documentation."""

from __future__ import annotations

from typing import Any

import numpy as np

Pair = tuple[int, int]
Ints = np.ndarray  # int64


def convolve(
    x: Ints, w: Ints, strides: tuple[int, ...], dilation: tuple[int, ...],
    pads: list[Pair], groups: int,
) -> Ints:  # fmt: skip
    """Return ``y[n, o, oc] = sum over k, c of x[n, o*S + k*D - P, c] * w[k, c, oc]``."""
    *sizes, depth, OC = w.shape
    taps, _ = windows(x, tuple(sizes), strides, pads, dilation)
    grouped = taps.reshape(*taps.shape[:-1], groups, 1, depth)
    filters = w.reshape(-1, depth, groups, OC // groups).transpose(0, 2, 1, 3)
    y = np.zeros((*taps.shape[1:-1], groups, 1, OC // groups), w.dtype)
    for tap, matrices in zip(grouped, filters, strict=True):
        y += tap @ matrices
    return y.reshape(*taps.shape[1:-1], OC)


def spread(
    x: Ints, w: Ints, strides: tuple[int, ...], dilation: tuple[int, ...], padding: str,
    output_padding: tuple[int, ...] | None,
) -> Ints:  # fmt: skip
    """Return ``y[n, i*S + k*D - P, oc] += x[n, i, c] * w[k, oc, c]``.

    SAME takes the middle of what the windows cover; what they do not reach is zero.
    """
    *sizes, OC, _ = w.shape
    axes = list(zip(x.shape[1:-1], sizes, strides, dilation, strict=True))
    covered = [(n - 1) * s + (k - 1) * d + 1 for n, k, s, d in axes]
    extras = output_padding or (None,) * len(axes)
    lengths = [
        _spread_length(n, (k - 1) * d + 1, s, padding, extra)
        for (n, k, s, d), extra in zip(axes, extras, strict=True)
    ]
    cuts = [
        max(reach - length, 0) // 2 if padding == "same" else 0
        for reach, length in zip(covered, lengths, strict=True)
    ]
    room = [max(f, c + n) for f, c, n in zip(covered, cuts, lengths, strict=True)]
    y = np.zeros((x.shape[0], *room, OC), np.int64)
    for tap in np.ndindex(*sizes):
        place = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, (n, _, s, d) in zip(tap, axes, strict=True)
        )
        y[(slice(None), *place)] += x @ w[tap].T
    return y[(slice(None), *(slice(c, c + n) for c, n in zip(cuts, lengths, strict=True)))]


def _spread_length(n: int, span: int, stride: int, padding: str, extra: int | None) -> int:
    if extra is not None:
        return (n - 1) * stride + (span % 2 if padding == "same" else span) + extra
    return n * stride if padding == "same" else max(n * stride, (n - 1) * stride + span)


def windows(
    x: Ints, sizes: tuple[int, ...], strides: tuple[int, ...], pads: list[Pair],
    dilation: tuple[int, ...] = (1, 1, 1),
) -> tuple[Ints, np.ndarray]:  # fmt: skip
    """Return every tap's view of the padded input, and where it is not padding."""
    whole = [(0, 0), *pads, (0, 0)]
    padded, inside = np.pad(x, whole), np.pad(np.ones(x.shape, bool), whole)
    counts = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(padded.shape[1:-1], sizes, strides, dilation, strict=False)
    ]
    taps = []
    for tap in np.ndindex(*sizes):
        axes = zip(tap, strides, dilation, counts, strict=False)
        place = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, s, d, n in axes)
        taps.append((slice(None), *place))
    return np.stack([padded[t] for t in taps]), np.stack([inside[t] for t in taps])


def window_pads(
    space: list[int], sizes: tuple[int, ...], strides: tuple[int, ...],
    dilation: tuple[int, ...], padding: Any,
) -> list[Pair]:  # fmt: skip
    if padding == "valid":
        return [(0, 0)] * len(space)
    if padding == "causal":
        return [((k - 1) * d, 0) for k, d in zip(sizes, dilation, strict=True)]
    if padding != "same":
        return list(padding)
    pads = []
    for n, k, s, d in zip(space, sizes, strides, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        pads.append((total // 2, total - total // 2))
    return pads
