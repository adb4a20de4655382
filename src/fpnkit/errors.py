"""Every error that fpnkit raises on purpose. Catch `FpnkitError` to catch them all."""


class FpnkitError(Exception):
    """Base of all fpnkit errors; its text says what was expected, what came, where, and what to do."""


class ShapeError(FpnkitError, ValueError):
    """Tensors or levels do not fit together."""


class ConfigError(FpnkitError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class DataError(FpnkitError, ValueError):
    """An image, annotation file or data set cannot be used as it is."""


class CheckpointError(FpnkitError):
    """A weights file is damaged, of another model, or not a weights file at all."""


class ExportError(FpnkitError):
    """An exported graph could not be made or does not match its PyTorch model."""
