"""Starting and stopping: usage, options, config files, ports, loading, signals."""
import json
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from conftest import FAKE, MODEL, PATIENCE, ROOT, VLMD, Server, Stream, need_fake


def run(*args, binary=None, stdin=""):
    return subprocess.run([str(binary or (VLMD if VLMD.exists() else FAKE)), *args], input=stdin, capture_output=True, text=True,
                          timeout=PATIENCE, cwd=ROOT)


@pytest.mark.parametrize("args", [[], ["serve"], ["tokenize"], ["render"], ["inspect"]])
def test_help_and_version(args):
    r = run(*args, "--help")
    assert r.returncode == 0 and r.stdout.startswith("usage: vlmd") and not r.stderr
    r = run(*args, "--version")
    assert r.returncode == 0 and re.match(r"vlmd \d+\.\d+\.\d+\n$", r.stdout)


@pytest.mark.parametrize("args,says", [
    ([], "no command"), (["sevre"], 'did you mean "serve"?'), (["--bogus"], "unknown command"), (["serve", "--prot", "1"], "--port"),
    (["serve", "--port"], "needs a value"), (["serve", "--port", "99999"], "65535"), (["serve", "a", "b"], "unexpected argument"),
    (["serve", "--log-level", "loud"], "loud"), (["tokenize"], "TOKENIZER"), (["render"], "TEMPLATE"), (["inspect"], "MODEL_DIR"),
    (["tokenize", "--jsonlines", "x"], "--json-lines"), (["inspect", "--verbose", "x"], "unknown option"),
    (["tokenize", "--decode", "models/vlmd-tiny"], "--json-lines"), (["serve", "--threads", "x"], "--threads expects a whole number"),
    (["serve", "--api-key", ""], "empty"), (["serve", "--max-body-size", "12Q"], "size"),
])
def test_bad_usage(args, says):
    r = run(*args)
    assert r.returncode == 2 and r.stdout == "" and says in r.stderr
    assert 1 <= len(r.stderr.splitlines()) <= 2


def test_config_file(tmp_path):
    need_fake()
    f = tmp_path / "c.json"
    f.write_text(json.dumps({"served_model_name": ["a", "b"], "max-model-len": 100, "port": 1}))
    with Server("--config", f, binary=FAKE) as s:  # --port 0 wins
        assert [m["id"] for m in s.get("/v1/models").json()["data"]] == ["a", "b"]
        assert s.get("/v1/models").json()["data"][0]["max_model_len"] == 100
        assert s.chat("tokens=1", model="b").json()["model"] == "b"
        assert s.chat("tokens=1", model="vlmd-tiny").status == 404
    f.write_text('{"prot": 1}')
    r = run("serve", "--config", str(f))
    assert r.returncode == 2 and '"port"' in r.stderr and str(f) in r.stderr
    f.write_text('{"port": "x"')
    assert run("serve", "--config", str(f)).returncode == 2
    assert run("serve", "--config", str(tmp_path / "none.json")).returncode == 2


def test_port_in_use():
    need_fake()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        r = run("serve", "--port", str(s.getsockname()[1]), binary=FAKE)
    assert r.returncode == 1 and "in use" in r.stderr and len(r.stderr.splitlines()) == 1


def test_bad_addresses_and_folders(tmp_path):
    need_fake()
    r = run("serve", "--port", "0", "--host", "203.0.113.7", binary=FAKE)
    assert r.returncode == 1 and "203.0.113.7" in r.stderr
    r = run("serve", "--port", "0", "--host", "no such host", binary=FAKE)
    assert r.returncode == 1 and "no such host" in r.stderr
    r = run("serve", "--port", "0", str(tmp_path / "none"), binary=FAKE)
    assert r.returncode == 1 and "none" in r.stderr
    r = run("serve", "--port", "0", str(ROOT / "Makefile"), binary=FAKE)
    assert r.returncode == 1 and "folder" in r.stderr


def test_model_that_does_not_load(make_fake):
    s = make_fake(env={"FAKE_LOAD_ERROR": "model.safetensors: tensor x: expected [2, 3], found [3, 2]"}, wait=False)
    assert s.proc.wait(PATIENCE) == 1
    s.reader.join(10)
    assert "expected [2, 3], found [3, 2]" in s.text()


