"""Builds the package, by ament_python or pip."""

from setuptools import setup

NAME = "pcaseg_ros"

setup(
    name=NAME,
    version="0.1.0",
    description="A ROS 2 node that labels the pixels of a camera's images by class names that change at run time",
    license="MIT",
    maintainer="The authors of pcaseg",
    maintainer_email="pcaseg@example.org",
    packages=[NAME],
    python_requires=">=3.10",
    install_requires=["setuptools"],
    zip_safe=True,
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/pcaseg.launch.py"]),
        (f"share/{NAME}/config", ["config/pcaseg.yaml", "config/shared_memory.xml"]),
    ],
    entry_points={"console_scripts": [f"segment = {NAME}.node:main"]},
)
