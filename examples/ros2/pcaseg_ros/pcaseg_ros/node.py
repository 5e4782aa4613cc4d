"""The node: a lifecycle around a segmenter, with its parameters, topics, service and diagnostics."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger

from pcaseg.errors import PcasegError, system_fault
from pcaseg.runtime import Result, Segmenter
from pcaseg_ros import messages
from pcaseg_ros.parameters import (
    SETTINGS,
    VOCABULARY,
    Setting,
    check_changes,
    completed,
    of_type,
    segmenter_options,
    vocabulary_of,
)
from pcaseg_ros.session import Session
from pcaseg_ros.tally import ERROR, OK, Health

DIAGNOSTICS_PERIOD_S = 1.0


class SegmentationNode(LifecycleNode):
    """Labels images while it is active; a bad value, bundle or frame is one sentence, and it lives on."""

    def __init__(self, **named: Any) -> None:
        """Declares the parameters, and begins to publish diagnostics.

        Args:
            named: of `rclpy.lifecycle.LifecycleNode`.
        """
        super().__init__("pcaseg", **named)
        self._segmenter: Segmenter | None = None
        self._session: Session | None = None
        self._subscription: Any = None
        self._shown: tuple[str, ...] | None = None  # names that the legend holds
        self._fault = ""  # of the last transition
        self._refused: dict[str, str] = {}  # what is wrong with values that the node was started with
        for setting in SETTINGS.values():
            self._declare(setting)
        self.add_pre_set_parameters_callback(self._complete)
        self.add_on_set_parameters_callback(self._judge)
        self.add_post_set_parameters_callback(self._follow)
        self._images = MutuallyExclusiveCallbackGroup()  # so that no service holds frames up
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._diagnose)

    # Parameters

    def _declare(self, setting: Setting) -> None:
        loose = ParameterDescriptor(dynamic_typing=True)
        given = self.declare_parameter(setting.name, setting.default, loose).value
        self.undeclare_parameter(setting.name)
        try:
            value = of_type(setting, given)
            setting.check(value)
        except PcasegError as error:
            self._refused[setting.name] = str(error)
            self.get_logger().error(str(error))
            value = setting.default
        words = ParameterDescriptor(description=setting.description, additional_constraints=setting.constraint)
        self.declare_parameter(setting.name, value, words, ignore_override=True)

    def _values(self) -> dict[str, Any]:
        return {name: self.get_parameter(name).value for name in SETTINGS}

    def _complete(self, parameters: list[Parameter]) -> list[Parameter]:
        """Changes with what follows from them; a whole number where a float is wanted becomes one."""
        found = {parameter.name: parameter for parameter in parameters}
        for name, value in completed({name: one.value for name, one in found.items() if name in SETTINGS}).items():
            if type(SETTINGS[name].default) is float and type(value) is int:
                value = float(value)
            if name not in found or found[name].value is not value:
                found[name] = Parameter(name, value=value)
        return list(found.values())

    def _judge(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        changes = {parameter.name: parameter.value for parameter in parameters if parameter.name in SETTINGS}
        values = self._values()
        try:
            check_changes(changes, values, configured=self._segmenter is not None)
            if self._segmenter is not None and changes.keys() & set(VOCABULARY):
                self._segmenter.prepare(vocabulary_of({**values, **changes}))
        except (PcasegError, OSError) as error:
            return SetParametersResult(successful=False, reason=_sentence(error))
        return SetParametersResult(successful=True)

    def _follow(self, parameters: Sequence[Parameter]) -> None:
        names = {parameter.name for parameter in parameters}
        for name in names:
            self._refused.pop(name, None)
        if self._segmenter is not None and names & set(VOCABULARY):
            self._segmenter.set_vocabulary(vocabulary_of(self._values()))
            self._tell_vocabulary()

    def _tell_vocabulary(self) -> None:
        assert self._segmenter is not None and self._segmenter.vocabulary is not None
        self.get_logger().info(f"{len(self._segmenter.vocabulary.names)} classes from the next frame on")

    def _set_classes(self, message: String) -> None:
        result = self.set_parameters_atomically([Parameter("classes", value=message.data)])
        if not result.successful:
            self.get_logger().error(result.reason)

    def _reload(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        chosen = [self.get_parameter(name) for name in VOCABULARY if self.get_parameter(name).value]
        result = self.set_parameters_atomically(chosen)
        response.success, response.message = result.successful, result.reason
        if result.successful:
            assert self._segmenter is not None and self._segmenter.vocabulary is not None
            response.message = ", ".join(self._segmenter.vocabulary.names)
        return response

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Opens the bundle and makes the topics."""
        return self._attempt(self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begins to label."""
        return self._attempt(lambda: self._activate(state))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends labelling; the bundle stays open."""
        self._end_session()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Closes the bundle and takes the topics away."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Closes everything."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Closes everything, so that the node can be configured anew."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def _attempt(self, work: Callable[[], None]) -> TransitionCallbackReturn:
        """A transition that fails with a sentence; what nobody foresaw is logged whole."""
        try:
            work()
        except (PcasegError, OSError) as error:
            self._fault = _sentence(error)
            self.get_logger().error(self._fault)
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self._fault = f"{type(error).__name__}: {error}"
            self.get_logger().fatal(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        self._fault = ""
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        if self._refused:
            raise PcasegError("; ".join(self._refused.values()))
        values = self._values()
        vocabulary, options = vocabulary_of(values), segmenter_options(values)
        segmenter = Segmenter(values["bundle"], **options)
        try:
            segmenter.set_vocabulary(vocabulary)
            segmenter.stream((), smooth=values["smooth"]).close()  # refuses now what the bundle cannot average
        except BaseException:
            segmenter.close()
            raise
        self._segmenter = segmenter
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._legend = self.create_lifecycle_publisher(messages.LEGEND_TYPE, "~/label_info", latched)
        self._outputs = {
            name: (self.create_lifecycle_publisher(Image, f"~/{name}", values["depth"]), write)
            for name, write in (
                ("confidence", messages.confidence_message),
                ("overlay", messages.overlay_message),
                ("labels", messages.labels_message),
            )
            if values.get(name, True)
        }
        self._control = (
            self.create_subscription(String, "~/set_classes", self._set_classes, 10),
            self.create_service(Trigger, "~/reload_vocabulary", self._reload),
        )
        self.get_logger().info(f"{values['bundle']} is open on {segmenter.backend.name}")

    def _activate(self, state: LifecycleState) -> None:
        assert self._segmenter is not None and self._segmenter.vocabulary is not None
        values = self._values()
        kind, topic = Image, self.resolve_topic_name("image")
        if values["input"] == "compressed":
            kind, topic = CompressedImage, f"{topic}/compressed"
        reliable = values["qos"] == "reliable"
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        session = Session(self._segmenter, values, topic, self._publish, self.get_logger())
        self._session = session
        super().on_activate(state)
        self._show_legend(self._segmenter.vocabulary.names, Header())
        self._subscription = self.create_subscription(
            kind,
            topic,
            lambda message: session.take(message, self.get_parameter("max_rate").value),
            QoSProfile(depth=values["depth"], reliability=policy),
            callback_group=self._images,
            event_callbacks=SubscriptionEventCallbacks(
                message_lost=lambda event: session.tally.count("lost", event.total_count_change)
            ),
        )

    def _end_session(self) -> None:
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
        if self._session is not None:
            self._session.close()
        self._session = self._subscription = None

    def close(self) -> None:
        """Ends labelling, closes the bundle and takes the topics away."""
        self._end_session()
        if self._segmenter is not None:
            self._segmenter.close()
            self._segmenter = None
            for publisher in (self._legend, *(publisher for publisher, _ in self._outputs.values())):
                self.destroy_lifecycle_publisher(publisher)
            subscription, service = self._control
            self.destroy_subscription(subscription)
            self.destroy_service(service)

    # Messages

    def _publish(self, result: Result, header: Header) -> None:
        """Publishes one frame's labels, behind the legend where that has changed."""
        if result.classes != self._shown:
            self._show_legend(result.classes, header)
        for name, (publisher, write) in self._outputs.items():
            if name == "labels" or publisher.get_subscription_count():
                publisher.publish(write(result, header))

    def _show_legend(self, names: tuple[str, ...], header: Header) -> None:
        self._legend.publish(messages.legend_message(names, header))
        self._shown = names

    def _diagnose(self) -> None:
        state, values, session = self._state_machine.current_state[1], self._values(), self._session
        if session is not None:
            health = session.tally.health(time.monotonic(), self.count_publishers(self._subscription.topic_name))
        else:
            health = Health(ERROR if self._fault else OK, self._fault or state, {})
        backend = values["backend"] if self._segmenter is None else self._segmenter.backend.name
        health.values.update(
            {"state": state, "backend": backend, "bundle": values["bundle"], "mode": values["mode"]}
            | {"qos": values["qos"], "classes": str(len(self._names()))}
        )
        message = DiagnosticArray(
            status=[messages.diagnostic_status(f"{self.get_fully_qualified_name()}: labels", backend, health)]
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _names(self) -> tuple[str, ...]:
        vocabulary = None if self._segmenter is None else self._segmenter.vocabulary
        return () if vocabulary is None else vocabulary.names


def _sentence(error: PcasegError | OSError) -> str:
    return system_fault(error) if isinstance(error, OSError) else str(error)


def main(args: Sequence[str] | None = None) -> None:
    """Runs the node until it is interrupted."""
    rclpy.init(args=args)
    node, executor = SegmentationNode(), MultiThreadedExecutor(num_threads=2)
    executor.add_node(node)
    try:
        if node.get_parameter("autostart").value and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()
        executor.spin()
    except KeyboardInterrupt:
        pass
    except Exception:  # of a signal; or a callback published while it came
        if rclpy.ok():
            raise
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
