"""Runs bundles: from an image and class names to a label per pixel, with NumPy, Pillow and one backend.

Nothing here imports torch. ONNX Runtime, tokenizers, safetensors and ftfy are imported when first needed.
"""

from pcaseg.image_files import list_images
from pcaseg.images import read_image
from pcaseg.runtime.backends import Backend, backend_names
from pcaseg.runtime.bundle import Bundle, Manifest
from pcaseg.runtime.result import Result
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.stream import Frame, Stream, StreamItem
from pcaseg.runtime.vocabulary import Vocabulary, resolve_names

__all__ = [
    "Backend",
    "Bundle",
    "Frame",
    "Manifest",
    "Result",
    "Segmenter",
    "Stream",
    "StreamItem",
    "Vocabulary",
    "backend_names",
    "list_images",
    "read_image",
    "resolve_names",
]
