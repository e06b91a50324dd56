"""Every error that cnnkern raises on purpose."""


class CnnkernError(Exception):
    """Base class: catch this to catch all errors below."""


class ModelFileError(CnnkernError):
    """A model file is missing, truncated, malformed or hostile."""


class InputFileError(CnnkernError):
    """An array or image file that should be predicted cannot be read."""


class UnsupportedLayerError(CnnkernError):
    """A valid Keras layer or option that cnnkern does not implement."""


class ShapeError(CnnkernError, ValueError):
    """An array's rank or an axis does not fit; the message gives got and expected."""


class DTypeError(CnnkernError, TypeError):
    """An array's element type cannot become float32 without losing meaning."""


class ResourceLimitError(CnnkernError):
    """A model or an input asks for more memory than the limit allows."""


class PlanError(CnnkernError):
    """An internal contract between op, plan and kernel is broken: a bug in cnnkern."""


class KerasVersionWarning(UserWarning):
    """Keras 1 or 2 wrote a model file and meant something else by one of its options."""


class CacheWarning(UserWarning):
    """The kernel cache cannot be used; kernels stay in memory for this process."""
