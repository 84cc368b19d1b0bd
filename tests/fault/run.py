#!/usr/bin/env python3
"""Lets every call of the request path fail in turn, at start, in one request of each kind and under load.

VLMD_FAULT_BIN names the program (build/asan/tests/fault/vlmd_fault for `make test-fault`). What is looked for: crashes, leaks
(the program ends with AddressSanitizer's status), hangs, wrong answers, errors of the wrong form, descriptors and pages that do
not come back. FAULT_STARTS and FAULT_LOAD bound the first and the last part (0: none); FAULT_ALL=1 tries every call at start,
where otherwise two of each call stack do for what is called more than 100 times. Ends with 0 when nothing was found."""
import collections
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from inject import BINARY, FORMATS, HANG_S, KINDS, MODEL, ROOT, Control, ask, cases, drawn, gauges, judge, server

STARTS = int(os.environ.get("FAULT_STARTS", 10**9))
LOAD = int(os.environ.get("FAULT_LOAD", 2000))
NO_CACHES = ("--no-prefix-caching", "--image-cache-memory", "0")
SMALL_CACHES = ("--image-cache-memory", "300K", "--kv-cache-memory", "12M")


class Findings:
    def __init__(self):
        self.lock, self.found, self.tried = threading.Lock(), [], collections.Counter()

    def add(self, where, what):
        with self.lock:
            self.found.append(f"{where}: {what}")
            if len(self.found) <= 60:
                print("  FOUND " + self.found[-1][:3000], flush=True)


# ---- start ----

def one_start(right, kind, n):
    """Starts with one fault. None, or what is wrong; and whether it started."""
    control = Control()
    control.arm(kind, n)
    try:
        return _one_start(control, right, kind)
    finally:
        control.close()


def _one_start(control, right, kind):
    p = subprocess.Popen([str(BINARY), "serve", str(MODEL), "--port", "0", "--threads", "2"], cwd=ROOT, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, env={**os.environ, **control.env})
    os.set_blocking(p.stdout.fileno(), False)
    log, port, end = "", None, time.time() + HANG_S
    try:
        while time.time() < end and p.poll() is None:
            log += (p.stdout.read() or b"").decode("utf-8", "replace")
            m = re.search(r"listening on http://\S+:(\d+)", log)
            port = int(m.group(1)) if m else None
            if port and "serving vlmd-tiny" in log:
                break
            time.sleep(0.02)
        if p.poll() is None:
            if not port or "serving vlmd-tiny" not in log:
                return f"hung at start: {control.stack()} | {log}", False
            control.disarm()
            for name in ("picture", "text"):
                a = ask(port, cases()[name])
                if a.value != right[name]:
                    return f"{name} after the start: {a.status} {a.detail}: {control.stack()} | {log}", True
            p.send_signal(signal.SIGTERM)
            code, started = p.wait(HANG_S), True
        else:
            code, started = p.returncode, False
    except (TimeoutError, OSError, subprocess.TimeoutExpired) as e:
        return f"{e!r}: {control.stack()} | {log}", bool(port)
    finally:
        if p.poll() is None:
            p.kill()
        p.wait()
        log += (p.stdout.read() or b"").decode("utf-8", "replace")
        p.stdout.close()
    if started and code != 0:
        return f"ended with {code} after it had started: {control.stack()} | {log}", True
    if not started and (code not in (1, 2) or "vlmd serve: " not in log):
        return f"ended with {code}: {control.stack()} | {log}", False
    return None, started


def starts(findings, right, most=STARTS):
    control = Control()
    control.c.record = 1
    s = server(control)
    s.stop()
    plan = {(kind, n) for kind, first, last in control.sites() for n in (first, last)}
    for kind, n in control.calls().items():
        if os.environ.get("FAULT_ALL") or n <= 100:
            plan |= {(kind, i) for i in range(1, n + 1)}
    control.close()
    plan = sorted(plan)
    random.Random(1).shuffle(plan)
    begun = 0

    def run(fault):
        nonlocal begun
        wrong, started = one_start(right, *fault)
        begun += started
        if wrong:
            findings.add(f"start, {fault[0]} {fault[1]}", wrong)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, plan[:most]))
    print(f"starts with a fault: {len(plan[:most])} of {len(plan)}; {begun} served nevertheless", flush=True)


# ---- one request ----

class Target:
    """A running server whose faults are armed one at a time."""

    def __init__(self, findings, *args):
        self.findings, self.args = findings, args
        self.begin()

    def begin(self):
        self.control = Control()
        self.server = server(self.control, *self.args)

    def end(self, where):
        self.control.disarm()
        code = self.server.stop()
        if code != 0:
            self.findings.add(where, f"the server ended with {code}: {''.join(self.server.log)}")
        self.control.close()

    def fault(self, where, case, right, kind, n, count=1):
        """One fault and what follows it. False when that call was not made."""
        before = self.control.failed()
        self.control.arm(kind, n, count)
        try:
            answer = ask(self.server.port, case)
            self.control.disarm()
            hit = self.control.failed() > before
            wrong = judge(answer, right, kind)
            again = ask(self.server.port, case)
            if not wrong and (again.status != 200 or again.value != right):
                wrong = f"the same request after it: {again.status} {again.detail}"
        except TimeoutError:
            wrong, hit = "hung", True
        except (OSError, ValueError) as e:
            wrong, hit = repr(e), True
        if wrong:
            self.findings.add(f"{where}, {kind} {n}", f"{wrong}: {self.control.stack()}")
        if self.server.proc.poll() is not None or wrong == "hung":
            self.end(where)
            self.begin()
        self.findings.tried[kind] += hit
        return hit

    def settled(self, where, files):
        end = time.time() + 10
        while True:
            left = gauges(self.server) or (f"{self.server.files()} descriptors, {files} before" if self.server.files() > files + 1 else None)
            if not left:
                return
            if time.time() > end:
                return self.findings.add(where, left)
            time.sleep(0.1)

    def calls_of(self, case):
        before = self.control.calls()
        ask(self.server.port, case)
        time.sleep(0.05)
        return {k: n - before[k] for k, n in self.control.calls().items() if n > before[k]}


