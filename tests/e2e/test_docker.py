"""docker/Dockerfile, as far as it can be checked without building it: its packages, paths and health check."""
import json
import re
import shutil
import subprocess

import pytest
from conftest import ROOT, VLMD

TEXT = (ROOT / "docker" / "Dockerfile").read_text()


def test_packages():
    """The second stage installs exactly the packages of the libraries that the program names."""
    if not shutil.which("dpkg-query") or not shutil.which("objdump"):
        pytest.skip("needs dpkg and objdump")
    needed = re.findall(r"NEEDED\s+(\S+)", subprocess.run(["objdump", "-p", VLMD], capture_output=True, text=True, check=True).stdout)
    paths = dict(re.findall(r"(\S+) => (/\S+)", subprocess.run(["ldd", VLMD], capture_output=True, text=True, check=True).stdout))
    packages = set()
    for lib in needed:
        if re.match(r"(lib(c|m|asan|ubsan|tsan|gcc_s|pthread)|ld-linux-x86-64)\.so", lib):
            continue
        path = str((ROOT / paths[lib]).resolve())
        r = subprocess.run(["dpkg-query", "-S", path], capture_output=True, text=True)
        if r.returncode and path.startswith("/usr/lib/"):  # merged /usr: dpkg may know it by the other name
            r = subprocess.run(["dpkg-query", "-S", path[4:]], capture_output=True, text=True)
        if r.returncode or "bookworm" not in open("/etc/os-release").read():
            pytest.skip(f"{path} is of no package of Debian 12")
        packages.add(re.sub(r"libopenblas0-\w+", "libopenblas0-pthread", r.stdout.split(":")[0]))
    stage = TEXT.split("FROM debian:bookworm-slim\n")[1]
    listed = re.search(r"apt-get install -y --no-install-recommends \\\n(.*?)&&", stage, re.S)[1]
    assert set(re.findall(r"lib[\w.+-]+", listed)) == packages


def test_sources_are_there():
    for src in re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.M):
        for path in src.split():
            assert (ROOT / path).exists(), path
    compose = (ROOT / "docker" / "compose.yaml").read_text()
    assert "dockerfile: docker/Dockerfile" in compose
    # serve_find_model looks there, seen from /usr/local/bin.
    assert "/usr/local/share/vlmd/models/vlmd-tiny" in TEXT and '"/../share/vlmd/models/vlmd-tiny"' in (ROOT / "server" / "serve.c").read_text()


def test_health_check(make_fake):
    cmd = json.loads(re.search(r"HEALTHCHECK .* CMD (\[.*\])$", TEXT, re.M)[1])
    s = make_fake()
    assert subprocess.run([*cmd[:2], cmd[2].replace("8000", str(s.port))], timeout=20).returncode == 0
    loading = make_fake(env={"FAKE_LOAD_MS": "3000"}, wait=False)
    assert subprocess.run([*cmd[:2], cmd[2].replace("8000", str(loading.port))], timeout=20).returncode != 0
    loading.wait_ready()
    port = s.port
    s.stop()
    assert subprocess.run([*cmd[:2], cmd[2].replace("8000", str(port))], timeout=20, stderr=subprocess.DEVNULL).returncode != 0
