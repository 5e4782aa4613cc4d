"""Parameters of the node: defaults, words and checks. Nothing here needs ROS."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pcaseg.class_syntax import read_classes, split_classes
from pcaseg.configs import Strategy, check_choice
from pcaseg.errors import PcasegError, VocabularyError
from pcaseg.pictures import check_bits
from pcaseg.runtime import backend_names
from pcaseg.runtime.onnx_backend import MOST_THREADS
from pcaseg.runtime.smoothing import check_smooth
from pcaseg.runtime.stream import StreamMode
from pcaseg.runtime.vocabulary import VocabularySpec, resolve_vocabulary

InputKind = Literal["raw", "compressed"]
QosKind = Literal["reliable", "sensor_data"]
Value = bool | int | float | str

MOST_DEPTH = 1000


def _anything(value: Any) -> None:
    """Accepts every value of the parameter's type."""


@dataclass(frozen=True)
class Setting:
    """One parameter.

    Attributes:
        name: of the parameter.
        default: value and type.
        description: one line for its descriptor.
        constraint: values that it takes, in words.
        check: raises a `PcasegError` for a value of the right type that it does not take.
        live: may change while the node is configured.
    """

    name: str
    default: Value
    description: str
    constraint: str = ""
    check: Callable[[Any], None] = _anything
    live: bool = False


def _one_of(name: str, choices: object) -> dict[str, Any]:
    """Constraint and check of a parameter that takes one of the strings of a `Literal` type."""
    return {"constraint": ", ".join(get_args(choices)), "check": lambda value: check_choice(value, choices, what=name)}


def _between(name: str, least: float, most: float = math.inf) -> dict[str, Any]:
    """Constraint and check of a number within bounds; NaN and infinity are none."""
    words = f"{least} or more" if most == math.inf else f"{least} to {most}"

    def check(value: float) -> None:
        if not least <= value <= most or math.isinf(value):
            raise PcasegError(f"{name}={value}: give {words}")

    return {"constraint": words, "check": check}


def _check_backend(value: str) -> None:
    if value not in backend_names():
        raise PcasegError(f"backend={value!r}: choose one of {', '.join(backend_names())}")


def _check_classes(value: str) -> None:
    if value:
        read_classes(split_classes(value), source="classes")


def _check_vocabulary(value: str) -> None:
    if value:
        resolve_vocabulary(value)


def _check_strategy(value: str) -> None:
    if value:
        check_choice(value, Strategy, what="strategy")


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("bundle", "", "Path of the bundle, a folder or a zip file that pcaseg export wrote"),
        Setting("backend", "onnxruntime", "What runs the network", "a backend of pcaseg doctor", _check_backend),
        Setting("device", "", "Device of the backend, such as cpu or cuda", "empty for the backend's default"),
        Setting("threads", 0, "CPU threads, 0 for the backend's default", **_between("threads", 0, MOST_THREADS)),
        Setting("strategy", "", "How images are cut", "single, sliding or empty for the bundle's own", _check_strategy),
        Setting("shortlist", 0, "Classes of each window that are aggregated at most, as the bundle was exported; "
                "0 for the bundle's own", **_between("shortlist", 0)),
        Setting("bits", 0, "Bits that samples of 16 use, such as 12", "0 for all, or 8 to 16",
                lambda value: check_bits(value or None)),
        Setting("smooth", 0.0, "Weight of the frames before in an average of the scores", "0 (off) to below 1",
                check_smooth),
        Setting("classes", "", "Class names, as one string", "names between commas, or between semicolons",
                _check_classes, live=True),
        Setting("vocabulary", "", "Class names from elsewhere, in place of classes",
                "a .safetensors, .txt, .csv, .tsv or .json file, or a class list such as ade20k_150",
                _check_vocabulary, live=True),
        Setting("input", "raw", "Images at image, or compressed ones at image/compressed",
                **_one_of("input", InputKind)),
        Setting("mode", "latest", "Which frames are labelled: latest drops those that newer ones overtake",
                **_one_of("mode", StreamMode)),
        Setting("qos", "sensor_data", "Reliability of the subscription", **_one_of("qos", QosKind)),
        Setting("depth", 10, "Frames that wait at most, in the transport and in the node; the oldest go first",
                **_between("depth", 1, MOST_DEPTH)),
        Setting("max_rate", 0.0, "Frames per second that are taken at most, 0 for all", live=True,
                **_between("max_rate", 0)),
        Setting("overlay", False, "Publish ~/overlay: the image under the colours of its classes"),
        Setting("confidence", False, "Publish ~/confidence: the score of each pixel's class"),
        Setting("autostart", False, "Configure and activate when the program starts"),
    )
}  # fmt: skip

VOCABULARY = ("classes", "vocabulary")
"""The parameters that name the classes, of which one is set."""


def completed(changes: Mapping[str, Value]) -> dict[str, Value]:
    """Changes with what follows from them: of `classes` and `vocabulary`, to set one empties the other."""
    found = dict(changes)
    for one, other in (VOCABULARY, VOCABULARY[::-1]):
        if found.get(one) and other not in found:
            found[other] = ""
    return found


def of_type(setting: Setting, value: Any) -> Any:
    """The value as the parameter's type: a whole number is a float where one is wanted.

    Raises:
        PcasegError: the value is of another type.
    """
    wanted = type(setting.default)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise PcasegError(f"{setting.name}: got {value!r}, which is no {wanted.__name__}; give one")
    return value


def check_changes(changes: Mapping[str, Value], values: Mapping[str, Value], *, configured: bool) -> None:
    """Refuses changes that the node cannot follow.

    Args:
        changes: new values, of the parameters' types.
        values: all values before.
        configured: the node is configured, so that only what is live may change.

    Raises:
        PcasegError: says what to do instead.
    """
    for name, value in changes.items():
        if configured and not SETTINGS[name].live and value != values[name]:
            raise PcasegError(f"{name}: is read when the node is configured; clean the node up, then set it")
        SETTINGS[name].check(value)
    if configured:
        vocabulary_of({**values, **changes})


def vocabulary_of(values: Mapping[str, Any]) -> VocabularySpec:
    """The vocabulary that the parameters name.

    Raises:
        VocabularyError: none, or two.
    """
    classes, vocabulary = (values[name] for name in VOCABULARY)
    if bool(classes) == bool(vocabulary):
        found = "both set; empty one of them" if classes else 'both empty; set one, such as classes to "road, car, sky"'
        raise VocabularyError(f"classes and vocabulary: are {found}")
    return read_classes(split_classes(classes), source="classes") if classes else str(vocabulary)


def segmenter_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `pcaseg.Segmenter` but the bundle.

    Raises:
        PcasegError: no bundle is named.
    """
    if not values["bundle"]:
        raise PcasegError("bundle: is empty; set it to the path of a bundle that pcaseg export wrote")
    optional = ("device", "threads", "strategy", "bits", "shortlist")
    return {"backend": values["backend"], **{name: values[name] or None for name in optional}}
