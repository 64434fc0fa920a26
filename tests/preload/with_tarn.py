"""Runs real programs with the library preloaded and compares with a run without it.

Servers listen on sockets in a temporary folder alone, and only processes started here are ended, by their number.
"""
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from support import Report

LIBRARY = os.path.abspath(sys.argv[1])


def environment(preloaded, **extra):
    """A small environment, the same for both runs but for LD_PRELOAD."""
    variables = {
        "PATH": os.defpath + ":/usr/local/bin:/usr/sbin:/sbin",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    variables.update(extra)
    if preloaded:
        variables["LD_PRELOAD"] = LIBRARY
        if "TEST_LARGER_PAGES" in os.environ:
            variables["LD_PRELOAD"] = os.environ["TEST_LARGER_PAGES"] + ":" + LIBRARY
        if "TARN_GUARD_SAMPLE" in os.environ:
            variables["TARN_GUARD_SAMPLE"] = os.environ["TARN_GUARD_SAMPLE"]
    return variables


@contextlib.contextmanager
def folder():
    """A temporary folder, removed afterwards. (Its name is short: socket names may not be long.)"""
    path = tempfile.mkdtemp(prefix="tarn-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def run(command, where, preloaded, **extra):
    return subprocess.run(
        command, cwd=where, env=environment(preloaded, HOME=where, **extra), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)


def files_below(where):
    """Path and bytes of every file."""
    found = {}
    for path, _, names in os.walk(where):
        for name in names:
            full = os.path.join(path, name)
            with open(full, "rb") as file:
                found[os.path.relpath(full, where)] = file.read()
    return found


def same_with_and_without(command, files=(), compare_files=False, **extra):
    """The command ends well, with the same output, messages and, if asked for, files. Returns the output."""
    results = []
    for preloaded in (False, True):
        # The same name of the folder for both, for it may show in messages.
        with folder() as outer:
            where = os.path.join(outer, "run")
            os.mkdir(where)
            for name, content in files:
                with open(os.path.join(where, name), "w", encoding="utf-8") as file:
                    file.write(content)
            ran = run(command, where, preloaded, **extra)
            hide = outer.encode()
            results.append((ran.returncode, ran.stdout.replace(hide, b"FOLDER"), ran.stderr.replace(hide, b"FOLDER"),
                            files_below(where) if compare_files else None))
    without, with_library = results
    assert without[0] == 0, ("without the library", without[:3])
    assert with_library[0] == 0, ("with the library", with_library[:3])
    assert with_library[2] == without[2], ("stderr", without[2], with_library[2])
    assert with_library[1] == without[1], ("stdout", without[1][:2000], with_library[1][:2000])
    assert with_library[3] == without[3], "files differ"
    return with_library[1]


def is_loaded(pid):
    """Has the process the library in its address space?"""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        return any(line.rstrip().endswith(os.path.realpath(LIBRARY)) for line in maps)


def threads_of(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


class Server:
    """A server process with the library preloaded; used in a with statement, in which it must stay alive.

    At the end it gets the given signal, and must end with status 0, without a line of the allocator's on stderr.
    """

    def __init__(self, command, where, socket_path, stop_signal=signal.SIGTERM, **extra):
        self.command = command
        self.where = where
        self.socket_path = socket_path
        self.stop_signal = stop_signal
        self.extra = extra
        self.log_path = os.path.join(where, "server.log")

    def __enter__(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.where, env=environment(True, HOME=self.where, **self.extra),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait_until_it_answers()
            assert is_loaded(self.process.pid), "the library is not loaded"
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        return self

    def _wait_until_it_answers(self):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            assert self.process.poll() is None, (self.process.returncode, self.log())
            with contextlib.suppress(OSError), self.connect():
                return
            time.sleep(0.02)
        raise AssertionError("no answer: " + self.log())

    def connect(self):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(30)
        try:
            connection.connect(self.socket_path)
        except OSError:
            connection.close()
            raise
        return connection

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def __exit__(self, kind, value, trace):
        died_early = self.process.poll()
        if died_early is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError("did not end within 30 s: " + self.log()) from None
        if died_early is not None:
            raise AssertionError(f"died with status {died_early}: {self.log()}")
        if kind is None:
            assert self.process.returncode == 0, (self.process.returncode, self.log())
            assert "tarn: " not in self.log(), self.log()
