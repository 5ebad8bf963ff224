#!/usr/bin/env python3
"""Measures the whole program: two real ends on this machine, beside what the machine can do and what others do.

  make bench                                     builds, measures, prints a table
  python3 benches/whole.py --bin PATH [--runs N] [--texts N] [--mib N] [--only WORD]

Beside it, where they are given: magic-wormhole.rs (`--mw PATH` to `wormhole-rs`, with `--mw-servers VENV`, a virtual
environment that holds magic-wormhole-mailbox-server and magic-wormhole-transit-relay; needs root and iproute2, because
its clients do not offer a loopback address: they run in a network namespace of their own with another address).

Standard library only. Everything is on loopback and in a directory of its own on /dev/shm, and is taken away again.
"""
from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
ADDRESS = "198.51.100.1/32"  # on lo of our own network namespace only
ROWS: list[tuple[str, str]] = []


def row(what: str, figure: str) -> None:
    ROWS.append((what, figure))
    print(f"  {what:<58} {figure}", flush=True)


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def peak_mib(pid: int) -> float:
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


class Watch:
    """Blocks until something in a directory, or a file, changes (inotify)."""

    MODIFY, MOVED_TO = 0x2, 0x80

    def __init__(self, path: Path, mask: int):
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_CLOEXEC)
        if libc.inotify_add_watch(self.fd, os.fsencode(path), mask) < 0:
            raise OSError(ctypes.get_errno(), f"inotify on {path}")

    def wait(self) -> list[str]:
        data, names = os.read(self.fd, 65536), []
        while data:
            _, _, _, length = struct.unpack("iIII", data[:16])
            names.append(data[16:16 + length].rstrip(b"\0").decode())
            data = data[16 + length:]
        return names

    def close(self) -> None:
        os.close(self.fd)


