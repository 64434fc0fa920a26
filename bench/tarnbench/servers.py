"""Rows that are real servers under a bounded load: redis-server and memcached.

Only the server runs under the allocator. It listens on a Unix socket in a folder of this run and on nothing else.
Its time is the CPU time of the server from start to end, since on a small machine the wall time is that of the
client too.
"""
import os
import socket
import subprocess
import time

from .measure import Failure, Run, Timeout
from .programs import ProgramRow, digest

START_TIMEOUT_S = 10
CLIENT_TIMEOUT_S = 60
END_TIMEOUT_S = 20


def resident_bytes(pid):
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise Failure("the server has no memory any more")


def run_client(command):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CLIENT_TIMEOUT_S,
                              check=False)
    except subprocess.TimeoutExpired:
        raise Timeout(f"{os.path.basename(command[0])} did not end in time") from None
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise Failure(f"{os.path.basename(command[0])} failed{': ' + words[-1][:200] if words else ''}")
    return done.stdout


class ServerRow(ProgramRow):
    """Starts the server, waits until it answers, puts it under load, and asks it to end."""

    kind = "server"

    def __init__(self, tools, name, operation, program, check_arguments):
        super().__init__(tools, name, operation, program, check_arguments)
        self.socket_path = os.path.join(tools.folder, f"{name}.sock")

    def command(self):
        return [self.program]

    def server_arguments(self):
        raise NotImplementedError

    def load(self, pid, figures):
        """Runs the load; returns what the clients saw, which has to be the same every time."""
        raise NotImplementedError

    def end(self, run):
        run.terminate()

    def connect(self, run):
        """A connection, as soon as the server takes one."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if run.has_ended():
                run.wait(END_TIMEOUT_S)
                raise Failure(run.last_words("the server ended before it answered"))
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(CLIENT_TIMEOUT_S)
            try:
                client.connect(self.socket_path)
                return client
            except OSError:
                client.close()
                time.sleep(0.01)
        raise Timeout("the server does not answer")

    def measure(self, allocator):
        if os.path.exists(self.socket_path):
            os.unlink(self.socket_path)
        run = Run(self.tools, allocator, self.command() + self.server_arguments(), folder=self.tools.folder,
                  **self.run_options(allocator))
        figures = {}
        try:
            pid = run.pid()
            self.connect(run).close()
            try:
                output = self.load(pid, figures)
            except (OSError, Failure) as error:
                if run.has_ended():
                    run.wait(END_TIMEOUT_S)  # says how the server ended, if it was not well
                raise error if isinstance(error, Failure) else Failure(f"the connection broke: {error}") from None
            self.end(run)
            sample = run.wait(END_TIMEOUT_S)
        finally:
            run.close()
        sample.time_s = sample.cpu_s
        sample.output = output
        sample.figures = figures
        return sample


class RedisRow(ServerRow):
    """redis-benchmark with pipelining and random keys; then, with fixed keys, answers that are compared.

    The random keys of redis-benchmark cannot be fixed, so only the second part has an output. Values of several
    sizes go to the same keys one after the other, as in a cache that is in use, so blocks of one size make place for
    others.
    """

    REQUESTS = 30000
    KEYS = 20000
    LOADS = (
        ["-d", "60", "-t", "set"],
        ["-d", "700", "-t", "set"],
        ["-d", "3000", "-t", "set"],
        ["-t", "get"],
        ["-d", "200", "-t", "lpush,rpop"],
        ["HSET", "hash:__rand_int__", "field:__rand_int__", "value of field __rand_int__"],
        ["ZADD", "ranks", "__rand_int__", "member:__rand_int__"],
        ["SADD", "set:__rand_int__", "member:__rand_int__"],
        ["APPEND", "key:__rand_int__", "forty bytes that are added to the value."],
        ["UNLINK", "key:__rand_int__"],
    )
    FIXED_KEYS = 3000

    def __init__(self, tools):
        super().__init__(tools, "redis", "redis-server under redis-benchmark -P 16: strings, lists, hashes, sets",
                         tools.program("redis-server"), ["--version"])
        self.benchmark = tools.program("redis-benchmark")
        if not self.benchmark:
            self.program = None

    def server_arguments(self):
        return ["--port", "0", "--unixsocket", self.socket_path, "--save", "", "--appendonly", "no",
                "--dir", self.tools.folder, "--daemonize", "no"]

    def load(self, pid, figures):
        for load in self.LOADS:
            run_client([self.benchmark, "-s", self.socket_path, "-q", "-P", "16", "-c", "20",
                        "-n", str(self.REQUESTS), "-r", str(self.KEYS)] + load)
        figures["rss_after_load"] = resident_bytes(pid)
        with RedisClient(self.socket_path) as client:
            client.ask([["FLUSHALL", "SYNC"]])
            figures["rss_after_flush"] = resident_bytes(pid)
            return digest(client.ask(self.fixed_requests()))

    def fixed_requests(self):
        """Strings, lists, hashes and ranks of many sizes under fixed keys, then all of them read back."""
        letters = "abcdefghijklmnopqrstuvwxyz0123456789"
        writes, reads = [], []
        for number in range(self.FIXED_KEYS):
            value = (letters[number % 36:] + letters) * (1 + number * 7919 % 101)
            writes.append(["SET", f"fixed:{number}", value])
            writes.append(["RPUSH", f"list:{number % 200}", value[:number % 300 + 1]])
            writes.append(["HSET", f"hash:{number % 100}", f"field:{number}", value[:number % 90 + 1]])
            writes.append(["ZADD", "ranks", str(number * 31 % 1009), f"member:{number}"])
            if number % 3 == 0:
                writes.append(["DEL", f"fixed:{number // 2}"])
            reads.append(["GET", f"fixed:{number}"])
        reads += [["LRANGE", f"list:{number}", "0", "-1"] for number in range(200)]
        reads += [["HGET", f"hash:{number % 100}", f"field:{number}"] for number in range(self.FIXED_KEYS)]
        reads += [["ZRANGE", "ranks", "0", "-1", "WITHSCORES"], ["DBSIZE"]]
        return writes + reads


class RedisClient:
    """Just enough of the protocol: sends requests in batches and returns the bytes of all replies."""

    BATCH = 200

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(CLIENT_TIMEOUT_S)
        self.socket.connect(path)
        self.stream = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stream.close()
        self.socket.close()

    def ask(self, requests):
        replies = []
        for start in range(0, len(requests), self.BATCH):
            batch = requests[start:start + self.BATCH]
            self.socket.sendall(b"".join(self.encode(request) for request in batch))
            replies += [self.read_reply() for _ in batch]
        return b"".join(replies)

    @staticmethod
    def encode(request):
        parts = [part.encode() for part in request]
        return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)

    def read_reply(self):
        head = self.stream.readline()
        if not head.endswith(b"\r\n"):
            raise Failure("the server has closed the connection")
        kind, length = head[:1], head[1:-2]
        if kind == b"-":
            raise Failure(f"the server answers {head.decode(errors='replace').strip()}")
        if kind == b"$" and length != b"-1":
            return head + self.stream.read(int(length) + 2)
        if kind == b"*":
            return head + b"".join(self.read_reply() for _ in range(int(length)))
        return head


class MemcachedRow(ServerRow):
    """memcached under tarn-memcached-load, which checks every byte that it gets.

    memcached divides large pieces of memory itself, so malloc is a small part of its work: the row shows that an
    allocator does no harm, in time or in memory.
    """

    OPERATIONS = 110000

    def __init__(self, tools):
        super().__init__(tools, "memcached", "memcached with 2 threads: set, get, delete of 16 B to 4 KiB",
                         tools.program("memcached"), ["-V"])

    def server_arguments(self):
        arguments = ["-s", self.socket_path, "-t", "2", "-m", "256", "-c", "256"]
        return arguments + (["-u", "root"] if os.geteuid() == 0 else [])

    def end(self, run):
        """It looks for the signal when something happens, or once in a second: so a connection is made."""
        super().end(run)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect_ex(self.socket_path)

    def load(self, pid, figures):
        output = run_client([self.tools.memcached_load, self.socket_path, str(self.OPERATIONS)])
        figures["rss_after_load"] = resident_bytes(pid)
        return output.decode().strip()


def server_rows(tools):
    return [RedisRow(tools), MemcachedRow(tools)]
