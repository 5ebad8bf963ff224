#!/usr/bin/env python3
"""The mounted directory, measured: what a file operation in it costs, beside tmpfs, bindfs and sshfs.

    python3 benches/mount.py --bin target/release/agent-wormhole [--runs 5] [--mib 1024]

Needs Linux with FUSE and a /dev/shm that holds four times the file. Both ends of a direct channel run here. bindfs and
sshfs (over a pipe, without a network) are measured where they are installed. Prints medians; everything lives in one
directory that is gone afterwards, and every wait has a limit.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

LIMIT = 120
SMALL = 2000


def run(*command, **options):
    return subprocess.run(command, check=True, timeout=LIMIT, **options)


def timed(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def drop_caches():
    """Clean pages go: what is read next is asked of the file system."""
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        return False
    return True


def write(source, target, size):
    run("dd", f"if={source}", f"of={target}", "bs=1M", "conv=notrunc", stderr=subprocess.DEVNULL)
    assert os.path.getsize(target) == size


def read(path):
    run("dd", f"if={path}", "of=/dev/null", "bs=1M", stderr=subprocess.DEVNULL)


def small(directory, prefix):
    """Seconds for each of SMALL files of 100 bytes: create, write, close."""
    payload, times = b"x" * 100, []
    for number in range(SMALL):
        name = os.path.join(directory, f"{prefix}{number}")
        start = time.perf_counter()
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, payload)
        os.close(fd)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class End:
    """One end of a channel, in the foreground of this script."""

    def __init__(self, binary, arguments, place, environment):
        place.mkdir()
        self.process = subprocess.Popen([binary, *arguments, "--json"], cwd=place, env=environment,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.channel = self.until("channel")
        self.directory = pathlib.Path(self.channel["mount"])
        if self.channel.get("backend") != "fuse":
            sys.exit(f"no mount: {self.channel.get('detail')}")

    def until(self, word):
        for line in self.process.stdout:
            event = json.loads(line)
            if event.get("event") == word:
                return event
        sys.exit(f"the program ended before {word}")

    def drain(self):
        """Reads on, as a supervisor does: a channel waits for whoever reads its events."""
        threading.Thread(target=lambda: all(True for _ in self.process.stdout), daemon=True).start()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def channel(binary, place, source, size, runs, options=()):
    """Medians of a channel: write, the whole way, read cold and warm, small."""
    place = pathlib.Path(tempfile.mkdtemp(dir=place))
    run_dir = place / "run"
    run_dir.mkdir(mode=0o700)
    environment = dict(os.environ, XDG_RUNTIME_DIR=str(run_dir), XDG_CONFIG_HOME=str(run_dir))
    host = End(binary, ["host", "--direct", *options], place / "host", environment)
    peer = End(binary, ["connect", host.channel["code"] + "@127.0.0.1", *options], place / "peer", environment)
    found = {"write": [], "way": [], "cold": [], "warm": [], "small": []}
    try:
        peer.until("connected")
        peer.drain()
        host.drain()
        for number in range(runs):
            target = host.directory / "outbox" / f"big{number}"
            receipt = host.directory / "receipt"
            start = time.perf_counter()
            found["write"].append(timed(lambda: write(source, target, size)))
            run("sync", receipt)
            found["way"].append(time.perf_counter() - start)
            arrived = peer.directory / "inbox" / f"big{number}"
            if drop_caches():
                found["cold"].append(timed(lambda: read(arrived)))
            else:
                read(arrived)
            found["warm"].append(timed(lambda: read(arrived)))
            if number == 0:
                run("cmp", source, arrived)
            arrived.unlink()
            target.unlink(missing_ok=True)
            found["small"].append(small(host.directory / "outbox", f"s{number}-"))
            run("sync", receipt)
    finally:
        peer.end()
        host.end()
    return found


def plain(directory, source, size, runs):
    """The same of any directory, as far as it has it."""
    found = {"write": [], "way": [], "cold": [], "warm": [], "small": []}
    for number in range(runs):
        target = directory / f"big{number}"
        found["write"].append(timed(lambda: write(source, target, size)))
        if drop_caches():
            found["cold"].append(timed(lambda: read(target)))
        found["warm"].append(timed(lambda: read(target)))
        target.unlink()
        inside = directory / f"small{number}"
        inside.mkdir()
        found["small"].append(small(inside, "s"))
        shutil.rmtree(inside)
    return found


def mounted(command, point, source, size, runs):
    point.mkdir()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while not os.path.ismount(point):
        if time.monotonic() > end or process.poll() not in (None, 0):
            process.kill()
            return None
        time.sleep(0.02)
    try:
        return plain(point, source, size, runs)
    finally:
        subprocess.run(["umount", "-l", point], timeout=LIMIT)
        process.terminate()
        process.wait(LIMIT)


def row(name, found, size):
    def rate(key):
        return f"{size / statistics.median(found[key]) / 1e9:.2f}" if found.get(key) else "-"

    micros = f"{statistics.median(found['small']) * 1e6:.0f}" if found.get("small") else "-"
    print(f"{name:34} {rate('write'):>8} {rate('cold'):>8} {rate('warm'):>8} {micros:>8} {rate('way'):>10}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024)
    arguments = parser.parse_args()
    binary, size = os.path.realpath(arguments.bin), arguments.mib << 20
    place = pathlib.Path(tempfile.mkdtemp(prefix="wormhole-mount-", dir="/dev/shm"))
    try:
        source = place / "source"
        with open("/dev/urandom", "rb") as noise, open(source, "wb") as out:
            for _ in range(arguments.mib):
                out.write(noise.read(1 << 20))
        print(f"{arguments.mib} MiB, medians of {arguments.runs}; GB/s, and microseconds for a file of 100 bytes")
        print(f"{'':34} {'write':>8} {'cold':>8} {'warm':>8} {'small':>8} {'whole way':>10}")
        tmpfs = place / "tmpfs"
        tmpfs.mkdir()
        row("tmpfs", plain(tmpfs, source, size, arguments.runs), size)
        row("agent-wormhole", channel(binary, place, source, size, arguments.runs), size)
        plenty = ("--memory", f"{4 * arguments.mib}MiB")
        row("agent-wormhole, all in memory", channel(binary, place, source, size, arguments.runs, plenty), size)
        others = place / "others"
        others.mkdir()
        if shutil.which("bindfs"):
            for option in ("big_writes", "direct_io"):
                command = ["bindfs", "-f", "-o", option, others, place / f"bindfs-{option}"]
                found = mounted(command, command[-1], source, size, arguments.runs)
                row(f"bindfs -o {option}", found or {}, size)
        server = "/usr/lib/openssh/sftp-server"
        if shutil.which("sshfs") and os.path.exists(server):
            point = place / "sshfs"
            found = None if not shutil.which("socat") else mounted(
                ["socat", f"EXEC:{server}", f"EXEC:sshfs -f -o passive x\\:{others} {point}"],
                point, source, size, arguments.runs)
            row("sshfs (without a network)", found or {}, size)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
