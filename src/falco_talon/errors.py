"""What can go wrong, told apart by what the caller does about it."""


class TalonError(Exception):
    """The daemon or a command cannot go on; the text is one line for the user (exit code 1)."""


class ConfigError(TalonError):
    """The configuration cannot be used; the text names the file, the key and what is allowed."""


class InvalidEventError(TalonError):
    """A body is no Falco event; the text says why (HTTP 400)."""


class BusError(TalonError):
    """The bus cannot be brought up, or is set up in a way that cannot work."""


class BusUnavailableError(BusError):
    """The bus did not store the event; the sender may try again (HTTP 503)."""


class PluginError(Exception):
    """The plugin failed for good: trying again is useless."""


class CheckError(PluginError):
    """The event does not fit the plugin: something it needs is missing or does not exist."""


class TransientError(PluginError):
    """The plugin failed in a way that may pass: worth another try.

    ``retry_after`` is the shortest wait, in seconds, that the other side asked for, if it did.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Ignored(Exception):  # noqa: N818 - it is an outcome, not an error
    """The target is exempt: nothing was done, and that is right. The text is the reason.

    ``objects`` names what was spared, as in ``Result.objects``.
    """

    def __init__(self, reason: str, objects: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.objects = objects or {}
