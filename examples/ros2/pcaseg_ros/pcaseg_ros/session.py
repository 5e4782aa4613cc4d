"""Sessions: what runs between activation and deactivation, from a subscription's messages to published labels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import rclpy
from rclpy.impl.rcutils_logger import RcutilsLogger
from std_msgs.msg import Header

from pcaseg.runtime import Frame, Result, Segmenter
from pcaseg.runtime.ros_images import image_of
from pcaseg_ros.inbox import Inbox, Pace
from pcaseg_ros.tally import Tally

UNDER_WAY = 3
"""Frames in the stream at once: its steps overlap, and the newest is not old."""

LOG_PERIOD_S = 5.0
"""Errors of frames are logged so often at most; the diagnostics count all."""


class Session:
    """Messages in, labels out; decoding, network and publishing have threads of their own."""

    def __init__(
        self,
        segmenter: Segmenter,
        values: Mapping[str, Any],
        topic: str,
        publish: Callable[[Result, Header], None],
        logger: RcutilsLogger,
    ) -> None:
        """Starts the stream.

        Args:
            segmenter: with its vocabulary set; the stream follows it.
            values: of the parameters.
            topic: of the images, as errors name it.
            publish: called with each result and its frame's header, in a thread of the session.
            logger: of the node.

        Raises:
            PcasegError: as `Segmenter.stream`.
        """
        self.tally = Tally(topic, time.monotonic())
        self._topic, self._publish, self._logger = topic, publish, logger
        self._bits = segmenter.bits
        self._inbox, self._pace = Inbox(values["depth"]), Pace()
        self._stream = segmenter.stream(self._inbox, mode=values["mode"], queue=UNDER_WAY, smooth=values["smooth"])
        self._logged_s = -LOG_PERIOD_S
        self._consumer = threading.Thread(target=self._consume, name="pcaseg-publish")
        self._consumer.start()

    def take(self, message: Any, max_rate: float) -> None:
        """Takes an Image or CompressedImage; it is decoded later, in the stream."""
        now_s = time.monotonic()
        self.tally.came(now_s)
        if not self._pace.takes(now_s, max_rate):
            self.tally.count("paced")
            return
        decode = partial(image_of, message, name=self._topic, bits=self._bits)
        self.tally.count("overflowed", self._inbox.put(Frame(decode, now_s, message.header)))

    def close(self) -> None:
        """Ends the threads; frames under way are lost."""
        self._inbox.close()
        self._stream.close()
        self._consumer.join()

    def _consume(self) -> None:
        for item in self._stream:
            self.tally.count("overtaken", item.dropped)
            error = item.error
            if item.result is not None:
                try:
                    self._publish(item.result, item.tag)
                except Exception as failure:
                    if not rclpy.ok():
                        return  # the program ends
                    error = failure
            if error is None:
                self.tally.labelled((time.monotonic() - item.timestamp) * 1e3)
            else:
                self.tally.failed(str(error))
                self._log(str(error))

    def _log(self, sentence: str) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s >= LOG_PERIOD_S:
            self._logged_s = now_s
            self._logger.error(sentence)
