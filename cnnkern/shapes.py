"""Integer arithmetic of sliding windows.

An axis of unknown length is ``None`` and stays ``None`` through every function.
"""

Shape = tuple[int | None, ...]
Pair = tuple[int, int]

PADDING_MODES = ("valid", "same", "causal")


def dilated_size(size: int, dilation: int) -> int:
    """Return how many input positions a filter axis of `size` taps spans."""
    return (size - 1) * dilation + 1


def window_padding(length: int, size: int, stride: int, dilation: int, mode: str) -> Pair:
    """Return (before, after) implicit padding of one axis.

    ``same`` pads so that the output has ``ceil(length / stride)`` positions, the odd
    element after (Keras doc, "Convolution layers"); ``causal`` pads before only.
    """
    span = dilated_size(size, dilation)
    if mode == "valid":
        return 0, 0
    if mode == "causal":
        return span - 1, 0
    n_out = -(-length // stride)
    total = max((n_out - 1) * stride + span - length, 0)
    return total // 2, total - total // 2


def window_count(
    length: int | None, size: int, stride: int, dilation: int = 1, padding: Pair = (0, 0)
) -> int | None:
    """Return how many windows fit into an axis after explicit `padding`; at least 0."""
    if length is None:
        return None
    span = dilated_size(size, dilation)
    return max((length + sum(padding) - span) // stride + 1, 0)


def output_length(
    length: int | None, size: int, stride: int, dilation: int, mode: str
) -> int | None:
    """Return the output length of one axis under a named padding mode."""
    if length is None:
        return None
    padding = window_padding(length, size, stride, dilation, mode)
    return window_count(length, size, stride, dilation, padding)


def product(shape: tuple[int, ...]) -> int:
    """Return the number of elements of `shape`, as an exact Python int."""
    total = 1
    for length in shape:
        total *= length
    return total
