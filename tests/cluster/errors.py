"""What can go wrong with the test cluster."""


class SetupError(Exception):
    """The cluster cannot be made here; the text is one line that says what to do about it."""


class ClusterError(Exception):
    """The API server refused a request, or could not be reached (then `status` is 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
