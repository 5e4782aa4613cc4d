"""Starts the node, configured and active: ros2 launch pcaseg_ros pcaseg.launch.py bundle:=... classes:=..."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

DEFAULTS = Path(get_package_share_directory("pcaseg_ros")) / "config" / "pcaseg.yaml"
ARGUMENTS = {
    "params_file": (str(DEFAULTS), "YAML file of parameters; the arguments below come before it"),
    "image": ("/camera/image_raw", "topic of the images; of compressed ones without its /compressed"),
    "bundle": ("", "path of the bundle"),
    "classes": ("", 'class names in one string, such as "road, car, sky"'),
    "vocabulary": ("", "file of class names, or a class list such as ade20k_150"),
    "backend": ("", "what runs the network"),
    "name": ("pcaseg", "name of the node"),
    "namespace": ("", "namespace of the node"),
    "autostart": ("true", "configure and activate at once"),
}


def generate_launch_description() -> LaunchDescription:
    """Arguments and the node."""
    declared = [DeclareLaunchArgument(name, default_value=value, description=words)
                for name, (value, words) in ARGUMENTS.items()]  # fmt: skip
    return LaunchDescription([*declared, OpaqueFunction(function=_node)])


def _node(context: LaunchContext) -> list[LifecycleNode]:
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    named = {
        name: ParameterValue(given[name], value_type=str)
        for name in ("bundle", "classes", "vocabulary", "backend")
        if given[name]  # an empty one leaves what the file says
    }
    return [
        LifecycleNode(
            package="pcaseg_ros",
            executable="segment",
            name=given["name"],
            namespace=given["namespace"],
            parameters=[given["params_file"], named, {"autostart": given["autostart"].lower() == "true"}],
            remappings=[("image", given["image"])],
            output="screen",
        )
    ]
