"""Layers of the user's own: which op stands for them is registered, never read from a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import CnnkernError, UnsupportedLayerError
from ..graph import Op
from ..ops import REGISTRY
from ..ops.config import LayerConfig, Weights
from ..shapes import Shape

Factory = Callable[[LayerConfig, Weights, Sequence[Shape]], Op | tuple[Op, ...]]

_BUILT_IN = {key.split(">")[1] for key in REGISTRY}
_factories: dict[str, Factory] = {}


def register_layer(name: str, factory: Factory) -> None:
    """Say what a custom Keras layer computes, for all models read from now on.

    This is the only way in which code that is not cnnkern's runs, and it is the caller's:
    a model file can name a registered layer, it cannot bring one.

    Parameters
    ----------
    name : str
        The name under which Keras saves the class: ``"package>Name"`` of
        ``keras.saving.register_keras_serializable``, or the bare class name without it.
    factory : callable
        ``factory(config, weights, shapes)`` returns an op of ``cnnkern.ops``, a tuple of ops
        to apply one after the other, or a `cnnkern.NumpyOp` around a NumPy function.
        ``config.take("key")`` gives an option of the layer's ``get_config``, each of which
        must be taken; ``weights.take("name", shape)`` gives the arrays in the order in which
        the layer made them; `shapes` are those of the inputs, None for an unknown length.

    Raises
    ------
    ValueError
        `name` is that of a layer that cnnkern implements.
    TypeError
        `factory` cannot be called.

    Examples
    --------
    >>> from cnnkern.ops.norm import Affine
    >>> def gain(config, weights, shapes):
    ...     factor = weights.take("w", (shapes[0][-1],))
    ...     return Affine(factor * config.number("k"), 0 * factor)
    >>> cnnkern.register_layer("mine>Gain", gain)
    """
    if name in REGISTRY or name in _BUILT_IN:
        raise ValueError(f"{name!r} is a layer of Keras, which cnnkern implements")
    if not callable(factory):
        raise TypeError(f"the factory of {name!r} must be callable, got {factory!r}")
    _factories[name] = factory


def custom_factory(name: str) -> Factory | None:
    """Return the factory registered under `name`, checked when it is called, or None."""
    factory = _factories.get(name)
    if factory is None:
        return None

    def checked(
        config: LayerConfig, weights: Weights, shapes: Sequence[Shape]
    ) -> Op | tuple[Op, ...]:
        try:
            result = factory(config, weights, shapes)
        except CnnkernError:
            raise
        except Exception as error:
            raise UnsupportedLayerError(
                f"{config.title}: its registered factory failed: {error!r}"
            ) from error
        ops = result if isinstance(result, tuple) else (result,)
        if not ops or not all(isinstance(op, Op) for op in ops):
            raise UnsupportedLayerError(
                f"{config.title}: its registered factory returned {result!r}; "
                "accepted: an op or a tuple of ops"
            )
        return ops

    return checked