class Channel:
    """Two ends; `mode` is direct, local (the relay inside the host) or relay (one of its own)."""

    def __init__(self, binary: Path, work: Path, mode: str):
        self.binary, self.mode, self.procs = binary, mode, []
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AGENT_WORMHOLE_")}
        runtime = work / f"run-{mode}-{time.monotonic_ns()}"
        runtime.mkdir(mode=0o700)
        self.env |= {"XDG_RUNTIME_DIR": str(runtime), "XDG_CONFIG_HOME": str(runtime / "config")}
        self.relay = None
        if mode == "relay":
            argv = ["relay", "--listen", "127.0.0.1:0", "--messages-per-minute", "0", "--bytes-per-minute", "0"]
            self.relay = self.start(argv, stderr=subprocess.PIPE)
            line = self.relay.stderr.readline()
            address = re.search(r"127\.0\.0\.1:\d+", line)
            if not address:
                raise RuntimeError(f"the relay says {line!r}")
            self.env["AGENT_WORMHOLE_RELAY_URL"] = f"ws://{address.group(0)}"
        self.host = self.start(["host", "--direct"] if mode == "direct" else ["host"])
        event = self.event(self.host, "channel")
        code = event["code"] + ("@127.0.0.1" if mode == "direct" else "")
        self.outbox = Path(event["mount"]) / "outbox"
        self.peer = self.start(["connect", code])
        self.inbox = Path(self.event(self.peer, "channel")["mount"]) / "inbox"
        self.event(self.peer, "connected")
        self.event(self.host, "connected")

    def start(self, argv, stderr=subprocess.DEVNULL):
        p = subprocess.Popen([str(self.binary), *argv], env=self.env, stdout=subprocess.PIPE, stderr=stderr,
                             stdin=subprocess.DEVNULL, text=True)
        self.procs.append(p)
        return p

    @staticmethod
    def event(proc, name: str) -> dict:
        for line in proc.stdout:
            event = json.loads(line)
            if event.get("event") == name:
                return event
        raise RuntimeError(f"ended before {name}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for p in reversed(self.procs):
            p.send_signal(signal.SIGTERM)
        for p in self.procs:
            try:
                p.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                p.kill()
                p.communicate()


def texts(channel: Channel, count: int) -> list[float]:
    """Milliseconds from the close of a short text to its line in the other end's log."""
    took = []
    log = channel.inbox / "log.jsonl"
    watch = Watch(log, Watch.MODIFY)
    for n in range(count + 20):
        # What is still in the outbox has to leave: the next one finds an idle channel, as a person's would.
        with open(channel.outbox / f"{n:05}.msg", "w") as f:
            f.write(f"message {n}\n")
        start = time.perf_counter()
        watch.wait()
        took.append((time.perf_counter() - start) * 1000)
        time.sleep(0.004)
    watch.close()
    return sorted(took[20:])


def overtaking(channel: Channel, big: Path) -> list[float]:
    """The same while the file is under way."""
    took = []
    arrived = channel.inbox / "under-way.bin"
    os.symlink(big, channel.outbox / arrived.name)
    # It is under way once its head has been settled, read and taken.
    time.sleep(0.1)
    watch = Watch(channel.inbox / "log.jsonl", Watch.MODIFY)
    while True:
        with open(channel.outbox / f"overtakes-{len(took):05}.msg", "w") as f:
            f.write("while a file is under way\n")
        start = time.perf_counter()
        watch.wait()
        if arrived.exists():
            break
        took.append((time.perf_counter() - start) * 1000)
        time.sleep(0.01)
    watch.close()
    arrived.unlink()
    return sorted(took)


def transfers(channel: Channel, big: Path, runs: int) -> list[dict]:
    rows = []
    procs = {"host": channel.host, "peer": channel.peer} | ({"relay": channel.relay} if channel.relay else {})
    for n in range(runs + 1):
        name = f"big-{n}.bin"
        watch = Watch(channel.inbox, Watch.MOVED_TO)
        before = {k: cpu(p.pid) for k, p in procs.items()}
        start = time.perf_counter()
        os.symlink(big, channel.outbox / name)
        while name not in watch.wait():
            pass
        seconds = time.perf_counter() - start
        watch.close()
        time.sleep(0.05)
        rows.append({"seconds": seconds} | {k: cpu(p.pid) - before[k] for k, p in procs.items()})
        (channel.inbox / name).unlink()
    return rows[1:]


def measure(binary: Path, work: Path, big: Path, a) -> None:
    mb = big.stat().st_size / 1e6
    for mode in ("direct", "local", "relay"):
        if a.only and a.only not in mode:
            continue
        with Channel(binary, work, mode) as channel:
            idle = {k: peak_mib(p.pid) for k, p in (("host", channel.host), ("peer", channel.peer))}
            took = texts(channel, a.texts)
            p50, p95 = took[len(took) // 2], took[int(len(took) * 0.95)]
            row(f"text, outbox to the other log, {mode}: p50 / p95", f"{p50:.2f} / {p95:.2f} ms")
            took = overtaking(channel, big)
            row(f"the same while the file is under way, {mode}: p50 / longest of {len(took)}",
                f"{took[len(took) // 2]:.2f} / {took[-1]:.2f} ms")
            rows = transfers(channel, big, a.runs)
            rate = statistics.median(mb / r["seconds"] for r in rows)
            used = ", ".join(f"{k} {statistics.median(r[k] for r in rows):.2f}" for k in rows[0] if k != "seconds")
            row(f"{a.mib} MiB by reference, {mode}: median of {len(rows)}", f"{rate:.0f} MB/s   CPU s: {used}")
            grown = {k: peak_mib(p.pid) - idle[k] for k, p in (("host", channel.host), ("peer", channel.peer))}
            row(f"peak memory above idle, {mode}: host / peer", f"{grown['host']:.1f} / {grown['peer']:.1f} MiB")


def startup(binary: Path, work: Path) -> None:
    env = os.environ | {"XDG_RUNTIME_DIR": str(work), "XDG_CONFIG_HOME": str(work / "config")}
    took = []
    for _ in range(51):
        start = time.perf_counter()
        subprocess.run([binary, "status"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        took.append((time.perf_counter() - start) * 1000)
    row("agent-wormhole status, start to end: median of 50", f"{statistics.median(took[1:]):.1f} ms")


def machine(big: Path, work: Path, repo: Path) -> None:
    """What the hardware allows: one core's cipher, one core's copy from tmpfs to tmpfs."""
    mb = big.stat().st_size / 1e6
    start = time.perf_counter()
    shutil.copyfile(big, work / "copy.bin")
    row("copy of the file, tmpfs to tmpfs, one core", f"{mb / (time.perf_counter() - start):.0f} MB/s")
    (work / "copy.bin").unlink()
    argv = ["cargo", "bench", "-q", "--bench", "parts", "--", "seal 256 KiB", "--quick"]
    out = subprocess.run(argv, cwd=repo, capture_output=True, text=True).stdout
    rate = re.search(r"thrpt:\s+\[[\d.]+ \S+ ([\d.]+ \S+)", out)
    row("AES-256-GCM, seal 256 KiB, one core", rate.group(1) if rate else "not measured: " + out[-200:])


def magic_wormhole(a, work: Path, big: Path) -> None:
    """In a network namespace of its own: `wormhole-rs`, direct and through a transit relay."""
    if os.environ.get("WHOLE_NAMESPACE") != "1":
        env = os.environ | {"WHOLE_NAMESPACE": "1"}
        subprocess.run(["unshare", "-n", sys.executable, __file__, *sys.argv[1:], "--mw-only", str(big)], env=env)
        return
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "addr", "add", ADDRESS, "dev", "lo"], check=True)
    twistd, servers = a.mw_servers / "bin/twistd", []
    state = work / "mw"
    state.mkdir()
    for argv in (["wormhole-mailbox", "--port=tcp:4000:interface=127.0.0.1", f"--channel-db={state}/relay.sqlite"],
                 ["transitrelay", "--port=tcp:4001:interface=127.0.0.1"]):
        servers.append(subprocess.Popen([twistd, "-n", "--pidfile=", *argv], cwd=state, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL))
    time.sleep(3)
    try:
        for mode in ("direct", "relay"):
            runs = [wormhole_rs(a.mw, state, big, mode) for _ in range(a.runs)]
            rate = statistics.median(big.stat().st_size / 1e6 / seconds for seconds, _, _ in runs)
            used = ", ".join(f"{statistics.median(r[n] for r in runs):.1f}" for n in (1, 2))
            row(f"magic-wormhole.rs, {mode}: median of {len(runs)}", f"{rate:.0f} MB/s   CPU s: {used}")
    finally:
        for server in servers:
            server.kill()


def wormhole_rs(binary: Path, state: Path, big: Path, mode: str) -> tuple[float, float, float]:
    """Seconds from the first byte of the file to the receiver's end, and the CPU seconds of both ends."""
    out = state / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    where = ["--rendezvous-server", "ws://127.0.0.1:4000/v1", "--relay-server", "tcp://127.0.0.1:4001",
             "--force-relay" if mode == "relay" else "--force-direct"]
    sender = subprocess.Popen([binary, "send", *where, "--no-qr", big], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, cwd=state)
    code = next(m.group(0) for line in sender.stdout if (m := re.search(r"\b\d+(?:-[a-z]+){2,}\b", line)))
    receiver = subprocess.Popen([binary, "receive", *where, "--noconfirm", "--out-dir", out, code],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=state)
    while not any(e.stat().st_size for e in os.scandir(out)):
        time.sleep(0.002)
    start = time.perf_counter()
    used = [os.wait4(p.pid, 0)[2] for p in (receiver, sender)]
    seconds = time.perf_counter() - start
    received, sent = (u.ru_utime + u.ru_stime for u in used)
    return seconds, sent, received


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--bin", required=True, type=lambda p: Path(p).absolute())
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--texts", type=int, default=1000)
    ap.add_argument("--mib", type=int, default=1024)
    ap.add_argument("--only", help="direct, local or relay")
    ap.add_argument("--mw", type=lambda p: Path(p).absolute())
    ap.add_argument("--mw-servers", type=lambda p: Path(p).absolute())
    ap.add_argument("--mw-only", type=Path, help=argparse.SUPPRESS)
    a = ap.parse_args()
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="agent-wormhole-bench-", dir=base) as made:
        work = Path(made)
        if a.mw_only:
            magic_wormhole(a, work, a.mw_only)
            return
        big = work / "big.bin"
        with open(big, "wb") as f:
            for _ in range(a.mib):
                f.write(os.urandom(1 << 20))
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
        machine(big, work, Path(__file__).parent.parent)
        startup(a.bin, work)
        measure(a.bin, work, big, a)
        if a.mw and a.mw_servers:
            magic_wormhole(a, work, big)
        else:
            row("magic-wormhole.rs", "not measured: give --mw and --mw-servers")


if __name__ == "__main__":
    main()
