"""The metrics of several processes in one text."""

import pytest

from duologue.server._merged_metrics import merge_metrics

FIRST = """\
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{how="ok"} 3.0
calls_total{how="a}b{c,\\"d"} 1.0
# HELP draining 1 or 0.
# TYPE draining gauge
draining 0.0
"""
SECOND = """\
# HELP draining 1 or 0.
# TYPE draining gauge
draining 1.0
# HELP only_here Something.
# TYPE only_here gauge
only_here{} 5 1700000000
# HELP unused Not yet.
# TYPE unused gauge
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{how="ok"} 4.0
"""
MERGED = """\
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{worker="1",how="ok"} 3.0
calls_total{worker="1",how="a}b{c,\\"d"} 1.0
calls_total{worker="2",how="ok"} 4.0
# HELP draining 1 or 0.
# TYPE draining gauge
draining{worker="1"} 0.0
draining{worker="2"} 1.0
# HELP only_here Something.
# TYPE only_here gauge
only_here{worker="2"} 5 1700000000
# HELP unused Not yet.
# TYPE unused gauge
"""


def test_samples_of_a_metric_stand_together_and_name_their_process():
    assert merge_metrics({2: SECOND, 1: FIRST}) == MERGED


def test_metrics_without_a_type_and_no_metrics_at_all_are_kept_as_they_are():
    assert merge_metrics({}) == ""
    assert merge_metrics({1: "", 2: "bare 1\n# a comment\n"}) == 'bare{worker="2"} 1\n'


def test_prometheus_own_parser_reads_the_same_values():
    client = pytest.importorskip("prometheus_client", reason="needs the extra prometheus")
    parser = pytest.importorskip("prometheus_client.parser", reason="needs the extra prometheus")
    texts = {}
    for process in (1, 2):
        registry = client.CollectorRegistry()
        client.Histogram("lag_seconds", "Lag.", registry=registry).observe(process)
        odd = client.Counter("odd", 'A "help"\nwith lines.', ["name"], registry=registry)
        odd.labels('x}",\\\n{').inc(process)
        texts[process] = client.generate_latest(registry).decode()
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(merge_metrics(texts))
        for sample in family.samples
    }
    for process in (1, 2):
        one = ("worker", str(process))
        assert values["odd_total", ("name", 'x}",\\\n{'), one] == process
        assert values["lag_seconds_sum", one] == process
        assert values["lag_seconds_bucket", ("le", "+Inf"), one] == 1
