"""The GPU as an operator sees it: which device is taken, what its memory is planned for, what happens when it fails.

Without a GPU the program has to say so. What needs one runs on the emulated device of tests/cuda_emu, in the program that
tests/cuda_emu/run.sh builds, runs and names by VLMD_EMU_BIN; without it that is skipped."""
import os
import pathlib
import re
import subprocess
import threading
import time

import pytest
from conftest import MODEL, PATIENCE, ROOT, VLMD, Server, Stream, image_part, picture, text_part

EMU = os.environ.get("VLMD_EMU_BIN")


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


# ---- a device that fails while it serves ----

FAILED = 70  # the exit status, as docs/operation.md has it


def ask_all(server, contents, stream):
    """Asks for all at once; returns the threads, and the list that replies, or lists of events, come into."""
    replies = [None] * len(contents)

    def one(i):
        replies[i] = server.stream(contents[i]) if stream[i] else server.chat(contents[i])
    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(contents))]
    for t in threads:
        t.start()
    return threads, replies


def is_failure(reply, says):
    """A reply, or a stream's events, that ended with the device's failure."""
    if isinstance(reply, list):
        error = reply[-2]["error"]
        assert reply[-1] == "[DONE]"
    else:
        assert reply.status == 500, (reply.status, reply.body)
        error = reply.error()
    assert error["type"] == "server_error" and "the device failed" in error["message"] and says in error["message"], error
    return True


@pytest.mark.tsan
def test_lost_device(make_fake):
    """Who runs is told, who comes gets 503, /health says why, and the process ends by itself."""
    s = make_fake()
    threads, replies = ask_all(s, ["tokens=100000 delay_ms=10", "tokens=100000 delay_ms=10", "tokens=9 queue_ms=60000"], [True, False, False])
    while s.metric("num_requests_running") < 2 or s.metric("num_requests_waiting") < 1:
        time.sleep(0.02)
    held = Stream(s, {"messages": [{"role": "user", "content": "tokens=2000 big=20000"}], "stream": True})  # keeps the process until it is read
    assert s.get("/health").json() == {"status": "ok"}
    assert is_failure(s.chat("tokens=5 lost_after=3"), 'illegal')
    r = s.get("/health")
    assert r.status == 503 and r.json() == {"status": "failed", "reason": 'the device failed: test: "illegal" address'}
    r = s.chat("tokens=1")
    assert r.status == 503 and "illegal" in r.error()["message"] and "ending" in r.error()["message"]
    assert s.get("/v1/models").status == 503 and s.get("/metrics").status == 200
    for t in threads:
        t.join()
    assert all(is_failure(r, "illegal") for r in replies)
    held.close()
    assert s.proc.wait(PATIENCE) == FAILED


def test_lost_device_does_not_wait_for_ever(make_fake):
    s = make_fake("--drain-seconds", "1")
    held = Stream(s, {"messages": [{"role": "user", "content": "tokens=2000 big=20000"}], "stream": True})
    t0 = time.time()
    assert is_failure(s.chat("lost_after=0"), "illegal")
    assert s.proc.wait(PATIENCE) == FAILED and time.time() - t0 < 20
    held.close()


def test_lost_device_while_stopping(make_fake):
    """A stop that is under way stays one."""
    s = make_fake()
    threads, replies = ask_all(s, ["tokens=50 delay_ms=40 lost_after=40"], [True])
    while s.metric("num_requests_running") < 1:
        time.sleep(0.02)
    assert s.stop() == 0
    threads[0].join()
    assert is_failure(replies[0], "illegal")


# ---- the emulated device ----

SMALL = ("--max-num-batched-tokens", "48", "--max-num-seqs", "4", "--max-model-len", "160", "--image-memory", "8M", "--image-cache-memory", "2M")


def emulated(*args, memory=120 << 20, wait=True, model=MODEL, **env):
    if not EMU:
        pytest.skip("needs VLMD_EMU_BIN (make test-cuda-emu)")
    env = {"EMU_MEMORY": str(memory), "ASAN_OPTIONS": "detect_stack_use_after_return=0", **env}
    return Server(model, "--device", "cuda", *SMALL, *args, binary=EMU, env=env, wait=wait)


