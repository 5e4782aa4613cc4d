"""The server under load, in short: many callers with vocabularies of their own, damaged bodies, no wrong answer."""

from __future__ import annotations

import json

from serving_support import offer, running

from pcaseg.benchmarks.studies import serving
from pcaseg.benchmarks.study_tables import serving_table
from pcaseg.runtime import Segmenter
from pcaseg.serving.limits import Limits


def test_many_callers_and_damaged_bodies(trained_tiny):
    with Segmenter(trained_tiny, threads=1) as segmenter:
        asked = [serving.make_request(segmenter, index, index) for index in range(24)]
    with running(offer(trained_tiny), limits=Limits(queue=24, body_seconds=5)) as server:
        first = serving.load(server.address, asked * 2, case="a", callers=24, vocabularies=24, model="tiny")
        statuses = serving.damage(server.address, asked[0], 150, model="tiny")
        second = serving.load(server.address, asked, case="b", callers=24, vocabularies=24, model="tiny")
        metrics = server.ask("/metrics").body.decode()
    assert (first.requests, first.wrong, second.wrong) == (48, 0, 0)
    assert 0 < first.p50_ms <= first.p95_ms <= first.p99_ms and first.per_second > 0
    assert sum(statuses.values()) == 150 and statuses.keys() <= serving.ANSWERED and statuses[400] > 50
    assert 'status="500"' not in metrics


def test_a_wrong_answer_is_counted(trained_tiny):
    with Segmenter(trained_tiny, threads=1) as segmenter:
        one = serving.make_request(segmenter, 0, 0)
    other = serving.Asked(one.body, one.headers, one.labels + 1)
    with running(offer(trained_tiny)) as server:
        found = serving.load(server.address, [one, other], case="a", callers=2, vocabularies=1, model="tiny")
    assert (found.requests, found.wrong) == (2, 1)


def test_rows_and_table(trained_tiny, tmp_path, capsys):
    out = tmp_path / "serving_x.json"
    options = ["--callers", "3", "--each", "1", "--damaged", "10", "--out", str(out)]
    assert serving.main([str(trained_tiny), *options]) == 0
    report = json.loads(out.read_text())
    assert [row["wrong"] for row in report["rows"]] == [0, 0, 0, 0] and sum(report["damaged"].values()) == 10
    lines = serving_table(tmp_path).splitlines()
    assert len(lines) == 6 and "one at a time" in lines[2]
    assert "damaged bodies by status" in capsys.readouterr().out
