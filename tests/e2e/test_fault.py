"""A sample of `make test-fault` (tests/fault/run.py, docs/reliability.md) on the build under test: what a fault of the system
may lead to is a right answer, a clean error, or a clean end at start."""
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "fault"))
import inject  # noqa: E402
import run  # noqa: E402


@pytest.fixture(scope="module")
def right():
    if not inject.BINARY.exists():
        pytest.skip(f"{inject.BINARY} is not built")
    return run.right_answers()


@pytest.fixture
def findings():
    f = run.Findings()
    yield f
    assert not f.found, "\n".join(f.found)


def test_requests(right, findings):
    run.requests(findings, right[0], every=4)
    assert findings.tried["memory"] >= 100 and findings.tried["library send"] >= 3, findings.tried


def test_load(right, findings):
    cases, answers, bodies = right
    run.load(findings, list(inject.cases().values()) + bodies, list(cases.values()) + answers, budget=150, seconds=60)


def test_starts(right, findings):
    run.starts(findings, right[0], most=60)