def with_picture(text, name="easy-vqa-1044.png"):
    return [image_part(picture(name)), text_part(text)]


def test_emulated_plan_of_memory():
    """What is planned is what is taken; the rest of the run takes no more."""
    begin = time.time()
    with emulated() as s:
        planned = re.search(r"GPU memory: ([\d.]+) MB weights, ([\d.]+) MB KV cache, ([\d.]+) MB activations, ([\d.]+) MB workspace, "
                            r"([\d.]+) MB pictures .* within ([\d.]+) of ([\d.]+) MB", s.text())
        weights, kv, activations, workspace, pictures, budget, total = map(float, planned.groups())
        assert abs(total - 125.8) < 0.1 and abs(budget - 0.9 * total) < 0.2 and abs(pictures - 8.4) < 0.1
        assert -0.3 < budget - (weights + kv + activations + workspace + pictures) < 0.6, s.text()  # less than a page and what rounding hides
        alone = s.chat(with_picture("What is in the image?"), temperature=0, max_tokens=6, logprobs=True)
        assert alone.status == 200
        threads, replies = ask_all(s, ["hello there", with_picture("What?"), with_picture("Which colour?", "easy-vqa-550.png"), "a b c d e f"], [False] * 4)
        for t in threads:
            t.join()
        assert all(r.status == 200 for r in replies)
        r = s.chat("hello", temperature=0.7, seed=1, max_tokens=4, logit_bias={"5": 3}, frequency_penalty=0.5, repetition_penalty=1.1)
        assert r.status == 200
        assert "more than was planned" not in s.text()
        assert 0 < s.metric("device_idle_seconds_total") < time.time() - begin


def test_emulated_plan_that_does_not_fit():
    """Each part is named, and nothing of it was taken before."""
    s = emulated(memory=20 << 20, wait=False)
    try:
        assert s.proc.wait(PATIENCE) == 1
    finally:
        s.proc.kill()
    s.reader.join(10)
    for part in ("weights 11.", "activations ", "workspace ", "pictures 8.0", "KV cache of at least ", "together, of 18.0", "0.9 of 20.0; 18.0 are free"):  # the backend has a few bytes: a block
        assert part in s.text(), (part, s.text())


def test_emulated_other_device():
    """The second of two, by a server whose model is loaded and whose steps run on different threads; there is no third."""
    with emulated("--device", "cuda:1") as s:
        assert "cuda:1 emulated" in s.text()
        assert s.chat(with_picture("What is in the image?"), temperature=0, max_tokens=6).status == 200
    s = emulated("--device", "cuda:2", wait=False)
    assert s.proc.wait(PATIENCE) == 1
    s.reader.join(10)
    assert "--device cuda:2: this machine has GPUs 0 to 1" in s.text()


@pytest.mark.parametrize("capability, says", [
    ("8.6", "emulated has compute capability 8.6, and this program's kernels, built for 9.0 and later, do not run there: no kernel image"),
    ("7.5", "emulated has compute capability 7.5; 8.0 or more is needed")])
def test_emulated_without_code_for_the_gpu(capability, says):
    """Refused where it was asked for, and passed over for the CPU where it was not."""
    s = emulated(wait=False, EMU_CAPABILITY=capability)
    assert s.proc.wait(PATIENCE) == 1
    s.reader.join(10)
    assert "--device cuda: " + says in s.text()
    with emulated("--device", "auto", EMU_CAPABILITY=capability) as s:
        assert s.chat("hello", max_tokens=2).status == 200
        assert any("computing on the CPU: " in line and says in line for line in s.log), s.text()
    with emulated(EMU_CAPABILITY="10.0") as s:
        assert s.chat("hello", max_tokens=2).status == 200


def test_emulated_utilization():
    with emulated("--gpu-memory-utilization", "0.5", memory=400 << 20) as half, emulated("--gpu-memory-utilization", "0.9", memory=400 << 20) as more:
        a, b = (s.metric("kv_cache_bytes") for s in (half, more))
        assert 0.39 * (400 << 20) < b - a < 0.41 * (400 << 20)


