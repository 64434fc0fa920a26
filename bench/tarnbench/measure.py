"""Running one program under one allocator, and making sure that it really is that allocator.

tarn-measure (measure.c) starts the program and reports what it cost; LD_PRELOAD is set for the program alone.
"""
import os
import re
import select
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field

WATCH_EVERY_S = 0.02
LIBC_FUNCTIONS = ("malloc", "free", "calloc", "realloc")


class Failure(Exception):
    """One measurement went wrong: a crash, a wrong result, the wrong allocator."""


class Timeout(Failure):
    """It did not end in time."""


@dataclass
class Sample:
    """What one run of one row under one allocator gave."""

    time_s: float  # what the table compares
    wall_s: float
    cpu_s: float
    peak_rss_kib: int
    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int
    output: str = ""  # digest of what the program printed; must be the same under every allocator
    figures: dict = field(default_factory=dict)


class Watcher(threading.Thread):
    """Appends (seconds, KiB resident) of a process to a list, every 20 ms until it has ended."""

    def __init__(self, pid, samples):
        super().__init__(daemon=True)
        self.path = f"/proc/{pid}/statm"
        self.samples = samples

    def run(self):
        page_kib = os.sysconf("SC_PAGE_SIZE") // 1024
        started = time.monotonic()
        try:
            while True:
                with open(self.path) as file:
                    resident = int(file.read().split()[1]) * page_kib
                if not resident:
                    return  # it has ended, and waits to be asked for
                self.samples.append((round(time.monotonic() - started, 4), resident))
                time.sleep(WATCH_EVERY_S)
        except (OSError, IndexError, ValueError):
            return  # it has ended


class Run:
    """A program that has been started under an allocator."""

    def __init__(self, tools, allocator, command, variables=None, folder=None, preload_libc=False):
        self.command = command
        self.out = tempfile.TemporaryFile()
        self.err = tempfile.TemporaryFile()
        self.report = {}
        read_end, write_end = os.pipe()
        launch = [tools.measure, "--report", str(write_end)]
        if allocator.preload or preload_libc:
            launch += ["--preload", allocator.library, "--expect", allocator.library]
        for name, value in {**(variables or {}), **allocator.variables}.items():
            launch += ["--set", f"{name}={value}"]
        try:
            self.launcher = subprocess.Popen(
                launch + ["--"] + command, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err,
                pass_fds=(write_end,), cwd=folder)
        finally:
            os.close(write_end)
        self.pipe = os.fdopen(read_end, "rb", buffering=0)
        self.pending = b""
        self.watcher = None
        if tools.watch is not None:
            self.watcher = Watcher(self.pid(), tools.watch)
            self.watcher.start()

    def read_report(self, deadline):
        """Reads what the launcher has to say; false at its end."""
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.pipe], [], [], left)[0]:
            self.kill()
            raise Timeout("it did not end in time")
        data = self.pipe.read(4096)
        self.pending += data
        *lines, self.pending = self.pending.split(b"\n")
        for line in lines:
            name, value = line.decode().split(" ", 1)
            self.report[name] = float(value)
        return bool(data)

    def pid(self, timeout=10):
        """The process of the program itself."""
        deadline = time.monotonic() + timeout
        while "pid" not in self.report:
            if not self.read_report(deadline):
                raise Failure(self.last_words("it could not be started"))
        return int(self.report["pid"])

    def has_ended(self):
        return self.launcher.poll() is not None

    def terminate(self):
        """Asks a server to end."""
        if not self.has_ended():
            os.kill(self.pid(), signal.SIGTERM)

    def kill(self):
        """Ends the launcher; the kernel then ends the program."""
        if not self.has_ended():
            self.launcher.kill()
        self.launcher.wait()

    def output(self):
        self.out.seek(0)
        return self.out.read()

    def last_words(self, what):
        """What went wrong, with the last line that the program printed."""
        self.err.seek(0)
        lines = self.err.read().decode(errors="replace").strip().splitlines()
        return f"{what}: {lines[-1][:200]}" if lines else what

    def wait(self, timeout):
        """Waits for the end and returns a Sample, with the wall time as its time."""
        deadline = time.monotonic() + timeout
        while self.read_report(deadline):
            pass
        self.launcher.wait()
        report = self.report
        if "status" not in report:
            raise Failure(self.last_words("it could not be started"))
        if report["signal"]:
            raise Failure(self.last_words(f"it was ended by {signal.Signals(int(report['signal'])).name}"))
        if report["status"]:
            raise Failure(self.last_words(f"it ended with status {int(report['status'])}"))
        if not report["expected_seen"]:
            raise Failure("the library of the allocator was never in its memory")
        return Sample(
            time_s=report["wall_s"],
            wall_s=report["wall_s"],
            cpu_s=report["user_s"] + report["system_s"],
            peak_rss_kib=int(report["peak_rss_kib"]),
            minor_faults=int(report["minor_faults"]),
            major_faults=int(report["major_faults"]),
            voluntary_switches=int(report["voluntary_switches"]),
            involuntary_switches=int(report["involuntary_switches"]),
        )

    def finish(self, timeout):
        """Waits for the end: the Sample, and what the program printed."""
        try:
            return self.wait(timeout), self.output()
        finally:
            self.close()

    def close(self):
        self.kill()
        if self.watcher:
            self.watcher.join()
        self.pipe.close()
        self.out.close()
        self.err.close()


def bindings_of(command, library):
    """What the loader binds as it starts a program: (source file, target file, function), for malloc and the like."""
    environment = {**os.environ, "LD_DEBUG": "bindings", "LD_BIND_NOW": "1"}
    environment.pop("LD_PRELOAD", None)
    if library:
        environment["LD_PRELOAD"] = library
    text = ""
    with tempfile.TemporaryDirectory(prefix="tarn-bench-") as folder:
        environment["LD_DEBUG_OUTPUT"] = os.path.join(folder, "bindings")
        try:
            subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, timeout=20, check=False)
        except subprocess.TimeoutExpired:
            raise Timeout(f"{command[0]} did not end in time") from None
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), errors="replace") as file:
                text += file.read()
    pattern = re.compile(r"binding file (\S+) \[\d+\] to (\S+) \[\d+\]: normal symbol `(\w+)'")
    return {(os.path.realpath(source), os.path.realpath(target), name)
            for source, target, name in pattern.findall(text) if name in LIBC_FUNCTIONS}


def check_provider(command, allocator, preload_libc=False):
    """Fails unless a program and its libraries take malloc and its companions from the allocator alone.

    A binding to the program itself does not count: in a program at a fixed address it leads to a jump, which is
    bound in its turn. Nor do the bindings of the allocator itself.
    """
    program = os.path.realpath(command[0])
    bindings = bindings_of(command, allocator.library if allocator.preload or preload_libc else None)
    bindings = {binding for binding in bindings if binding[0] != allocator.library and binding[1] != program}
    for source, target, name in sorted(bindings):
        if target != allocator.library:
            raise Failure(f"{command[0] if source == program else source} takes {name} from {target}")
    for name in ("malloc", "free"):
        if (program, allocator.library, name) not in bindings:
            raise Failure(f"{command[0]} does not take {name} from a shared library")
