"""The same requests alone and many at once, cold and warm, with caches that are too small: tests/load/mixed.py."""
import os
import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "load"))
import mixed  # noqa: E402


def test_mixed():
    wrong, summary = mixed.run(2000 if os.environ.get("VLMD_LONG") else 150)
    print(summary)
    assert not wrong, "\n".join([summary, *wrong[:10]])[:6000]
