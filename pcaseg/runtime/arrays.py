"""Images that other libraries hold: DLPack and `__cuda_array_interface__`, without importing any of them."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from pcaseg.errors import ImageError, one_line
from pcaseg.runtime.backends import Backend

_GPU = (2, 10, 13)  # of DLPack's device types: CUDA, ROCm, CUDA managed


@runtime_checkable
class GpuBackend(Backend, Protocol):
    """A backend that can take images which are on its GPU already."""

    @property
    def on_gpu(self) -> bool:
        """True where it is on a GPU now."""
        ...

    def fetch(self, array: Any) -> np.ndarray:
        """A copy, in host memory, of an array of any library on the GPU; what makes it is waited for."""
        ...


def host_image(image: Any, backend: Backend, *, name: str) -> np.ndarray | Image.Image:
    """An image as `pcaseg.images.as_rgb` takes it: NumPy arrays and Pillow images as they are, other arrays viewed.

    Args:
        image: besides those, anything with `__dlpack__` in host memory, or with `__cuda_array_interface__` or
            `__dlpack__` on the GPU, which a `GpuBackend` copies to the host.
        backend: that the image is for.
        name: what messages call the image.

    Raises:
        ImageError: none of these, one on the GPU for a backend of the CPU, or one that its library does not hand out.
    """
    if isinstance(image, (np.ndarray, Image.Image)):
        return image
    if on_gpu(image):
        if not (isinstance(backend, GpuBackend) and backend.on_gpu):
            raise ImageError(
                f"{name}: is on the GPU, and {backend.name} takes images in host memory; copy it there, with .cpu() or "
                ".get(), or open a backend of the GPU"
            )
        return backend.fetch(image)
    if not hasattr(image, "__dlpack__") or not hasattr(image, "__dlpack_device__"):
        raise ImageError(
            f"{name}: expected a NumPy array or Pillow image, got {type(image).__name__}; convert it with numpy.asarray"
        )
    try:
        found: np.ndarray = np.from_dlpack(image)
    except Exception as error:  # of whichever library made it
        raise ImageError(
            f"{name}: its {type(image).__name__} cannot be read through DLPack ({one_line(error)}); convert it with "
            "numpy.asarray"
        ) from error
    return found


def on_gpu(image: Any) -> bool:
    """True for an array of another library in a GPU's memory."""
    if isinstance(image, (np.ndarray, Image.Image)):
        return False
    if hasattr(image, "__cuda_array_interface__"):
        return True
    return hasattr(image, "__dlpack_device__") and int(image.__dlpack_device__()[0]) in _GPU
