"""GStreamer: frames of any source through a segmenter, the labels drawn over them into any sink.

    SOURCE ! videoconvert ! RGB ! appsink -> Segmenter.stream -> appsrc ! videoconvert ! SINK

    python examples/gstreamer_labels.py --bundle scene.pcaseg --source "filesrc location=in.ogv ! decodebin" \\
        --sink "theoraenc ! oggmux ! filesink location=seen.ogv"
    python examples/gstreamer_labels.py --bundle scene.pcaseg --source "v4l2src ! decodebin" --mode latest

It needs GStreamer 1.16 or newer and PyGObject of the system, and pcaseg in an environment that sees them; no torch:

    sudo apt-get install python3-venv python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base
    sudo apt-get install gstreamer1.0-plugins-good  # cameras, PNG, WebM
    /usr/bin/python3 -m venv --system-site-packages .venv && .venv/bin/pip install ".[onnxruntime]"

A bundle comes from `pcaseg export`; a vocabulary file of `pcaseg vocab` saves loading the text encoder. Each frame
keeps its time. With `--mode latest` those that come while older ones are labelled are dropped, as a camera wants it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pcaseg
from pcaseg.errors import PcasegError, reported
from pcaseg.runtime import Frame, StreamItem
from pcaseg.runtime.palette import class_colours

try:
    import gi

    for name in ("Gst", "GstApp", "GstVideo"):  # GstApp gives appsink and appsrc their methods
        gi.require_version(name, "1.0")
    from gi.repository import GLib, Gst, GstApp, GstVideo  # noqa: F401
except (ImportError, ValueError) as error:
    print(f"error: no GStreamer in this Python ({error}); install what the head of {__file__} names", file=sys.stderr)
    sys.exit(2)

CLASSES = ["car", "house", "tree", "boat", "ball", "mug", "sky", "grass", "water", "road", "sand"]
RGB = "videoconvert ! video/x-raw,format=RGB ! appsink name=frames sync=false max-buffers=2"
WAITING_BYTES = 16 << 20  # painted frames that the sink has not taken yet, at most


class Pipeline:
    """A pipeline of GStreamer that runs until the end of the block."""

    def __init__(self, described: str) -> None:
        """Makes it of what `gst-launch-1.0` takes.

        Raises:
            PcasegError: GStreamer does not take it.
        """
        try:
            self.made = Gst.parse_launch(described)
        except GLib.Error as error:
            raise PcasegError(f"{described}: {error.message}; try it with gst-launch-1.0") from error
        self.described, self._ended = described, False

    def __enter__(self) -> Pipeline:
        self.made.set_state(Gst.State.PLAYING)
        return self

    def __exit__(self, *_: object) -> None:
        self.made.set_state(Gst.State.NULL)

    def has_ended(self, patience_ns: int = 0) -> bool:
        """True once the last buffer has passed.

        Raises:
            PcasegError: an element failed.
        """
        if self._ended:
            return True
        kinds = Gst.MessageType.EOS | Gst.MessageType.ERROR
        message = self.made.get_bus().timed_pop_filtered(patience_ns, kinds)
        if message is not None and message.type == Gst.MessageType.ERROR:
            error, _ = message.parse_error()
            raise PcasegError(f"{self.described}: {error.message}; try it with gst-launch-1.0")
        self._ended |= message is not None
        return self._ended


def frames(source: str) -> Iterator[Frame]:
    """Frames (H, W, 3) uint8 RGB with their times in nanoseconds; the caps travel with each.

    Raises:
        PcasegError: the source fails.
    """
    with Pipeline(f"{source} ! {RGB}") as pipeline:
        sink = pipeline.made.get_by_name("frames")
        while True:
            sample = sink.try_pull_sample(Gst.SECOND // 10)
            if sample is not None:
                buffer = sample.get_buffer()
                yield Frame(pixels(buffer, sample.get_caps()), buffer.pts, (sample.get_caps(), buffer.duration))
            elif pipeline.has_ended():
                return


def pixels(buffer: Any, caps: Any) -> np.ndarray:
    """A copy of a buffer's pixels; its rows begin at multiples of four bytes."""
    info = GstVideo.VideoInfo.new_from_caps(caps)
    rows = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8)[info.offset[0] :]
    return rows.reshape(info.height, info.stride[0])[:, : 3 * info.width].reshape(info.height, info.width, 3)


def painted(item: StreamItem) -> Any:
    """A buffer with the frame under its class colours, of the frame's size and time."""
    result, (caps, duration) = item.result, item.tag
    assert result is not None  # frames that failed are not painted
    info = GstVideo.VideoInfo.new_from_caps(caps)
    rows = np.zeros((info.height, info.stride[0]), np.uint8)
    mixed = result.image // 2 + class_colours(result.classes)[result.labels] // 2
    rows[:, : 3 * info.width] = mixed.reshape(info.height, -1)
    buffer = Gst.Buffer.new_wrapped(rows.tobytes())
    buffer.pts, buffer.duration = item.timestamp, duration
    return buffer


def main() -> int:
    """Labels every frame; prints how many, and what was wrong with those that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="bundle of pcaseg export")
    parser.add_argument(
        "--vocabulary", help="file of pcaseg vocab, list of names or class list (default: names that tiny knows)"
    )
    parser.add_argument("--source", default="videotestsrc num-buffers=30", help="as gst-launch-1.0 takes it")
    parser.add_argument("--sink", default="autovideosink", help="as gst-launch-1.0 takes it")
    parser.add_argument("--mode", choices=("every", "latest"), default="every")
    options = parser.parse_args()

    Gst.init(None)
    done, failed = 0, 0
    writing = Pipeline(f"appsrc name=labels format=time ! videoconvert ! {options.sink}")
    with pcaseg.Segmenter(options.bundle) as segmenter, writing:
        labels = writing.made.get_by_name("labels")
        segmenter.set_vocabulary(options.vocabulary or CLASSES)
        with segmenter.stream(frames(options.source), mode=options.mode) as stream:
            for item in stream:
                while labels.get_current_level_bytes() > WAITING_BYTES and not writing.has_ended(Gst.SECOND // 100):
                    pass
                if writing.has_ended():
                    break
                if item.error is not None:
                    failed += 1
                    print(f"frame {item.index}: {item.error}", file=sys.stderr)
                    continue
                done += 1
                labels.set_caps(item.tag[0])
                labels.push_buffer(painted(item))
            dropped = stream.dropped
        labels.end_of_stream()
        writing.has_ended(Gst.CLOCK_TIME_NONE)
    print(f"{done} frames labelled, {failed} failed, {dropped} dropped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(reported(main))
