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
    """What another library's error says, in one line of at most `limit` characters; the end of a longer one is left out."""
    words = " ".join(str(error).split())
    return words if len(words) <= limit else f"{words[: limit - 1].rstrip()}…"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no more to give, in whatever words; torch's own error is a RuntimeError that says so."""
    words = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(each in str(error) for each in words))
