"""The model that Triton Inference Server's Python backend runs, in a repository of `pcaseg serve-repository`.

Triton gives the Python that runs this a module of its own, `triton_python_backend_utils`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pcaseg.errors import MissingDependencyError, PcasegError, install_hint
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.serving.inputs import class_lists, frames_of, given_vocabulary, preparations, vocabulary_of
from pcaseg.serving.limits import Limits, sentence_of, status_of
from pcaseg.serving.outputs import outputs_of
from pcaseg.serving.protocol import InferRequest, ProtocolTensor, datatype_of
from pcaseg.serving.triton_repository import BUNDLE_NAME


class TritonPythonModel:
    """One instance of the model; Triton calls its three methods by these names."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Opens the bundle beside the model's file.

        Raises:
            TritonModelException: it cannot be opened, or this Python's numpy does not go with Triton's.
        """
        import triton_python_backend_utils as triton

        try:
            check_numpy(np.__version__)
            given = json.loads(args["model_config"]).get("parameters", {})
            parameters = {key: value["string_value"] for key, value in given.items()}
            folder = Path(args["model_repository"], args["model_version"])
            self._limits = Limits(**{key: int(parameters[key]) for key in ("pixels", "classes", "images", "batch")})
            self._segmenter = open_segmenter(folder / BUNDLE_NAME, parameters, self._limits)
        except PcasegError as error:
            raise triton.TritonModelException(str(error)) from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response to each request: the outputs that it asks for, or an error of one sentence."""
        import triton_python_backend_utils as triton

        responses = []
        for request in requests:
            try:
                inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
                found = answer(self._segmenter, inputs, json.loads(request.parameters() or "{}"), self._limits)
                tensors = [triton.Tensor(name, found[name]) for name in request.requested_output_names()]
                responses.append(triton.InferenceResponse(tensors))
            except Exception as error:
                theirs = status_of(error) < 500
                code = triton.TritonError.INVALID_ARG if theirs else triton.TritonError.INTERNAL
                told = triton.TritonError(sentence_of(error), code)
                responses.append(triton.InferenceResponse([], error=told))
        return responses

    def finalize(self) -> None:
        """Gives the memory back."""
        self._segmenter.close()


def check_numpy(version: str) -> None:
    """Refuses what makes Triton's Python backend read and write wrong numbers, and yet answer 200.

    Raises:
        MissingDependencyError: numpy 2 or newer.

    >>> check_numpy("1.26.4")
    """
    if int(version.partition(".")[0]) >= 2:
        raise MissingDependencyError(
            f"numpy {version}: Triton's Python backend passes wrong numbers with numpy 2; "
            'run: pip install "numpy<2" in the Python of this server'
        )


def open_segmenter(bundle: Path, parameters: Mapping[str, str], limits: Limits) -> Segmenter:
    """The segmenter of a model by its parameters, as `pcaseg.serving.triton_repository` writes them.

    Raises:
        PcasegError: the bundle cannot be opened, or ONNX Runtime is not installed.
    """
    threads = int(parameters["threads"]) if "threads" in parameters else None
    strategy: Any = parameters.get("strategy")
    if "network" not in parameters:
        return Segmenter(bundle, threads=threads, strategy=strategy, window_batch=limits.batch)
    try:
        from pcaseg.serving.triton_network import TritonNetwork
    except ImportError as error:
        raise MissingDependencyError(f"{error}; {install_hint('onnxruntime')}") from error

    def ask(outputs: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return ask_model(parameters["network"], outputs, inputs)

    backend = TritonNetwork(Bundle(bundle), ask, threads=threads)
    return Segmenter(backend, strategy=strategy, window_batch=limits.batch)


def answer(
    segmenter: Segmenter, inputs: Mapping[str, np.ndarray], parameters: Mapping[str, Any], limits: Limits
) -> dict[str, np.ndarray]:
    """All outputs of a request by name, as arrays; strings are arrays of bytes.

    Args:
        segmenter: of the bundle.
        inputs: by name, as `pcaseg.serving.inputs.INPUTS` lists them.
        parameters: of the request.
        limits: of the server.

    Raises:
        PcasegError: the request cannot be used.
    """
    request = InferRequest(None, {name: _tensor(name, one) for name, one in inputs.items()}, None, True, parameters)
    sha256 = segmenter.backend.manifest.text.encoder_sha256
    registered = preparations(class_lists(), segmenter.prepare)
    vocabulary = given_vocabulary(vocabulary_of(request, registered, segmenter.prepare, limits, sha256))
    results = segmenter.segment_batch(frames_of(request, limits, bits=segmenter.bits), vocabulary)
    found = outputs_of(results)
    return {name: np.array(one, object) if isinstance(one, list) else one for name, one in found.items()}


def ask_model(name: str, outputs: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of another model of this server, in the host's memory.

    Raises:
        PcasegError: it does not answer; the message is the server's.
    """
    import triton_python_backend_utils as triton

    response = triton.InferenceRequest(
        model_name=name,
        requested_output_names=list(outputs),
        inputs=[triton.Tensor(key, value) for key, value in inputs.items()],
        preferred_memory=triton.PreferredMemory(triton.TRITONSERVER_MEMORY_CPU, 0),
    ).exec()
    if response.has_error():
        raise PcasegError(f"model {name}: {response.error().message()}; see the server's log")
    return [triton.get_output_tensor_by_name(response, key).as_numpy() for key in outputs]


def _tensor(name: str, values: np.ndarray) -> ProtocolTensor:
    plain = values.ravel().tolist() if values.dtype == object else values
    return ProtocolTensor(name, datatype_of(plain), values.shape, plain, True)
