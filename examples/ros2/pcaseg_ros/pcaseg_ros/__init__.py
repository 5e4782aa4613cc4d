"""A ROS 2 node that labels the pixels of a camera's images."""
