"""The errors that this package raises for input it cannot use.

Each message is one sentence naming the file (or argument) at fault and the mend; the command
line prints it alone and exits with code 2.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from pcaseg.streams import guarded_output

_SYSTEM_MEND = "check the disk or the network drive"


class PcasegError(ValueError):
    """Base of every error about something the caller can mend."""


class ImageError(PcasegError):
    """An image file or array that cannot be read or has no defined meaning."""


class LargeImageError(ImageError):
    """An image that claims more pixels than are allowed."""


class VocabularyError(PcasegError):
    """A class list that is empty, ambiguous or does not fit the bundle."""


class CheckpointError(PcasegError):
    """A checkpoint that is unreadable or does not fit the preset."""


class BundleError(PcasegError):
    """A bundle that is incomplete, altered or of another schema."""


class EngineError(PcasegError):
    """A TensorRT engine that is missing, altered, of another device or version, or that cannot be built or run."""


class OutputError(PcasegError):
    """A destination that cannot be written."""


class MissingDependencyError(PcasegError):
    """An optional package is not installed; the message names the pip extra."""


def print_error(message: object) -> None:
    """Prints an error as one line; what is not printable, such as a newline in the name of a file, is escaped."""
    line = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(message))
    print(f"error: {line}", file=sys.stderr)


def reported(work: Callable[[], int]) -> int:
    """The exit code of a script: what its work gives, or 2 with the error printed, one line."""
    with guarded_output() as output:
        try:
            code = work()
        except PcasegError as error:
            print_error(error)
            code = 2
        except OSError as error:
            print_error(system_fault(error))
            code = 2
        return 2 if output.lost() and not code else code


def system_fault(error: OSError) -> str:
    """A failure of the system that no command foresaw, as one sentence.

    >>> system_fault(OSError(5, "Input/output error", "a.png"))
    'a.png: Input/output error; check the disk or the network drive'
    """
    name = error.filename if error.filename is not None else "the system"
    return f"{os.fsdecode(name) if isinstance(name, bytes) else name}: {error.strerror or error}; {_SYSTEM_MEND}"


def one_line(error: Exception, *, most: int = 200) -> str:
    """The text of an error of another library on one line, cut to `most` characters.

    >>> one_line(ValueError("no such\\n  layer"))
    'no such layer'
    """
    return " ".join(str(error).split())[:most]


def first_line(error: Exception) -> str:
    """The first line of the text of an error of another library.

    >>> first_line(RuntimeError("no such device\\nat line 7"))
    'no such device'
    """
    return str(error).partition("\n")[0]


def install_hint(extra: str) -> str:
    """Advice on installing a pip extra of this project.

    >>> install_hint("torch")
    'in a clone of pcaseg run: pip install ".[torch]"'
    """
    return f'in a clone of pcaseg run: pip install ".[{extra}]"'


def raised_by(call: Callable[[], object]) -> Exception | None:
    """Error of a call, None where there is none; with the lines it came from, but without their functions' variables.

    An error would hold those as long as it lives, such as the pixels of an image that could not be read.
    """
    try:
        call()
    except Exception as error:
        raised = error
    else:
        return None
    link: BaseException | None = raised
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    return raised
