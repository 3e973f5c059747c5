"""The root of every error of this project, and those that models raise."""


class WatchwordError(Exception):
    """Anything this project refuses or cannot do. The message says what failed, where, and what to do."""


class ContractError(WatchwordError):
    """A model, a weight file or a peer broke its promise: stop loudly."""


class ModelError(ContractError):
    """Weights are missing, altered or of the wrong kind, or a device cannot hold them."""
