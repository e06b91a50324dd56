"""Nodes on ``[N, C, *spatial]``: convolutions, poolings, resizing, normalizations."""

from __future__ import annotations

import numpy as np

from cnnkern.ops.conv import Conv
from cnnkern.ops.depthwise import DepthwiseConv
from cnnkern.ops.layernorm import GroupNorm
from cnnkern.ops.layout import Cropping, ZeroPadding
from cnnkern.ops.norm import BatchNorm
from cnnkern.ops.pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from cnnkern.ops.resize import Resizing, UpSampling
from cnnkern.ops.transpose import ConvTranspose
from cnnkern.ops.window import Padding, paddings
from cnnkern.shapes import Pair

from .cases import Case
from .translation import Translation, on_images

Ints = tuple[int, ...]


def conv(case: Case) -> Translation:
    """Filters OIHW become HWIO; one group per channel is a depthwise convolution."""
    x, w, b = case.x, case.input(1), case.input(2)
    assert w is not None
    groups, rank = case.attributes.get("group", 1), x.ndim - 2
    strides, dilations = ints(case, "strides", rank), ints(case, "dilations", rank)
    padding = pads(case, w.shape[2:], strides, dilations)
    if groups == x.shape[1] > 1:
        grouped = w.reshape(groups, -1, *w.shape[2:])
        filter = np.moveaxis(grouped, (0, 1), (-2, -1))
        return on_images(x, DepthwiseConv(filter, b, strides, padding, dilations))
    filter = np.moveaxis(w, (0, 1), (-1, -2))
    op = Conv(filter, b, strides, padding, dilations, groups=groups)
    return on_images(x, op)


def conv_transpose(case: Case) -> Translation:
    """Padding cuts the ends of the full result off; what is missing is output padding."""
    x, w, b = case.x, case.input(1), case.input(2)
    assert w is not None
    case.refuse("transposed convolution in groups", case.attributes.get("group", 1) > 1)
    rank = x.ndim - 2
    strides, dilations = ints(case, "strides", rank), ints(case, "dilations", rank)
    filter = np.moveaxis(w, (0, 1), (-1, -2))
    extra = ints(case, "output_padding", rank, 0)
    shortest = ConvTranspose(filter, b, strides, "valid", dilations, output_padding=extra)
    reached = shortest.infer_shape((1, *x.shape[2:], x.shape[1]))[1:-1]
    surplus = [n - want for n, want in zip(reached, case.expected.shape[2:], strict=True)]
    extra = tuple(e + max(-n, 0) for e, n in zip(extra, surplus, strict=True))
    full = ConvTranspose(filter, b, strides, "valid", dilations, output_padding=extra)
    return on_images(x, full, Cropping(_cuts(case, [max(n, 0) for n in surplus])))