def requests(findings, right, every=1, kinds=KINDS, names=None):
    """Every call of every kind, of a server without caches. every: only each so manieth call."""
    target = Target(findings, *NO_CACHES)
    for name, case in cases().items():
        if names and name not in names:
            continue
        target.calls_of(case)  # buffers grow once
        made = target.calls_of(case)
        for kind in (k for k in made if k in kinds and (name not in FORMATS or "memory" in k)):
            files, n, missed = target.server.files(), 1, 0
            while missed < 3 and n <= 3 * made[kind] + 10:  # a call more or less: threads race
                missed = 0 if target.fault(name, case, right[name], kind, n) else missed + 1
                n += every
            if kind == "memory":  # memory stays short
                for n in range(1, made[kind] + 1, 3 * every):
                    target.fault(name + ", on and on", case, right[name], kind, n, 10**6)
            target.settled(f"{name}, {kind}", files)
    target.end("requests")


def cached_requests(findings, bodies, right, every=1):
    """The same with caches that hold a few pictures: new pictures and known ones take turns."""
    target, turn = Target(findings, *SMALL_CACHES), 0
    for kind in ("memory", "library memory", "lock", "library send", "library recv"):
        made = target.calls_of(bodies[0]).get(kind, 0)
        files = target.server.files()
        for n in range(1, made + 30, every):
            turn = (turn + 1) % len(bodies)
            target.fault("cached", bodies[turn], right[turn], kind, n)
        target.settled(f"cached, {kind}", files)
    target.end("cached requests")


# ---- load ----

def load(findings, bodies, right, budget, clients=8, seconds=1500):
    """Random faults of every kind, evenly, while clients ask everything at once."""
    control = Control()
    s = server(control, *SMALL_CACHES)
    work, rng = list(zip(bodies, right)), random.Random(7)
    before = control.calls()
    for body, _ in work:
        ask(s.port, body)
    made = {k: (n - before[k]) / len(work) for k, n in control.calls().items()}
    files, seen, lock = s.files(), collections.Counter(), threading.Lock()
    chances = {k: 0.06 / max(made[k], 0.05) for k in KINDS if k != "wait" and k != "library wait"}
    control.arm_at_random(chances, 1, budget)
    until = time.time() + seconds

    def client(number):
        mine = random.Random(number)
        while control.c.budget > 0 and time.time() < until and s.proc.poll() is None:
            case, want = mine.choice(work)
            try:
                a = ask(s.port, case)
                wrong = judge(a, want, "library memory")
            except TimeoutError:
                a, wrong = None, "hung"
            except (OSError, ValueError) as e:
                a, wrong = None, repr(e)
            with lock:
                seen["closed" if a is None or a.status is None else a.status] += 1
            if wrong:
                findings.add("load", f"{wrong}: {control.stack()}")
    threads = [threading.Thread(target=client, args=(rng.random(),)) for _ in range(clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    control.disarm()
    print(f"load: {sum(seen.values())} requests of {clients} clients, {control.failed()} faults {control.failed_by_kind()}; answers {dict(seen)}")
    if s.proc.poll() is None:
        end = time.time() + 30
        while (gauges(s) or s.files() > files + 1) and time.time() < end:
            time.sleep(0.1)
        if gauges(s) or s.files() > files + 1:
            findings.add("load", f"{gauges(s)}, {s.files()} descriptors, {files} before")
        for case, want in work:
            a = ask(s.port, case)
            if a.value != want:
                findings.add("load", f"afterwards: {a.status} {a.detail}")
    code = s.stop()
    if code != 0:
        findings.add("load", f"the server ended with {code}: {''.join(s.log)}")
    control.close()


def right_answers():
    """Those of a server that nothing happens to: ({name: value} of cases, [value] of drawn bodies, the bodies)."""
    control, bodies = Control(), drawn(24)
    s = server(control, *NO_CACHES)
    right = {name: ask(s.port, case).value for name, case in cases().items()}
    answers = [ask(s.port, b).value for b in bodies]
    if s.stop() != 0:
        raise SystemExit("the program does not end well without any fault:\n" + "".join(s.log))
    control.close()
    return right, answers, bodies


def main():
    findings, begin = Findings(), time.time()
    right, answers, bodies = right_answers()
    requests(findings, right)
    cached_requests(findings, bodies, answers)
    print(f"requests with a fault: {sum(findings.tried.values())}: {dict(findings.tried)}", flush=True)
    if LOAD:
        load(findings, list(cases().values()) + bodies, list(right.values()) + answers, LOAD)
    if STARTS:
        starts(findings, right)
    print(f"faults injected in {time.time() - begin:.0f} s; found {len(findings.found)}")
    return 1 if findings.found else 0


if __name__ == "__main__":
    sys.exit(main())
