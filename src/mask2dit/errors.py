"""The errors that callers may catch. Every message says: what, got, expected, remedy, in one line."""


class Mask2DiTError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(Mask2DiTError, ValueError):
    """An argument or a command-line value cannot be used."""


class StoryboardError(Mask2DiTError, ValueError):
    """A storyboard cannot be read, or asks for what cannot be made."""


class ModelError(Mask2DiTError, ValueError):
    """A model folder or one of its tensors is not what was expected."""


class OutputError(Mask2DiTError, OSError):
    """A result cannot be written; what was finished stays where it is."""


class EndpointError(Mask2DiTError, ConnectionError):
    """An endpoint cannot be reached, refuses, or answers what cannot be used."""


def one_line(error: BaseException, limit: int = 200) -> str:
    """What another library's error says, in one line of at most `limit` characters."""
    return " ".join(str(error).split())[:limit]