def test_emulated_kv_type():
    """16-bit weights' own type, unless bits are promised or somebody asks for another; f32 weights' is f32."""
    golden = ROOT / "tests" / "golden" / "models"
    for folder, args, kept in ((golden / "text_llama", (), "bfloat16"), (golden / "text_mistral", (), "float16"), (golden / "clip_llama", (), "float32"),
                               (golden / "text_llama", ("--deterministic",), "float32"), (golden / "text_llama", ("--kv-cache-dtype", "float16"), "float16")):
        with emulated("--max-model-len", "64", *args, model=folder) as s:
            assert f"of KV cache each ({kept})" in s.text()
            assert s.chat("hello", max_tokens=2).status == 200


def test_emulated_device_that_breaks(tmp_path):
    """A kernel that breaks the device, some steps after the start."""
    s = emulated("--max-model-len", "1024", EMU_FAIL_FILE=str(tmp_path / "fail"))
    threads, replies = ask_all(s, ["tell me more", "and more", "and still more"], [True, False, True])
    while s.metric("num_requests_running") < 1 and any(t.is_alive() for t in threads):
        time.sleep(0.02)
    (tmp_path / "fail").touch()
    for t in threads:
        t.join()
    broken = lambda r: r[-2] != "[DONE]" and "error" in r[-2] if isinstance(r, list) else r.status != 200
    while s.proc.poll() is None and not any(map(broken, replies)):  # which of them was on its way then is chance
        replies = [s.chat("go on", ignore_eos=True, max_tokens=50)]
    assert is_failure(next(filter(broken, replies)), "unspecified launch failure"), s.text()
    assert s.proc.wait(PATIENCE) == FAILED, s.text()


@pytest.mark.parametrize("what", [text_part("a red circle"), image_part(picture("easy-vqa-1044.png"))], ids=["text", "picture"])
def test_emulated_device_that_breaks_under_vectors(what, tmp_path):
    s = emulated("--max-model-len", "19", model=ROOT / "tests/golden/dual/clip_base", EMU_FAIL_FILE=str(tmp_path / "fail"))
    (tmp_path / "fail").touch()
    assert is_failure(s.post("/v1/embeddings", {"input": [what]}), "unspecified launch failure"), s.text()
    assert s.proc.wait(PATIENCE) == FAILED, s.text()
    s.reader.join(10)
    assert len([line for line in s.log if "unspecified launch failure" in line]) == 1, s.text()


def test_emulated_ready_before_the_first_request():
    """Steps and pictures ran at start, which no figure knows of; TF32 where it is asked for."""
    with emulated("--allow-tf32", model=ROOT / "tests/golden/models/clip_llama") as s:
        ran = re.search(r"ran (\d+) steps and (\d+) blank pictures before the first request: (\d+) plans of products", s.text())
        assert ran and all(int(n) > 0 for n in ran.groups()), s.text()
        assert "products of f32 weights in TF32" in s.text() and "more than was planned" not in s.text()
        for name in ("prompt_tokens_total", "generation_tokens_total", "mm_cache_queries_total", "kv_cache_usage_perc"):
            assert s.metric(name) == 0, name


def test_emulated_eager_as_captured():
    """The same answer, digit by digit, with graphs and without; the log says when there are any."""
    got = []
    for args in ((), ("--enforce-eager",)):
        with emulated("--max-model-len", "1024", "--max-num-seqs", "1", *args) as s:
            got.append(s.chat("hello", temperature=0, max_tokens=4, logprobs=True, top_logprobs=2, ignore_eos=True).json()["choices"])
            assert any("captured steps" in line for line in s.log) == (not args), s.text()
    assert got[0] == got[1]


def test_emulated_deterministic_long_alone_as_together():
    """Greedy answers and log-probabilities, digit by digit, alone and beside others; pictures are encoded anew each time."""
    with emulated("--deterministic", "--no-prefix-caching", "--image-cache-memory", "0", "--max-num-seqs", "6") as s:
        def ask(text):
            return s.chat(text, temperature=0, max_tokens=3, logprobs=True, top_logprobs=2, ignore_eos=True).json()["choices"]
        texts = ["hello", "a red circle on the left of a blue square, and a longer text than the others", "one two three", "what is it?",
                 with_picture("what?"), with_picture("where?", "easy-vqa-550.png")]
        alone = [ask(t) for t in texts]
        together = [None] * len(texts)

        def one(i):
            together[i] = ask(texts[i])
        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(texts))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert together == alone
