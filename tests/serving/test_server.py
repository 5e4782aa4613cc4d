"""The server around the protocol: tokens, names of hosts, a full house, draining, and the command."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from serving_support import SCENES, Running, frame_input, names_input, offer, output, running, wait_for

from pcaseg.cli import main
from pcaseg.commands.serving import render_samples
from pcaseg.errors import PcasegError
from pcaseg.runtime import Segmenter
from pcaseg.serving.guard import is_loopback
from pcaseg.serving.limits import Limits
from pcaseg.serving.server import Server

BODY = {"inputs": [frame_input(SCENES[0]), names_input(("car", "sky"))]}
TOKEN = "correct-horse"


class SlowSegmenter(Segmenter):
    """A segmenter whose network takes a while."""

    def segment_batch(self, images, vocabulary=None):
        time.sleep(0.3)
        return super().segment_batch(images, vocabulary)


class FailingSegmenter(Segmenter):
    """A segmenter that fails in a batch of several, and on black images; on the latter as nobody foresaw."""

    def segment_batch(self, images, vocabulary=None):
        if len(images) > 1 or not images[0].any():
            raise RuntimeError("a secret of the server")
        return super().segment_batch(images, vocabulary)


@pytest.fixture(scope="module")
def wanted(trained_tiny: Path) -> np.ndarray:
    with Segmenter(trained_tiny, threads=1) as segmenter:
        return segmenter(SCENES[0], vocabulary=("car", "sky")).labels


@pytest.fixture(scope="module")
def guarded(trained_tiny: Path):
    with running(offer(trained_tiny), token=TOKEN) as found:
        yield found


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9", TOKEN]
)
def test_without_the_token_nothing_is_told(guarded, given):
    headers = {} if given is None else {"Authorization": given}
    for path in ("/v2", "/v2/models/tiny", "/metrics", "/api/about", "/api/vocabularies/voc_20", "/nothing"):
        found = guarded.ask(path, headers=headers)
        assert found.status == 401 and "asks for its token" in found.sentence
    found = guarded.ask("/v2/models/tiny/infer", json.dumps(BODY).encode(), headers)
    assert found.status == 401 and found.headers["www-authenticate"] == "Bearer"


def test_with_the_token(guarded, wanted):
    for kind in ("Bearer", "bearer"):
        headers = {"Authorization": f"{kind} {TOKEN}"}
        found = guarded.ask("/v2/models/tiny/infer", json.dumps(BODY).encode(), headers)
        assert np.array_equal(output(found, "labels")[0], wanted)
    for path in ("/", "/static/page.js", "/static/page.css", "/samples/0.png", "/v2/health/live", "/v2/health/ready"):
        assert guarded.ask(path).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:1234"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "localhost:1234", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost:1234", "Origin": "null"}, 403),
        ({"Host": "localhost:1234", "Origin": "http://localhost:1234"}, 200),
        ({"Host": "localhost:1234", "Origin": "https://behind.a.proxy", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_other_sites_get_nothing_of_a_server_on_the_loopback(guarded, headers, status):
    assert guarded.ask("/api/about", headers={"Authorization": f"Bearer {TOKEN}"} | headers).status == status


@pytest.mark.parametrize(
    ("host", "expected"), [("localhost", 1), ("127.9.9.9", 1), ("[::1]", 1), ("0.0.0.0", 0), ("10.0.0.1", 0), ("", 0)]
)
def test_names_of_the_loopback(host, expected):
    assert is_loopback(host) == bool(expected)


def test_every_answer_has_the_headers_that_protect_the_page(guarded):
    for path in ("/", "/v2/health/live", "/nothing", "/api/about"):
        headers = guarded.ask(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_other_addresses_and_methods(trained_tiny):
    with running(offer(trained_tiny)) as server:
        for path in ("/none", "/static/../server.py", "/static/none.js", "/samples/9.png", "/api/vocabularies/none"):
            found = server.ask(path)
            assert found.status == 404 and found.sentence
        found = server.ask("/v2/models/tiny/infer")
        assert found.status == 405 and "another method" in found.sentence
        found = server.ask("/v2/models/tiny/versions/2/infer", b"{}")
        assert found.status == 404 and "here is tiny, 1" in found.sentence


def test_a_full_house_says_so_and_goes_on(trained_tiny, wanted):
    made = offer(trained_tiny, open=lambda: SlowSegmenter(trained_tiny, threads=1))
    with running(made, limits=Limits(queue=3, batch=1, wait_ms=0)) as server:
        with ThreadPoolExecutor(10) as pool:
            found = list(pool.map(lambda _: server.infer(BODY), range(10)))
        full = [one for one in found if one.status == 429]
        good = [one for one in found if one.status == 200]
        assert len(full) + len(good) == 10 and len(good) >= 3 and full
        assert all("requests are waiting already" in one.sentence and one.headers["retry-after"] for one in full)
        assert all(np.array_equal(output(one, "labels")[0], wanted) for one in good)
        assert server.infer(BODY).status == 200


def test_one_that_fails_fails_alone_and_tells_no_secret(trained_tiny, wanted):
    made = offer(trained_tiny, open=lambda: FailingSegmenter(trained_tiny, threads=1))
    bad = {"inputs": [frame_input(np.zeros_like(SCENES[0])), names_input(("car", "sky"))]}
    with running(made, limits=Limits(wait_ms=300)) as server, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(server.infer, [BODY, bad, BODY, bad]))
    assert [one.status for one in found] == [200, 500, 200, 500]
    assert all(np.array_equal(output(found[index], "labels")[0], wanted) for index in (0, 2))
    assert "secret" not in found[1].sentence


def test_a_caller_that_goes_away_hinders_nobody(trained_tiny, wanted):
    made = offer(trained_tiny, open=lambda: SlowSegmenter(trained_tiny, threads=1))
    with running(made, limits=Limits(body_seconds=0.3)) as server:
        host, port = server.address.split(":")
        head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        for sent in (b"", b"nonsense\r\n\r\n", head, head + b"{" * 999):
            with socket.create_connection((host, int(port))) as gone:
                gone.sendall(sent)
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(head + b"{")
            assert b" 408 " in slow.recv(1000)
        assert np.array_equal(output(server.infer(BODY), "labels")[0], wanted)


def test_drains_without_a_lost_answer(trained_tiny, wanted):
    """What was asked before the end is answered, also on connections that are kept open; readiness ends first."""
    made = offer(trained_tiny, open=lambda: SlowSegmenter(trained_tiny, threads=1))
    with running(made, drain_seconds=0.5, limits=Limits(batch=2)) as server:
        told = threading.Event()

        def keep_asking(_: int) -> list[int]:
            statuses, connection = [], http.client.HTTPConnection(server.address, timeout=60)
            while not told.is_set():
                connection.request("POST", "/v2/models/tiny/infer", json.dumps(BODY))
                response = connection.getresponse()
                found = json.loads(response.read())
                labels = [one["data"] for one in found["outputs"] if one["name"] == "labels"]
                assert np.array_equal(np.array(labels).ravel(), wanted.ravel())
                statuses.append(response.status)
            return statuses

        with ThreadPoolExecutor(8) as pool:
            callers = [pool.submit(keep_asking, index) for index in range(8)]
            time.sleep(0.5)
            server.server.handle_exit(signal.SIGTERM, None)
            found = server.ask("/v2/health/ready")
            assert (found.status, found.json()["phase"], found.headers["connection"]) == (503, "draining", "close")
            assert server.ask("/v2/health/live").status == 200
            told.set()
            assert all(set(caller.result(60)) == {200} for caller in callers)
        server.thread.join(60)
        assert not server.thread.is_alive()
        with pytest.raises(OSError):
            server.ask("/v2/health/live")


def test_interrupted_it_ends_at_once(trained_tiny):
    with running(offer(trained_tiny), drain_seconds=600) as server:
        server.server.handle_exit(signal.SIGINT, None)
        server.thread.join(30)
        assert not server.thread.is_alive()


def test_a_port_in_use_is_said(trained_tiny):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PcasegError, match=f"127.0.0.1, port {port}: cannot be served"):
            Server(offer(trained_tiny), port=port)
    with pytest.raises(PcasegError, match="cannot be served"):
        Server(offer(trained_tiny), host="no.such.host.invalid", port=0)


def test_the_command_serves_until_sigterm(trained_tiny, tmp_path, capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "sea.txt").write_text("boat\nwater\n")
    found = {}

    def talk() -> None:
        server = Running(None, None)
        monkeypatch.setattr(Running, "address", f"127.0.0.1:{port}")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        try:
            wait_for(lambda: _answers(server))
            found["about"] = server.ask("/api/about", headers=headers).json()
            found["refused"] = server.ask("/api/about").status
            body = {"inputs": [frame_input(SCENES[0])]}
            found["infer"] = server.ask("/v2/models/t/infer", json.dumps(body).encode(), headers).status
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def _answers(server: Running) -> bool:
        try:
            return server.ask("/v2/health/ready").status == 200
        except OSError:
            return False

    thread = threading.Thread(target=talk)
    thread.start()
    options = f"--port {port} --threads 1 --drain-seconds 0.1 --model-name t --classes car,sky"
    files = ["--token-file", str(tmp_path / "token"), "--vocabulary", str(tmp_path / "sea.txt")]
    assert main(["serve", str(trained_tiny), *options.split(), *files]) == 0
    thread.join()
    assert (found["refused"], found["infer"]) == (401, 200)
    assert found["about"]["vocabularies"]["sea"] == 2 and found["about"]["classes"] == ["car", "sky"]
    assert len(found["about"]["samples"]) == len(render_samples())
    said = capsys.readouterr().out
    assert f"http://127.0.0.1:{port}: page and server of model t" in said and TOKEN not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--token", ""], "--token: holds no token"),
        (["--token", "a b"], "--token: holds no token"),
        (["--token", "h\xe9"], "--token: holds no token"),
        (["--token-file", "none"], "none: cannot be read"),
        (["--token-file", "empty"], "empty: holds no token"),
        (["--vocabulary", "voc_20.txt"], "named voc_20 is registered already"),
        (["--vocabulary", "sea.txt", "--vocabulary", "sea.txt"], "named sea is registered already"),
        (["--vocabulary", "none.txt"], "none.txt"),
        (["--classes", ""], "--classes"),
        (["--host", "no.such.host.invalid"], "cannot be served"),
        (["--backend", "none"], "none"),
    ],
)
def test_what_the_command_refuses(trained_tiny, tmp_path, capsys, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("")
    (tmp_path / "voc_20.txt").write_text("cat\n")
    (tmp_path / "sea.txt").write_text("boat\n")
    assert main(["serve", str(trained_tiny), "--port", "0", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


def test_the_token_of_the_environment(trained_tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PCASEG_TOKEN", "")
    assert main(["serve", str(trained_tiny), "--port", "0"]) == 2
    assert "PCASEG_TOKEN: holds no token" in capsys.readouterr().err
    assert main(["serve", str(tmp_path / "none.pcaseg"), "--token", "t"]) == 2
    assert "none.pcaseg" in capsys.readouterr().err
