"""Video files and cameras: frames in through FFmpeg's libraries (PyAV), labels out as video."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from pcaseg.errors import MissingDependencyError, OutputError, PcasegError, VocabularyError, install_hint, one_line
from pcaseg.files import atomic_path
from pcaseg.paths import exists
from pcaseg.runtime.overlay import draw_overlay
from pcaseg.runtime.result import Result
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.sources import is_live
from pcaseg.runtime.stream import Frame

try:
    import av
except ImportError as error:
    raise MissingDependencyError(f"video needs PyAV ({error}); {install_hint('video')}") from error

_CLOCK = Fraction(1, 90_000)
"""Seconds of one tick of written timestamps: that of broadcasting, in which usual frame rates are whole numbers."""

_SHORT_S = 0.5
"""How much earlier than its header says a file may end before that is reported."""


class VideoError(PcasegError):
    """A video or camera cannot be read."""


@dataclass
class LabelledVideo:
    """Outcome of `segment_video`.

    Attributes:
        done: frames labelled.
        dropped: frames of a camera that came while older ones were labelled.
        failed: what was wrong with each frame that could not be labelled.
        ended: says that the source ended before its time; None of a whole one.
        files: the videos written, and the legend.
    """

    done: int = 0
    dropped: int = 0
    failed: list[str] = field(default_factory=list)
    ended: str | None = None
    files: tuple[Path, ...] = ()

    def said(self) -> str:
        """The counts in words."""
        counts = f"{self.done} frames labelled, {len(self.failed)} failed"
        return f"{counts}, {self.dropped} dropped" if self.dropped else counts


class Video:
    """Frames of a video file or a camera, upright, with the times at which they are shown.

    After the last frame, `ended` says whether that was too early: file cut off, camera gone.
    """

    def __init__(
        self, source: str | os.PathLike[str], *, every: int = 1, start: float = 0, end: float | None = None
    ) -> None:
        """Opens a video.

        Args:
            source: a file, an address such as `rtsp://HOST/PATH`, or a camera's device such as `/dev/video0`.
            every: keep one of so many frames.
            start, end: seconds of the video between which frames are kept.

        Raises:
            VideoError: it cannot be opened, or has no pictures.
            PcasegError: `every` below 1, or an end before the start.
        """
        if every < 1:
            raise PcasegError(f"every={every}: give 1 or more")
        if start < 0 or (end is not None and end <= start):
            raise PcasegError(f"start={start:g}, end={end}: give seconds from 0, the end behind the start")
        self.source = os.fspath(source)
        self.ended: str | None = None
        self._every, self._start, self._end = every, start, end
        if is_live(self.source) and start:
            raise PcasegError(f"{self.source}: a camera has no start to skip to; leave --start out")
        if "://" not in self.source and not exists(self.source, error=VideoError):
            raise VideoError(f"{self.source}: no such video; check the path")
        form = "v4l2" if self.source.startswith("/dev/video") else None
        try:
            self._container: Any = av.open(self.source, format=form)
            streams = self._container.streams.video
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{self.source}: cannot be read as video ({_reason(error)}); check the source") from error
        if not streams:
            self._container.close()
            raise VideoError(f"{self.source}: has no pictures; give a video")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def frames(self) -> int | None:
        """Number of frames that are kept, as far as the header tells."""
        seconds = self._seconds()
        if seconds is None:
            return None
        shown = min(seconds, self._end or seconds) - self._start
        return max(0, round(shown * float(self.rate) / self._every)) or None

    def __iter__(self) -> Iterator[Frame]:
        """Frames with their times in seconds, RGB."""
        self.ended, last, kept, index = None, 0.0, 0, -1
        try:
            if self._start:
                self._container.seek(int(self._start * av.time_base))
            for frame in self._container.decode(self._stream):
                index += 1
                last = float(frame.time) if frame.time is not None else index / float(self.rate)
                if last < self._start:
                    continue
                if self._end is not None and last >= self._end:
                    return
                if kept % self._every == 0:
                    yield Frame(_Upright(frame), last)
                kept += 1
        except (av.FFmpegError, OSError) as error:
            self.ended = f"{self.source}: ends at {last:.2f} s ({_reason(error)})"
            return
        seconds = self._seconds()
        if is_live(self.source):
            self.ended = f"{self.source}: sends no more frames since {last:.2f} s"
        elif index < 0:
            self.ended = f"{self.source}: holds no frame that can be read"
        elif seconds is not None and last + 1 / float(self.rate) < seconds - _SHORT_S:
            self.ended = f"{self.source}: ends at {last:.2f} s of {seconds:.2f} s"

    def _seconds(self) -> float | None:
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return None if self._container.duration is None else self._container.duration / av.time_base


class _Upright:
    """A decoded frame, converted in the thread that reads it; the camera's rotation is applied."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def __call__(self) -> np.ndarray:
        pixels: np.ndarray = self._frame.to_ndarray(format="rgb24")
        return np.ascontiguousarray(np.rot90(pixels, round(self._frame.rotation / 90) % 4))


