"""Ends of the real engine: SIGTERM in the middle of everything, SIGKILL with nothing to repair."""
import http.client
import json
import signal
import socket
import threading
import time

from conftest import FAKE, MODEL, PATIENCE, Server, Stream, image_part, need_fake, picture, text_part


def test_sigterm_in_the_middle():
    """Streams with and without pictures are decoding, prefilling and queued: each ends with its finish or with an error
    event, and the program with 0."""
    s = Server(MODEL, "--drain-seconds", "0.2", "--max-num-seqs", "2")
    ends, lock = [], threading.Lock()

    def one(i):
        content = [image_part(picture("easy-vqa-1044.png")), text_part("What is it?")] if i % 2 else f"Tell me about {i}"
        body = {"messages": [{"role": "user", "content": content}], "stream": True, "max_tokens": 1500, "ignore_eos": True}
        with Stream(s, body) as st:
            last = list(st.events()) if st.status == 200 else json.loads(st.r.read())
        with lock:
            ends.append((st.status, last))
    threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    until = time.time() + PATIENCE
    while time.time() < until and s.metric("num_requests_running") < 2:
        time.sleep(0.01)
    assert s.stop() == 0, s.text()
    for t in threads:
        t.join()
    assert len(ends) == 8
    failed = 0
    for status, last in ends:
        if status != 200:
            assert status == 503 and "shutting down" in last["error"]["message"]
            continue
        assert last[-1] == "[DONE]"
        if "error" in last[-2]:
            failed += 1
            assert "shutting down" in last[-2]["error"]["message"]
    assert failed  # eight such answers take longer than that


def test_sigkill_and_start_again():
    """The same port at once, with connections of the old server still open."""
    need_fake()
    s = Server(binary=FAKE)
    st = Stream(s, {"messages": [{"role": "user", "content": "tokens=100000 delay_ms=10"}], "stream": True})
    next(st.events())
    idle = socket.create_connection(("127.0.0.1", s.port))
    assert s.stop(signal.SIGKILL) == -signal.SIGKILL
    try:
        for _ in st.events():
            pass
    except (http.client.HTTPException, OSError):
        pass
    with Server("--port", s.port, binary=FAKE) as again:
        assert again.port == s.port and again.chat("tokens=1").status == 200
    st.close()
    idle.close()