def _cuts(case: Case, surplus: list[int]) -> tuple[Pair, ...]:
    """Return what is cut off each axis; only SAME_UPPER cuts more off the end."""
    if "pads" in case.attributes:
        return _pairs(case.attributes["pads"])
    if case.attributes.get("auto_pad") == "SAME_UPPER":
        return tuple((n // 2, n - n // 2) for n in surplus)
    return tuple((n - n // 2, n // 2) for n in surplus)


def max_pool(case: Case) -> Translation:
    """Padding takes no part, whatever its length."""
    sizes, strides = _window(case)
    return on_images(case.x, MaxPool(sizes, strides, pads(case, sizes, strides)))


def average_pool(case: Case) -> Translation:
    """Padding that counts is a layer of its own."""
    sizes, strides = _window(case)
    padding = pads(case, sizes, strides)
    if not case.attributes.get("count_include_pad", 0) or padding == "valid":
        return on_images(case.x, AveragePool(sizes, strides, padding))
    pairs = paddings(case.x.shape[2:], sizes, strides, (1,) * len(sizes), padding)
    return on_images(case.x, ZeroPadding(pairs), AveragePool(sizes, strides, "valid"))


def _window(case: Case) -> tuple[Ints, Ints]:
    sizes = tuple(case.attributes["kernel_shape"])
    case.refuse("pooling with ceil_mode", case.attributes.get("ceil_mode", 0))
    case.refuse("dilated pooling", max(ints(case, "dilations", len(sizes))) > 1)
    return sizes, ints(case, "strides", len(sizes))


def global_pool(case: Case) -> Translation:
    """The spatial axes stay, with length 1."""
    op = GlobalMaxPool if case.node.op_type == "GlobalMaxPool" else GlobalAveragePool
    return on_images(case.x, op(case.x.ndim - 2, keepdims=True))


def batch_norm(case: Case) -> Translation:
    """Stored statistics alone; training computes others."""
    case.refuse("training", case.attributes.get("training_mode", 0))
    gamma, beta, mean, variance = case.inputs[1:5]
    epsilon = case.attributes.get("epsilon", 1e-5)
    return on_images(case.x, BatchNorm(gamma, beta, mean, variance, epsilon))


def group_norm(case: Case) -> Translation:
    """An instance normalization has one group per channel."""
    groups = case.attributes.get("num_groups", case.x.shape[1])
    epsilon = case.attributes.get("epsilon", 1e-5)
    return on_images(case.x, GroupNorm(groups, -1, epsilon, *case.inputs[1:3]))


def resize(case: Case) -> Translation:
    """Whole factors are an upsampling layer, other lengths a resizing layer."""
    x, attributes = case.x, case.attributes
    old, new = x.shape[2:], case.expected.shape[2:]
    case.refuse("not [N, C, H, W] with new H and W", x.shape[:2] != case.expected.shape[:2])
    case.refuse("keep_aspect_ratio_policy", "keep_aspect_ratio_policy" in attributes)
    case.refuse("output length is not input length times scale", not _fits(case))
    is_whole = all(n % o == 0 for o, n in zip(old, new, strict=True))
    method = _interpolation(case, is_whole)
    antialias = bool(attributes.get("antialias", 0))
    borders = not attributes.get("exclude_outside", 0)
    case.refuse("antialias with repeated borders", antialias and borders)
    if is_whole and not antialias:
        factors = tuple(n // o for o, n in zip(old, new, strict=True))
        return on_images(x, UpSampling(factors, method))
    return on_images(x, Resizing(new, method, antialias))


def _interpolation(case: Case, is_whole: bool) -> str:
    """Return Keras' name of the interpolation, or refuse the case."""
    attributes = case.attributes
    is_old = case.node.op_type == "Upsample"
    coordinates = attributes.get("coordinate_transformation_mode", "half_pixel")
    mode = attributes.get("mode", "nearest")
    rounding = attributes.get("nearest_mode", "round_prefer_floor")
    if mode == "nearest" and is_whole and (
        is_old or (coordinates, rounding) == ("asymmetric", "floor")
    ):  # fmt: skip
        return "nearest"
    case.refuse(f"{coordinates} coordinates", coordinates != "half_pixel" or is_old)
    if mode == "nearest":
        case.refuse(f"nearest_mode {rounding}", not rounding.startswith("round_prefer"))
        case.refuse("ties rounded down", rounding == "round_prefer_floor" and _has_ties(case))
    if mode == "cubic":
        case.refuse("cubic coefficient -0.75", attributes.get("cubic_coeff_a", -0.75) != -0.5)
        case.refuse("cubic with repeated borders", not attributes.get("exclude_outside", 0))
    return {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}[mode]


def _fits(case: Case) -> bool:
    """Whether the scales, if given, are the exact ratios of the lengths."""
    scales = case.input(1 if len(case.inputs) == 2 else 2)
    if scales is None or scales.size == 0:
        return True
    axes = case.attributes.get("axes", range(case.x.ndim))
    pairs = [(case.x.shape[axis], case.expected.shape[axis]) for axis in axes]
    return all(abs(o * s - n) < 1e-6 for (o, n), s in zip(pairs, scales, strict=True))


def _has_ties(case: Case) -> bool:
    """Whether an output lies half-way between two inputs."""
    lengths = zip(case.x.shape[2:], case.expected.shape[2:], strict=True)
    return any((2 * i + 1) * old % (2 * new) == 0 for old, new in lengths for i in range(new))


def ints(case: Case, name: str, rank: int, default: int = 1) -> Ints:
    """Return an attribute that has one int per spatial axis."""
    return tuple(case.attributes.get(name, (default,) * rank))


def pads(case: Case, sizes: Ints, strides: Ints, dilations: Ints | None = None) -> Padding:
    """Return the padding of a window; SAME_LOWER puts the extra element first."""
    mode = case.attributes.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        values = case.attributes.get("pads", ())
        return _pairs(values) if any(values) else "valid"
    if mode in ("VALID", "SAME_UPPER"):
        return {"VALID": "valid", "SAME_UPPER": "same"}[mode]
    dilations = dilations or (1,) * len(sizes)
    upper = paddings(case.x.shape[2:], sizes, strides, dilations, "same")
    return tuple((after, before) for before, after in upper)


def _pairs(values: list[int]) -> tuple[Pair, ...]:
    rank = len(values) // 2
    return tuple(zip(values[:rank], values[rank:], strict=True))


TRANSLATORS = {
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "GroupNormalization": group_norm,
    "InstanceNormalization": group_norm,
    "MaxPool": max_pool,
    "Resize": resize,
    "Upsample": resize,
}