def segment_video(
    segmenter: Segmenter,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    every: int = 1,
    start: float = 0,
    end: float | None = None,
    smooth: float = 0.0,
    progress: bool = False,
) -> LabelledVideo:
    """Labels a video: overlays with a legend, and the labels themselves without loss.

    Of `--out clip.mp4`, `clip.mp4` shows the overlays (H.264), `clip.labels.mkv` holds the label of every pixel as its
    grey value (FFV1; 8 bits up to 256 classes, else 16), and `clip.json` the names; both with the times of the source,
    counted from the first frame. A camera is labelled until it ends or Ctrl-C, frames that come too fast are dropped.

    Args:
        segmenter: with its vocabulary set.
        source, every, start, end: see `Video`.
        out: of FFmpeg's kinds that hold H.264, such as .mp4 and .mkv.
        smooth: see `Segmenter.stream`.
        progress: show a progress bar on standard error.

    Raises:
        VideoError: the source cannot be read, or no frame of it.
        OutputError: an output stands already or cannot be written.
        VocabularyError: the segmenter has no vocabulary.
    """
    vocabulary = segmenter.vocabulary
    if vocabulary is None:
        raise VocabularyError("no vocabulary: call set_vocabulary with class names before segmenting")
    shown = Path(out)
    files = (shown, shown.with_suffix(".labels.mkv"), shown.with_suffix(".json"))
    for path in files:
        if exists(path, error=OutputError):
            raise OutputError(f"{path}: stands already; choose another name, or remove it")
    found, live = LabelledVideo(files=files), is_live(source)
    with Video(source, every=every, start=start, end=end) as video, ExitStack() as kept:
        overlays, labels, legend = (kept.enter_context(atomic_path(path)) for path in files)
        bar = kept.enter_context(tqdm(total=video.frames, desc="segment", unit="frame", disable=not progress))
        with (
            _Written(overlays, "libx264", {"crf": "18"}, video.rate) as pictures,
            _Written(labels, "ffv1", {}, video.rate) as maps,
            segmenter.stream(video, mode="latest" if live else "every", queue=3, smooth=smooth) as stream,
        ):
            try:
                for item in stream:
                    bar.update()
                    found.dropped += item.dropped
                    if item.result is None:
                        found.failed.append(f"{video.source}: at {item.timestamp:.2f} s: {item.error}")
                        continue
                    try:
                        maps.add(np.asarray(item.result.label_picture()), item.timestamp)
                    except PcasegError as error:
                        found.failed.append(f"{video.source}: {error}")
                        continue
                    pictures.add(_overlay(item.result, pictures.size), item.timestamp)
                    found.done += 1
            except KeyboardInterrupt:
                if not live:
                    raise
        found.ended = video.ended
        if not found.done:
            raise VideoError(found.ended or (found.failed or [f"{video.source}: has no frame in that time"])[0])
        legend.write_text(
            json.dumps(
                {
                    "source": video.source,
                    "labels": files[1].name,
                    "classes": list(vocabulary.names),
                    "frames": found.done,
                    "backend": segmenter.backend.name,
                    "weights": segmenter.backend.manifest.weights.kind,
                },
                indent=2,
            ),
            encoding="utf-8",
        )
    return found


class _Written:
    """A video file that takes its size from its first picture."""

    def __init__(self, path: Path, codec: str, options: dict[str, str], rate: Fraction) -> None:
        self._path, self._codec, self._options, self._rate = path, codec, options, rate
        self._first_s, self._last = 0.0, -1
        self._stream: Any = None
        self.size: tuple[int, int] | None = None
        try:
            self._container: Any = av.open(str(path), "w")
        except (av.FFmpegError, ValueError) as error:
            raise OutputError(
                f"{path.name}: cannot be written ({_reason(error)}); choose an ending such as .mp4"
            ) from error

    def __enter__(self) -> _Written:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def add(self, picture: np.ndarray, time_s: float) -> None:
        """Writes `(H, W, 3)` RGB or `(H, W)` grey, shown from that time.

        Raises:
            PcasegError: another size than the first's.
        """
        form = {2: "gray" if picture.dtype == np.uint8 else "gray16le", 3: "rgb24"}[picture.ndim]
        if self._stream is None:
            self._first_s, self.size = time_s, picture.shape[:2]
            self._stream = self._container.add_stream(self._codec, rate=self._rate, options=self._options)
            self._stream.height, self._stream.width = self.size
            self._stream.pix_fmt = "yuv420p" if form == "rgb24" else form
            self._stream.codec_context.time_base = self._stream.time_base = _CLOCK
        elif picture.shape[:2] != self.size:
            raise PcasegError(f"at {time_s:.2f} s: the picture's size changes; label that part as a video of its own")
        frame = av.VideoFrame.from_ndarray(picture, format=form)
        self._last = max(round((time_s - self._first_s) / _CLOCK), self._last + 1)
        frame.pts, frame.time_base = self._last, _CLOCK
        self._container.mux(self._stream.encode(frame))


def _overlay(result: Result, size: tuple[int, int] | None) -> np.ndarray:
    """The overlay on ground of one size for all frames: that with every class in the legend."""
    overlay = result.overlay()
    if size is None:
        every = np.ones(len(result.classes), np.int64)
        width, height = draw_overlay(result.image, result.labels, result.classes, every).size
        width, height = max(width, overlay.width), max(height, overlay.height)
        size = height + height % 2, width + width % 2  # H.264 halves its colours
    ground = Image.new("RGB", size[::-1], overlay.getpixel((overlay.width - 1, overlay.height - 1)))
    ground.paste(overlay, (0, 0))
    return np.asarray(ground)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or one_line(error) or type(error).__name__
