"""The GPU as an operator sees it: which device is taken, what its memory is planned for, what happens when it fails.

Without a GPU the program has to say so. What needs one runs on the emulated device of tests/cuda_emu, in the program that
tests/cuda_emu/run.sh builds (VLMD_EMU_BIN, default build/emu/vlmd), and is skipped where that is not there."""
import os
import pathlib
import subprocess

import pytest
from conftest import MODEL, PATIENCE, ROOT, VLMD, Server

EMU = pathlib.Path(os.environ.get("VLMD_EMU_BIN", ROOT / "build" / "emu" / "vlmd"))


@pytest.fixture
def no_gpu():
    if not VLMD.exists():
        pytest.skip(f"{VLMD} is not built")
    if pathlib.Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")


def test_cuda_is_refused_without_a_gpu(no_gpu):
    r = subprocess.run([VLMD, "serve", "--port", "0", "--device", "cuda"], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    assert r.returncode == 1 and "listening" in r.stdout
    assert "no NVIDIA driver" in r.stderr or "without CUDA" in r.stderr or "no NVIDIA GPU" in r.stderr, r.stderr
    assert len(r.stderr.splitlines()) == 1


def test_auto_falls_back_and_says_why(no_gpu):
    with Server(MODEL) as s:
        assert s.chat("hello", max_tokens=2).status == 200
        why = [line for line in s.log if "computing on the CPU: " in line]
        assert len(why) == 1 and ("NVIDIA" in why[0] or "without CUDA" in why[0]), s.text()
