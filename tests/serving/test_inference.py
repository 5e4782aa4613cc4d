"""The Open Inference Protocol: with the real client of Triton, in JSON and binary, with every kind of vocabulary."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from serving_support import (
    LISTS,
    SCENES,
    Running,
    binary_request,
    frame_input,
    names_input,
    offer,
    output,
    packed,
    png,
    running,
    wait_for,
)

from pcaseg.errors import BundleError, VocabularyError
from pcaseg.runtime import Segmenter, Vocabulary
from pcaseg.serving.limits import Limits


@pytest.fixture(scope="module")
def segmenter(trained_tiny: Path) -> Iterator[Segmenter]:
    with Segmenter(trained_tiny, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def server(trained_tiny: Path, segmenter: Segmenter) -> Iterator[Running]:
    kept = segmenter.prepare(["car", "road", "sky"])
    with running(offer(trained_tiny, vocabularies={"street": kept, "sea": ("boat", "water")})) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[object]:
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    with triton.InferenceServerClient(server.address) as found:
        yield found


def triton_input(name: str, values: np.ndarray, *, binary: bool = True):
    from tritonclient.http import InferInput
    from tritonclient.utils import np_to_triton_dtype

    found = InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
    found.set_data_from_numpy(values, binary_data=binary)
    return found


def names(*values: str) -> np.ndarray:
    return np.array([value.encode() for value in values], object)


def test_triton_client_reads_health_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1") and not client.is_model_ready("other")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    found = client.get_model_metadata("tiny")
    assert {one["name"]: one["datatype"] for one in found["outputs"]} == {
        "labels": "UINT16",
        "confidence": "FP32",
        "classes": "BYTES",
        "legend": "BYTES",
    }
    assert [one["shape"] for one in found["inputs"] if one["name"] == "embeddings"] == [[-1, 64]]


@pytest.mark.parametrize("binary_in", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("binary_out", [True, False], ids=["to-binary", "to-json"])
def test_triton_client_gets_the_segmenters_labels(client, segmenter, binary_in, binary_out):
    from tritonclient.http import InferRequestedOutput

    inputs = [
        triton_input("frames", np.stack(SCENES[:2]), binary=binary_in),
        triton_input("classes", names(*LISTS[2]), binary=binary_in),
    ]
    asked = [InferRequestedOutput(name, binary_data=binary_out) for name in ("confidence", "labels", "classes")]
    found = client.infer("tiny", inputs, outputs=asked, request_id="7")
    for index in range(2):
        wanted = segmenter(SCENES[index], vocabulary=LISTS[2])
        assert np.array_equal(found.as_numpy("labels")[index], wanted.labels)
        assert np.allclose(found.as_numpy("confidence")[index], wanted.confidence, atol=1e-5)
    assert [str(one, "utf-8") if isinstance(one, bytes) else one for one in found.as_numpy("classes")] == [*LISTS[2]]
    assert found.get_response()["id"] == "7" and found.get_response()["model_name"] == "tiny"


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG"])
def test_triton_client_sends_files(client, segmenter, kind, tmp_path):
    data = png(SCENES[1], kind)
    path = tmp_path / "scene"
    path.write_bytes(data)
    inputs = [triton_input("image", np.array([data], object)), triton_input("classes", names(*LISTS[0]))]
    found = client.infer("tiny", inputs, request_compression_algorithm="gzip")
    assert np.array_equal(found.as_numpy("labels")[0], segmenter(path, vocabulary=LISTS[0]).labels)


def test_triton_client_by_registered_vocabulary_and_embeddings(client, segmenter):
    frame = triton_input("frames", SCENES[0])
    wanted = segmenter(SCENES[0], vocabulary=["car", "road", "sky"])
    found = client.infer("tiny", [frame, triton_input("vocabulary", names("street"))])
    assert np.array_equal(found.as_numpy("labels")[0], wanted.labels)
    found = client.infer("tiny", [frame, triton_input("vocabulary", names("voc_20"))])
    assert np.array_equal(found.as_numpy("labels")[0], segmenter(SCENES[0], vocabulary="voc_20").labels)
    embeddings = segmenter.prepare(["car", "road", "sky"]).embeddings
    given = [triton_input("embeddings", embeddings), triton_input("classes", names("a", "b", "c"))]
    found = client.infer("tiny", [frame, *given])
    assert np.array_equal(found.as_numpy("labels")[0], wanted.labels)
    assert found.as_numpy("classes").tolist() == [b"a", b"b", b"c"]


def test_triton_client_is_told_what_is_wrong(client):
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="no class names: give"):
        client.infer("tiny", [triton_input("frames", SCENES[0])])
    with pytest.raises(InferenceServerException, match="here is tiny"):
        client.infer("other", [triton_input("frames", SCENES[0])])


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_json_with_a_packed_body(server, segmenter, pack):
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(png(SCENES[0])).decode()]}
    body = pack(json.dumps({"inputs": [image, names_input(LISTS[1])]}).encode())
    packing = "gzip" if pack is gzip.compress else "deflate"
    found = server.ask("/v2/models/tiny/versions/1/infer", body, {"Content-Encoding": packing})
    assert np.array_equal(output(found, "labels")[0], segmenter(SCENES[0], vocabulary=LISTS[1]).labels)


def test_nested_lists_are_flat_ones(server):
    nested = frame_input(SCENES[0]) | {"data": SCENES[0].tolist()}
    found = [server.infer({"inputs": [one, names_input(LISTS[0])]}) for one in (nested, frame_input(SCENES[0]))]
    assert np.array_equal(output(found[0], "labels"), output(found[1], "labels"))


FRAME, CLASSES = frame_input(SCENES[0]), names_input(LISTS[0])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "cannot be read as JSON"),
        (b"[1]", "not an object"),
        (b"null", "not an object"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe{}", "cannot be read as JSON"),
        ({}, "inputs: is no list"),
        ({"inputs": [1]}, "inputs: is no list"),
        ({"inputs": [{"name": 1}]}, "an input: has no string 'name'"),
        ({"inputs": [FRAME, FRAME]}, "stands twice"),
        ({"inputs": [FRAME | {"datatype": "FP64"}]}, "'FP64' is not taken"),
        ({"inputs": [FRAME | {"shape": [96, 96, "3"]}]}, "no list of sizes"),
        ({"inputs": [FRAME | {"shape": [-1, 96, 3]}]}, "no list of sizes"),
        ({"inputs": [FRAME | {"shape": [True, 96, 3]}]}, "no list of sizes"),
        ({"inputs": [FRAME | {"shape": []}]}, "has 0 sizes"),
        ({"inputs": [FRAME | {"shape": [1 << 62, 1 << 62, 3]}]}, "27648 values for shape"),
        ({"inputs": [FRAME | {"data": [256] * 27648}, CLASSES]}, "values beyond UINT8"),
        ({"inputs": [FRAME | {"data": [-1] * 27648}, CLASSES]}, "values beyond UINT8"),
        ({"inputs": [FRAME | {"data": [0.5] * 27648}, CLASSES]}, "no UINT8 in one shape"),
        ({"inputs": [FRAME | {"data": [[1], [1, 2]]}, CLASSES]}, "no UINT8 in one shape"),
        ({"inputs": [FRAME | {"data": None}, CLASSES]}, "neither a list"),
        ({"inputs": [FRAME | {"parameters": {"binary_data_size": 5}}]}, "beyond the body"),
        ({"inputs": [FRAME | {"parameters": {"binary_data_size": 0}}]}, "has both `data` and"),
        ({"inputs": [FRAME, CLASSES], "parameters": {"encoder_sha256": "0" * 64}}, "another text encoder"),
        ({"inputs": [FRAME, CLASSES], "parameters": {"encoder_sha256": None}}, "another text encoder"),
        ({"inputs": [FRAME | {"parameters": {"shared_memory_region": "a"}}]}, "no shared memory"),
        ({"inputs": [FRAME | {"shape": [48, 192, 3, 1]}, CLASSES]}, "give [H, W, 3]"),
        ({"inputs": [FRAME | {"name": "pixels"}, CLASSES]}, "'pixels': is unknown"),
        ({"inputs": [CLASSES]}, "give either `image`"),
        ({"inputs": [names_input(("aaaa",), "image"), CLASSES]}, "damaged"),
        ({"inputs": [names_input(("x",), "image"), CLASSES]}, "is no base64"),
        (
            {"inputs": [names_input((base64.b64encode(b"no picture at all").decode(),), "image"), CLASSES]},
            "not an image",
        ),
        ({"inputs": [FRAME]}, "no class names"),
        ({"inputs": [FRAME, names_input(())]}, "no class names"),
        ({"inputs": [FRAME, names_input(("car", "car"))]}, "car"),
        ({"inputs": [FRAME, names_input(("",))]}, "blank"),
        ({"inputs": [FRAME, names_input(("\ud800",))]}, "not UTF-8"),
        ({"inputs": [FRAME, names_input(("/etc/passwd",), "vocabulary")]}, "is not registered here"),
        ({"inputs": [FRAME, names_input(("street", "sea"), "vocabulary")]}, "give it alone"),
        ({"inputs": [FRAME, CLASSES, names_input(("sea",), "vocabulary")]}, "give it alone"),
        ({"inputs": [FRAME, CLASSES], "outputs": [{"name": "masks"}]}, "'masks': is unknown"),
        ({"inputs": [FRAME, CLASSES], "outputs": [{"name": "labels", "parameters": {"classification": 2}}]}, "has no"),
        ({"inputs": [FRAME, CLASSES], "outputs": {"name": "labels"}}, "outputs: is no list"),
        ({"inputs": [FRAME, CLASSES], "parameters": 3}, "parameters are no JSON object"),
        ({"inputs": [FRAME, CLASSES], "id": 3}, "id: is no string"),
    ],
)
def test_bad_requests_are_told_in_one_sentence(server, body, said):
    found = server.ask("/v2/models/tiny/infer", body if isinstance(body, bytes) else json.dumps(body).encode())
    assert found.status == 400 and said in found.sentence
    assert "\n" not in found.sentence and "Traceback" not in found.sentence


@pytest.mark.parametrize(
    ("embeddings", "said"),
    [
        (np.eye(3, 64), "3 names but 2 embeddings"),
        (np.eye(2, 65), "embeddings of 65 numbers"),
        (2 * np.eye(2, 64), "not of unit norm"),
        (np.full((2, 64), np.nan), "not of unit norm or not finite"),
    ],
)
def test_bad_embeddings(server, embeddings, said):
    count = len(embeddings) if "3 names" not in said else 2
    given = embeddings[:count].astype("<f4")
    listed = ("a", "b", "c") if "3 names" in said else ("a", "b")
    body, headers = binary_request(
        [
            ({"name": "frames", "datatype": "UINT8", "shape": [96, 96, 3]}, SCENES[0].tobytes()),
            ({"name": "embeddings", "datatype": "FP32", "shape": list(given.shape)}, given.tobytes()),
            ({"name": "classes", "datatype": "BYTES", "shape": [len(listed)]}, packed(*map(str.encode, listed))),
        ]
    )
    found = server.ask("/v2/models/tiny/infer", body, headers)
    assert found.status == 400 and said in found.sentence


@pytest.mark.parametrize(
    ("length", "tail", "said"),
    [("x", b"", "is no length"), ("-1", b"", "is no length"), ("9" * 30, b"", "is no length"), (None, b"1", "JSON")],
)
def test_bad_header_of_the_binary_extension(server, length, tail, said):
    body, headers = binary_request(
        [({"name": "classes", "datatype": "BYTES", "shape": [1]}, packed(b"car"))],
    )
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    found = server.ask("/v2/models/tiny/infer", body + tail, headers)
    assert found.status == 400 and said in found.sentence


@pytest.mark.parametrize(
    ("data", "shape", "said"),
    [
        (packed(b"car")[:-1], 1, "runs past"),
        (b"\xff\xff\xff\xff", 1, "runs past"),
        (b"\0\0", 1, "runs past"),
        (packed(b"car", b"sky"), 1, "2 strings for a shape of 1"),
        (packed(b"\xff"), 1, "not UTF-8"),
    ],
)
def test_bad_binary_strings(server, data, shape, said):
    frame = {"name": "frames", "datatype": "UINT8", "shape": [96, 96, 3]}
    classes = {"name": "classes", "datatype": "BYTES", "shape": [shape]}
    body, headers = binary_request([(frame, SCENES[0].tobytes()), (classes, data)])
    found = server.ask("/v2/models/tiny/infer", body, headers)
    assert found.status == 400 and said in found.sentence


def test_callers_with_vocabularies_of_their_own(server, segmenter):
    """Forty callers at once; requests of one vocabulary share batches, and each gets its own labels."""
    keys = [(index % len(SCENES), index % len(LISTS)) for index in range(40)]
    wanted = {key: segmenter(SCENES[key[0]], vocabulary=LISTS[key[1]]).labels for key in set(keys)}

    def ask(key: tuple[int, int]) -> np.ndarray:
        frame = {"name": "frames", "datatype": "UINT8", "shape": [96, 96, 3]}
        classes = {"name": "classes", "datatype": "BYTES", "shape": [len(LISTS[key[1]])]}
        data = packed(*map(str.encode, LISTS[key[1]]))
        found = server.ask(
            "/v2/models/tiny/infer", *binary_request([(frame, SCENES[key[0]].tobytes()), (classes, data)])
        )
        assert found.status == 200, found.body
        return output(found, "labels")[0]

    with ThreadPoolExecutor(40) as pool:
        found = list(pool.map(ask, keys))
    assert all(np.array_equal(labels, wanted[key]) for key, labels in zip(keys, found, strict=True))
    text = server.ask("/metrics").body.decode()
    sizes = dict(line.split(" ") for line in text.splitlines() if line.startswith("pcaseg_batch_images_"))
    assert float(sizes["pcaseg_batch_images_sum"]) > float(sizes["pcaseg_batch_images_count"]) > 0
    assert 'pcaseg_requests_total{status="200",way="infer"}' in text and "pcaseg_queue_requests 0.0" in text
    assert 'pcaseg_rejections_total{status="400"}' in text and "pcaseg_request_seconds_bucket" in text


def test_health_while_the_bundle_opens(trained_tiny):
    go = threading.Event()

    def open_late() -> Segmenter:
        go.wait(60)
        return Segmenter(trained_tiny, threads=1)

    with running(offer(trained_tiny, open=open_late, classes=("car", "sky")), wait=False) as found:
        try:
            wait_for(lambda: found.ask("/v2/health/live").status == 200)
            ready = found.ask("/v2/health/ready")
            assert (ready.status, ready.json()["phase"]) == (503, "starting")
            early = found.infer({"inputs": [FRAME, CLASSES]})
            assert early.status == 503 and "still being opened" in early.sentence and early.headers["retry-after"]
        finally:
            go.set()
        wait_for(lambda: found.ask("/v2/health/ready").status == 200)
        answer = found.infer({"inputs": [FRAME]})
        assert [one["data"] for one in answer.json()["outputs"] if one["name"] == "classes"] == [["car", "sky"]]


@pytest.mark.parametrize("fault", ["bundle", "vocabulary"])
def test_a_server_that_cannot_open_ends_with_the_reason(trained_tiny, tmp_path, fault):
    other = Vocabulary(("a",), np.eye(1, 64, dtype=np.float32), "0" * 64)
    made = {
        "bundle": (offer(tmp_path / "none.pcaseg"), BundleError),
        "vocabulary": (offer(trained_tiny, vocabularies={"v": other}), VocabularyError),
    }
    given, kind = made[fault]
    with pytest.raises(kind), running(given, wait=False) as found:
        found.thread.join(60)
        assert not found.thread.is_alive()


def test_limits(trained_tiny):
    limits = Limits(body_bytes=40_000, pixels=96 * 96, classes=3, images=2, body_seconds=0.5)
    with running(offer(trained_tiny), limits=limits) as server:

        def ask(*inputs):
            return server.ask("/v2/models/tiny/infer", *binary_request(list(inputs)))

        frame = ({"name": "frames", "datatype": "UINT8", "shape": [96, 96, 3]}, SCENES[0].tobytes())
        classes = ({"name": "classes", "datatype": "BYTES", "shape": [1]}, packed(b"car"))
        assert ask(frame, classes).status == 200
        dark = np.zeros((97, 96, 3), np.uint8)
        wide = ({"name": "frames", "datatype": "UINT8", "shape": [97, 96, 3]}, dark.tobytes())
        file = ({"name": "image", "datatype": "BYTES", "shape": [1]}, packed(png(dark)))
        bomb = ({"name": "image", "datatype": "BYTES", "shape": [1]}, packed(png(np.zeros((3000, 3000), np.uint8))))
        many = ({"name": "frames", "datatype": "UINT8", "shape": [3, 1, 1, 3]}, bytes(9))
        parts = ({"name": "classes", "datatype": "BYTES", "shape": [1]}, packed(b"car: wheel, window, door"))
        four = ({"name": "classes", "datatype": "BYTES", "shape": [4]}, packed(b"a", b"b", b"c", b"d"))
        for given, said in (
            ((wide, classes), "more pixels than 9216"),
            ((file, classes), "96 x 97 pixels are more than 9216"),
            ((bomb, classes), "3000 x 3000 pixels are more than 9216"),
            ((many, classes), "3 images, but this server takes 2"),
            ((frame, parts), "4 names, but this server takes 3"),
            ((frame, four), "4 names, but this server takes 3"),
        ):
            found = ask(*given)
            assert found.status == 413 and said in found.sentence
        for size in (50_000, 500_000):
            found = server.ask("/v2/models/tiny/infer", bytes(size))
            assert found.status == 413 and "more than 40000 bytes" in found.sentence
        packed_bomb = gzip.compress(bytes(1_000_000))
        found = server.ask("/v2/models/tiny/infer", packed_bomb, {"Content-Encoding": "gzip"})
        assert found.status == 413
        for data, packing in ((b"no gzip", "gzip"), (gzip.compress(b"{}")[:-9], "gzip"), (b"{}", "br")):
            assert server.ask("/v2/models/tiny/infer", data, {"Content-Encoding": packing}).status == 400
        assert ask(frame, classes).status == 200


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_kserve_client_gets_the_segmenters_labels(server, segmenter, binary):
    kserve = pytest.importorskip("kserve", reason="kserve is not installed; it brings FastAPI and Kubernetes along")

    async def ask():
        config = kserve.RESTConfig(protocol="v2", timeout=60)
        client = kserve.InferenceRESTClient(config)
        try:
            base = server.server.url
            assert await client.is_server_live(base) and await client.is_server_ready(base)
            assert await client.is_model_ready(base, "tiny")
            frame = kserve.InferInput("frames", list(SCENES[1].shape), "UINT8")
            frame.set_data_from_numpy(SCENES[1], binary_data=binary)
            classes = kserve.InferInput("classes", [len(LISTS[2])], "BYTES")
            classes.set_data_from_numpy(names(*LISTS[2]), binary_data=binary)
            asked = [kserve.protocol.infer_type.RequestedOutput("labels", {"binary_data": binary})]
            request = kserve.InferRequest("tiny", [frame, classes], request_outputs=asked)
            return await client.infer(base, request, model_name="tiny")
        finally:
            await client.close()

    found = asyncio.run(ask())
    wanted = segmenter(SCENES[1], vocabulary=LISTS[2]).labels
    assert np.array_equal(found.outputs[0].as_numpy()[0], wanted)
