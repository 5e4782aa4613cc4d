"""A ROS graph on the loopback: the node and the camera in processes of their own, and this process, which checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

for _name in ("rclpy", "vision_msgs"):
    pytest.importorskip(_name, reason="ROS 2 is not installed here; run make test-ros")

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from publisher import CLASSES, FIRST_S, encoded, message, quality
from rcl_interfaces.srv import DescribeParameters, SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger
from vision_msgs.msg import LabelInfo

HERE = Path(__file__).parent
WITHOUT_VISION_MSGS = "import sys; sys.modules['vision_msgs'] = None; from pcaseg_ros.node import main; main()"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
WARM = 1_000_000
"""Frames of this number and above are no test's: they show that the graph has found itself."""

TRANSITIONS = {
    name: getattr(Transition, f"TRANSITION_{name.upper()}")
    for name in ("configure", "activate", "deactivate", "cleanup")
} | {"shutdown": Transition.TRANSITION_INACTIVE_SHUTDOWN}


class Robot:
    """One domain: everything that a test starts in it ends with it."""

    def __init__(self, domain: int, folder: Path, bundle: Path) -> None:
        self._variables = {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        self._variables |= {"ROS_LOG_DIR": str(folder / "ros"), "OMP_NUM_THREADS": "1"}
        os.environ.update(self._variables)
        self._folder, self._bundle = folder, bundle
        self._processes: list[subprocess.Popen] = []
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("checker", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin)
        self.labels: list[Image] = []
        self.legends: list[Any] = []
        self.diagnostics: list[DiagnosticArray] = []

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()

    def __enter__(self) -> Robot:
        self.listen(Image, "/pcaseg/labels", self.labels, QoSProfile(depth=1000))
        self.listen(DiagnosticArray, "/diagnostics", self.diagnostics, QoSProfile(depth=10))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()  # what is killed leaves its shared memory behind
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        self._context.try_shutdown()
        self._thread.join()

    # The node's process

    def start(self, *words: str, code: str = "", **parameters: Any) -> subprocess.Popen:
        """Starts the node, or Python code, with these parameters beside bundle and classes; more words come behind."""
        given = {"bundle": str(self._bundle), "classes": CLASSES, "threads": 1, "mode": "every", "qos": "reliable"}
        arguments = [f"{name}:={json.dumps(value)}" for name, value in (given | parameters).items()]
        executable = Path(get_package_prefix("pcaseg_ros")) / "lib" / "pcaseg_ros" / "segment"
        command = [sys.executable, *(("-c", code) if code else (str(executable),)), "--ros-args"]
        command += [word for argument in arguments for word in ("-p", argument)]
        command += ["-r", "image:=/camera/image_raw", *words]
        with (self._folder / "log.txt").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self._processes.append(process)
        return process

    def started(self, *words: str, **parameters: Any) -> subprocess.Popen:
        """Starts the node, makes it active, and waits until its labels come here."""
        process = self.start(*words, **parameters)
        assert self.transition("configure") and self.transition("activate"), self.log()
        if parameters.get("input", "raw") == "raw":
            self.warm_up(parameters.get("qos", "reliable"))
        return process

    def warm_up(self, qos: str = "reliable") -> None:
        """Publishes frames until labels of one come."""
        before, sent = len(self.labels), [0.0]
        publisher = self.node.create_publisher(Image, "/camera/image_raw", quality(qos, depth=1))
        warm = message(WARM, (96, 128), "rgb8", encoded(WARM, (96, 128), "rgb8"))

        def labelled() -> bool:
            if publisher.get_subscription_count() and time.monotonic() - sent[0] > 1:
                publisher.publish(warm)
                sent[0] = time.monotonic()
            return len(self.labels) > before

        self.wait(labelled)
        self.node.destroy_publisher(publisher)

    def log(self) -> str:
        """What the node has printed."""
        return (self._folder / "log.txt").read_text()

    def camera(self, count: int, **options: Any) -> subprocess.Popen:
        """Starts a process that publishes frames."""
        words = [sys.executable, str(HERE / "publisher.py"), "--count", str(count)]
        for name, value in options.items():
            words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        return process

    def publish(self, count: int, **options: Any) -> float:
        """Publishes frames, and gives how many there were in a second."""
        said, _ = self.camera(count, **options).communicate(timeout=120)
        report = json.loads(said)
        return (report["frames"] - 1) / report["seconds"] if count > 1 else 0.0

    # The graph

    def listen(self, kind: Any, topic: str, into: list, profile: QoSProfile) -> None:
        """Collects the messages of a topic."""
        self.node.create_subscription(kind, topic, into.append, profile)

    def wait(self, done: Callable[[], Any], *, within_s: float = 60.0, every_s: float = 0.02) -> Any:
        """Waits for something to become true, and gives it."""
        deadline = time.monotonic() + within_s
        while not (found := done()):
            assert time.monotonic() < deadline, self.log()
            time.sleep(every_s)
        return found

    def call(self, kind: Any, service: str, request: Any) -> Any:
        """The answer of a service."""
        client = self.node.create_client(kind, service)
        self.wait(client.service_is_ready)
        future = client.call_async(request)
        self.wait(future.done)
        self.node.destroy_client(client)
        return future.result()

    def transition(self, name: str) -> bool:
        """Asks for a transition of the lifecycle."""
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[name]))
        return self.call(ChangeState, "/pcaseg/change_state", request).success

    def state(self) -> str:
        return self.call(GetState, "/pcaseg/get_state", GetState.Request()).current_state.label

    def set(self, **values: Any) -> str:
        """Sets parameters; the reason of a refusal, or nothing."""
        messages = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParametersAtomically.Request(parameters=messages)
        result = self.call(SetParametersAtomically, "/pcaseg/set_parameters_atomically", request).result
        assert result.successful != bool(result.reason)
        return result.reason

    def describe(self, *names: str) -> list:
        request = DescribeParameters.Request(names=list(names))
        return self.call(DescribeParameters, "/pcaseg/describe_parameters", request).descriptors

    def tell(self, topic: str, text: str) -> None:
        """Publishes a string, once somebody listens."""
        publisher = self.node.create_publisher(String, topic, 1)
        self.wait(publisher.get_subscription_count)
        publisher.publish(String(data=text))

    # What came

    def numbers(self) -> list[int]:
        """Numbers of the frames whose labels came, in the order of their coming."""
        return [number for number in map(number_of, list(self.labels)) if number < WARM]

    def came(self, count: int, *, within_s: float = 60.0) -> list[Image]:
        """Labels of a test's frames, once there are so many."""
        self.wait(lambda: len(self.numbers()) >= count, within_s=within_s)
        return [message for message in list(self.labels) if number_of(message) < WARM]

    def health(self, wanted: Callable[[Any, dict[str, str]], bool]) -> tuple[Any, dict[str, str]]:
        """Status and values of the first diagnostics to come that are as wanted."""
        self.diagnostics.clear()

        def find():
            for array in list(self.diagnostics):
                (status,) = array.status
                values = {pair.key: pair.value for pair in status.values}
                if wanted(status, values):
                    return status, values
            return None

        return self.wait(find)


def number_of(message: Any) -> int:
    """Number of the frame that a message belongs to, by its stamp."""
    number = message.header.stamp.sec - FIRST_S
    assert message.header.stamp.nanosec == number and message.header.frame_id == "camera_optical"
    return number


def pixels(message: Image) -> np.ndarray:
    """The array of an image message without gaps between rows."""
    kind, shape = {
        "mono8": (np.uint8, ()),
        "16UC1": ("<u2", ()),
        "32FC1": ("<f4", ()),
        "rgb8": (np.uint8, (3,)),
    }[message.encoding]
    assert message.step * message.height == len(message.data) and not message.is_bigendian
    return np.frombuffer(message.data, kind).reshape(message.height, message.width, *shape)


__all__ = [
    "LATCHED",
    "WARM",
    "WITHOUT_VISION_MSGS",
    "CompressedImage",
    "Image",
    "LabelInfo",
    "QoSProfile",
    "Robot",
    "String",
    "Trigger",
    "number_of",
    "pixels",
]
