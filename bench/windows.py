"""The blog post's way to convolve: a loop over windows, each a NumPy product and sum."""

import numpy as np


def conv2d(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Convolve ``x : float32[N, H, W, C]`` with ``w : float32[KH, KW, C, OC]``, VALID."""
    N, H, W, _ = x.shape
    KH, KW, _, OC = w.shape
    OH, OW = H - KH + 1, W - KW + 1
    y = np.empty((N, OH, OW, OC), np.float32)
    for n in range(N):
        for oh in range(OH):
            for ow in range(OW):
                window = x[n, oh : oh + KH, ow : ow + KW]
                for oc in range(OC):
                    y[n, oh, ow, oc] = np.sum(window * w[..., oc]) + b[oc]
    return y


def max_pool2d(x: np.ndarray, size: int) -> np.ndarray:
    """Take the largest element of each size x size window of ``x : float32[N, H, W, C]``."""
    N, H, W, C = x.shape
    OH, OW = H // size, W // size
    y = np.empty((N, OH, OW, C), np.float32)
    for oh in range(OH):
        for ow in range(OW):
            window = x[:, oh * size : (oh + 1) * size, ow * size : (ow + 1) * size]
            y[:, oh, ow] = window.max(axis=(1, 2))
    return y
