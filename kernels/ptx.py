"""PTX whose entry takes what a caller passes: inputs, scalars, output, and none of Triton's own parameters.

Triton appends two pointers to every entry, to global scratch and to a profiler's. Kernels that need neither never read
them, and then they may go: TensorRT passes just what it is told of.
"""

from __future__ import annotations

import re

from pcaseg.errors import PcasegError

_ENTRY = re.compile(r"(\.entry\s+(\w+)\s*\()([^)]*)(\))")


def entry_parameters(ptx: str) -> list[tuple[str, str]]:
    """Type and name of each parameter of a module's one entry, such as `(u64, NAME_param_0)`.

    Raises:
        PcasegError: there is no entry, or more than one.
    """
    entries = _ENTRY.findall(ptx)
    if len(entries) != 1:
        raise PcasegError(f"the PTX has {len(entries)} entries, not one; compile one kernel at a time")
    found = []
    for text in filter(None, (part.strip() for part in entries[0][2].split(","))):
        words = text.split()
        kind = next(word for word in words[1:] if re.fullmatch(r"\.[usbf]\d+", word))
        found.append((kind[1:], words[-1]))
    return found


def without_scratch(ptx: str, arguments: int) -> str:
    """Drops the parameters behind the first `arguments`.

    Raises:
        PcasegError: the entry has fewer, or more than two behind them, or one of those is read.
    """
    parameters = entry_parameters(ptx)
    surplus = [name for _, name in parameters[arguments:]]
    if len(parameters) < arguments or len(surplus) > 2:
        raise PcasegError(
            f"the PTX takes {len(parameters)} parameters for {arguments} arguments; report your Triton version"
        )
    head, name, inner, close = next(iter(_ENTRY.findall(ptx)))
    body = ptx[ptx.index(head) + len(head) + len(inner) :]
    read = [parameter for parameter in surplus if re.search(rf"\b{parameter}\b", body)]
    if read:
        raise PcasegError(f"{name} reads {', '.join(read)}, memory that only Triton's own launcher gives; report this")
    kept = ",".join(inner.split(",")[:arguments])
    return ptx.replace(head + inner + close, head + kept.rstrip() + "\n" + close, 1)
