"""The errors that a user can meet, each one sentence: what is wrong, which value, what to do."""


class CompressionError(Exception):
    """Base of every error that hvd_compress raises on purpose."""

    # Where it is raised while `tf.function` traces, TensorFlow makes it anew to add the user's line to the message; it
    # keeps the class of errors that are made as plain exceptions are, and makes something else of all others.
    __init__ = Exception.__init__


class ConfigurationError(CompressionError, ValueError):
    """An argument has a value that cannot be honoured."""


class UnknownCompressorError(ConfigurationError):
    """A compressor name is not registered."""


class StockOptimizerError(CompressionError, TypeError):
    """A compressor that needs more than one allreduce was handed to Horovod's own optimizer."""


class RankDisagreementError(CompressionError, RuntimeError):
    """Ranks differ in what must be equal on all of them."""


class ReplicaDivergenceError(RankDisagreementError):
    """The model's parameters differ between ranks."""


class UsageError(CompressionError, RuntimeError):
    """Calls came in an order that would corrupt gradients."""


class CorruptPayloadError(CompressionError, RuntimeError):
    """What another rank sent cannot be right."""