@pytest.mark.tsan
def test_loading(make_fake):
    """It listens before the model is there, and says so."""
    s = make_fake(env={"FAKE_LOAD_MS": "1500"}, wait=False)
    r = s.get("/health")
    assert r.status == 503 and r.json()["status"] == "loading"
    r = s.chat("tokens=1")
    assert r.status == 503 and "loading" in r.error()["message"] and r.headers["Retry-After"]
    assert s.get("/metrics").status == 200 and s.get("/version").status == 200
    s.wait_ready()
    assert s.chat("tokens=1").status == 200


def test_start_message(make_fake):
    s = make_fake()
    with s.lines:
        assert s.lines.wait_for(lambda: "curl" in s.text(), PATIENCE)
    text = s.text()
    assert f"http://127.0.0.1:{s.port}" in text and "scripted answers" in text
    curl = [line for line in text.splitlines() if line.strip().startswith("curl ")][0]
    r = subprocess.run(curl + " -s", shell=True, capture_output=True, text=True, timeout=PATIENCE)
    assert json.loads(r.stdout)["object"] == "chat.completion", (curl, r.stdout, r.stderr)


@pytest.mark.tsan
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_stop(make_fake, sig):
    s = make_fake()
    assert s.chat("tokens=1").status == 200
    t0 = time.time()
    assert s.stop(sig) == 0
    assert time.time() - t0 < 20


def test_stop_while_loading(make_fake):
    s = make_fake(env={"FAKE_LOAD_MS": "100000"}, wait=False)
    t0 = time.time()
    assert s.stop() == 0 and time.time() - t0 < 20


@pytest.mark.tsan
def test_drain(make_fake):
    """What runs is finished; what comes is refused; /health says 503."""
    s = make_fake()
    results = []
    threads = [threading.Thread(target=lambda: results.append(s.chat("tokens=30 delay_ms=100"))),
               threading.Thread(target=lambda: results.append(s.stream("tokens=30 delay_ms=100")))]
    for t in threads:
        t.start()
    while s.metric("num_requests_running") < 2:
        time.sleep(0.02)
    s.proc.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    r = s.get("/health")
    assert r.status == 503 and r.json()["status"] == "draining"
    r = s.chat("tokens=1")
    assert r.status == 503 and "shutting down" in r.error()["message"]
    for t in threads:
        t.join()
    assert s.proc.wait(PATIENCE) == 0
    for r in results:
        if isinstance(r, list):
            assert r[-1] == "[DONE]" and r[-2]["choices"][0]["finish_reason"] == "stop"
        else:
            assert r.status == 200


@pytest.mark.tsan
@pytest.mark.parametrize("twice", [False, True])
def test_drain_ends(make_fake, twice):
    """Past the time for draining, or at a second signal, streams end with an error."""
    s = make_fake("--drain-seconds", "1000" if twice else "1")
    results = []
    threads = [threading.Thread(target=lambda: results.append(s.chat("tokens=100000 delay_ms=20"))),
               threading.Thread(target=lambda: results.append(s.stream("tokens=100000 delay_ms=20")))]
    for t in threads:
        t.start()
    while s.metric("num_requests_running") < 2:
        time.sleep(0.02)
    s.proc.send_signal(signal.SIGTERM)
    if twice:
        time.sleep(0.5)
        s.proc.send_signal(signal.SIGTERM)
    for t in threads:
        t.join()
    assert s.proc.wait(PATIENCE) == 0
    assert len(results) == 2
    for r in results:
        if isinstance(r, list):
            assert r[-1] == "[DONE]" and "shutting down" in r[-2]["error"]["message"]
        else:
            assert r.status == 503 and "shutting down" in r.error()["message"]


@pytest.mark.tsan
def test_drain_with_a_reader_that_does_not_read(make_fake):
    s = make_fake("--drain-seconds", "1")
    st = Stream(s, {"messages": [{"role": "user", "content": "tokens=1000 big=20000"}], "stream": True})
    time.sleep(0.5)
    t0 = time.time()
    assert s.stop() == 0 and time.time() - t0 < 30
    st.close()
