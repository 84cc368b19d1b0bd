"""vLLM's OpenAI server as a child process, for the same clients as vlmd's. Standard library only."""
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request


class VllmServer:
    """Raises RuntimeError that says why there is none. What it prints goes to a file."""
    name = "bench"

    def __init__(self, model, max_seqs, log, patience_s=1200):
        if importlib.util.find_spec("vllm") is None:
            raise RuntimeError("vllm is not installed")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        begin = time.perf_counter()
        with open(log, "w") as out:
            self.proc = subprocess.Popen([sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", self.name,
                                          "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "bfloat16", "--max-model-len", "4096",
                                          "--max-num-seqs", str(max_seqs), "--chat-template", str(model / "chat_template.jinja")],
                                         stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        while time.perf_counter() - begin < patience_s and self.proc.poll() is None:
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).status == 200:
                    self.start_s = time.perf_counter() - begin
                    return
            except OSError:
                time.sleep(0.5)
        self.stop()
        raise RuntimeError(f"its server did not start: {log}")

    def stop(self):
        """With all processes that it started: the GPU is free again."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.proc.pid, how)
            except ProcessLookupError:
                break
            try:
                self.proc.wait(60)
            except subprocess.TimeoutExpired:
                continue
        self.proc.wait()
