"""The files of ``cnnkern predict``: NumPy arrays and images in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputFileError, ShapeError
from .shapes import Shape

_IMAGE_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> Pillow's name of the pixel format


def read_arrays(paths: Sequence[Path]) -> list[NDArray[Any]]:
    """Return the content of ``.npy`` files.

    Raises
    ------
    InputFileError
        A file is missing, truncated, or holds Python objects.
    """
    return [_read_array(path) for path in paths]


def read_images(paths: Sequence[Path], shape: Shape, resize: bool) -> NDArray[np.float32]:
    """Return image files as one batch, pixels 0..255 as Keras' ``img_to_array`` gives them.

    Parameters
    ----------
    paths : sequence of Path
        Images of any format that Pillow reads; colour becomes grey, or grey colour, where
        the model asks for it.
    shape : (None, H, W, C)
        What the model expects; H and W may be None.
    resize : bool
        Scale images of another size to H x W (bilinear) instead of refusing them.

    Returns
    -------
    float32[N, H, W, C]

    Raises
    ------
    InputFileError
        A file is no image, or Pillow is not installed.
    ShapeError
        The model takes no images, or an image has another size.
    """
    if len(shape) != 4 or shape[3] not in _IMAGE_MODES:
        raise ShapeError(
            f"the model's input {shape} is not (N, height, width, 1, 3 or 4 channels): "
            "give a .npy file instead of an image"
        )
    images = [_read_image(path, shape, resize) for path in paths]
    if len({image.shape for image in images}) > 1:
        raise ShapeError(f"images of one batch differ in size: {[i.shape for i in images]}")
    return np.stack(images)


def write_results(path: Path, results: Sequence[NDArray[Any]]) -> None:
    """Write one array as ``.npy``, several as an ``.npz`` archive of output_0, output_1, ..."""
    with path.open("wb") as file:
        if len(results) == 1:
            np.save(file, results[0])
        else:
            named: dict[str, Any] = {f"output_{i}": y for i, y in enumerate(results)}
            np.savez(file, **named)


def _read_array(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise InputFileError(f"{path}: {_reason(error)}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputFileError(f"{path}: an .npz archive; give one .npy file per input")
    return array


def _read_image(path: Path, shape: Shape, resize: bool) -> NDArray[np.float32]:
    """Return float32[H, W, C]."""
    _, H, W, C = shape
    try:
        from PIL import Image
    except ImportError as error:
        raise InputFileError(
            f"{path}: images need Pillow; install it with: pip install 'cnnkern[images]'"
        ) from error
    try:
        with Image.open(path) as file:
            image = file.convert(_IMAGE_MODES[C or 0])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputFileError(f"{path}: {_reason(error)}") from error
    size = (W or image.width, H or image.height)
    if image.size != size:
        if not resize:
            raise ShapeError(
                f"{path}: the image is {image.height}x{image.width}, the model expects "
                f"{size[1]}x{size[0]}; --resize scales it"
            )
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32).reshape(size[1], size[0], -1)


def _reason(error: Exception) -> str:
    """Return what went wrong without the path, which the system repeats in its message."""
    return getattr(error, "strerror", None) or str(error)
