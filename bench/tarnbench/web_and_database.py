"""Rows that are larger servers, not in the default set since they are slow: nginx under wrk, PostgreSQL under pgbench.

Both listen on a socket in a folder of this run; nginx on 127.0.0.1 too, since wrk knows TCP alone. Time is CPU time, as
of the other servers.
"""
import functools
import glob
import http.client
import os
import pwd
import re
import shutil
import socket
import subprocess
import time

from .measure import Failure, Timeout
from .programs import digest
from .servers import START_TIMEOUT_S, ServerRow, resident_bytes, run_client

POSTGRES_PLACES = "/usr/lib/postgresql/*/bin"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=START_TIMEOUT_S)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class NginxRow(ServerRow):
    """nginx in one process, with files of 1 to 64 KiB that it compresses.

    wrk runs for a time, not for a number of requests, so the time of this row is that of so many requests. Its answers
    cannot be compared; a client of ours asks for each file once before, and those are.
    """

    by_default = False
    SECONDS = 2
    REQUESTS = 10000  # that the time is given for
    CONNECTIONS = 32
    FILES_KIB = (1, 2, 4, 8, 16, 32, 64)
    CONFIGURATION = """
error_log stderr crit;
pid {folder}/nginx.pid;
daemon off;
master_process off;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    gzip on; gzip_types text/plain; gzip_min_length 512; gzip_comp_level 1;
    default_type text/plain;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; listen unix:{socket}; root {folder}/pages; }}
}}
"""
    SCRIPT = """
local sizes = {{ {sizes} }}
local turn = 0
request = function()
    turn = turn + 1
    return wrk.format("GET", "/" .. sizes[turn % #sizes + 1] .. ".txt", {{ ["Accept-Encoding"] = "gzip" }})
end
"""

    def __init__(self, tools):
        operation = f"nginx under wrk: compressed files of 1 to 64 KiB; of {self.REQUESTS:,} requests"
        super().__init__(tools, "nginx", operation, tools.program("nginx"), ["-v"])
        self.wrk = tools.program("wrk")
        if not self.wrk:
            self.program = None
        self.folder = os.path.join(tools.folder, "nginx")
        self.port = 0
        self.requests = 0

    def write(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        return path

    def server_arguments(self):
        os.makedirs(os.path.join(self.folder, "pages"), exist_ok=True)
        for kib in self.FILES_KIB:
            words = (f"line {number} of {kib}: {number * 7919 % 65521}\n" for number in range(kib * 64))
            self.write(f"pages/{kib}.txt", "".join(words)[:kib * 1024])
        self.port = free_port()
        configuration = self.CONFIGURATION.format(folder=self.folder, port=self.port, socket=self.socket_path)
        return ["-e", "stderr", "-c", self.write("nginx.conf", configuration)]

    def load(self, pid, figures):
        answers = []
        for kib in self.FILES_KIB:
            connection = UnixConnection(self.socket_path)
            connection.request("GET", f"/{kib}.txt", headers={"Accept-Encoding": "gzip"})
            answer = connection.getresponse()
            answers += [str(answer.status).encode(), answer.read()]
            connection.close()
        script = self.write("wrk.lua", self.SCRIPT.format(sizes=", ".join(map(str, self.FILES_KIB))))
        text = run_client([self.wrk, "-t", "1", "-c", str(self.CONNECTIONS), "-d", f"{self.SECONDS}s", "-s", script,
                           f"http://127.0.0.1:{self.port}/"]).decode()
        done = re.search(r"^\s*(\d+) requests in", text, re.MULTILINE)
        if not done or "Non-2xx" in text or not int(done[1]):
            raise Failure("wrk did not get the files")
        self.requests = int(done[1])
        figures["requests"] = self.requests
        figures["rss_after_load"] = resident_bytes(pid)
        return digest(b"".join(answers))

    def measure(self, allocator):
        sample = super().measure(allocator)
        sample.time_s = sample.cpu_s * self.REQUESTS / self.requests
        return sample


class PostgresRow(ServerRow):
    """PostgreSQL on a cluster that is made once and copied for each run, under pgbench with a fixed seed.

    What the tables hold afterwards is compared. PostgreSQL does not run as root: then it runs as the user postgres.
    Its processes are many; peak memory is that of the largest of them, CPU time that of all.
    """

    by_default = False
    SETTINGS = {"listen_addresses": "", "fsync": "off", "autovacuum": "off", "shared_buffers": "32MB",
                "max_connections": "20"}
    LOADS = (["-b", "tpcb-like", "-t", "300"], ["-b", "select-only", "-M", "prepared", "-t", "1500"])
    USERS = ("postgres", "nobody")
    QUESTION = ("select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers), "
                "(select sum(bbalance) from pgbench_branches), (select count(*) from pgbench_history)")

    def __init__(self, tools):
        programs = {}
        for place in sorted(glob.glob(POSTGRES_PLACES), key=lambda path: int("0" + re.sub(r"\D", "", path))):
            programs = {name: os.path.join(place, name) for name in ("postgres", "initdb", "pgbench", "psql")
                        if os.path.exists(os.path.join(place, name))}
        complete = len(programs) == 4
        super().__init__(tools, "postgresql", "PostgreSQL under pgbench: 4 clients, TPC-B and look-ups",
                         programs["postgres"] if complete else None, ["--version"])
        self.programs = programs
        self.folder = os.path.join(tools.folder, "pg")
        self.socket_path = os.path.join(self.folder, ".s.PGSQL.5432")
        self.allocator = None

    @functools.cached_property
    def as_user(self):
        """What stands before a command so that it does not run as root."""
        if os.geteuid() != 0:
            return []
        for name in self.USERS:
            try:
                user = pwd.getpwnam(name)
            except KeyError:
                continue
            return [self.tools.program("setpriv"), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
                    "--pdeathsig=KILL"]
        raise Failure("PostgreSQL does not run as root, and there is no other user")

    def client(self, name, *arguments):
        return run_client([*self.as_user, self.programs[name], "-h", self.folder, "-U", "bench", *arguments])

    def begin(self, data):
        """The arguments of a server on a folder of data."""
        settings = [f"--{name}={value}" for name, value in self.SETTINGS.items()]
        return [*settings, "-D", data, "-k", self.folder]

    @functools.cached_property
    def cluster(self):
        """A cluster with pgbench's tables, made on first use without any preloaded library."""
        os.chmod(self.tools.folder, 0o711)  # for another user: to pass, not to look
        os.makedirs(self.folder)
        if self.as_user:
            user = int(self.as_user[1].split("=")[1])
            os.chown(self.folder, user, -1)
        data = os.path.join(self.folder, "made")
        run_client([*self.as_user, self.programs["initdb"], "-D", data, "-U", "bench", "-A", "trust", "--no-sync",
                    "--locale=C"])
        with subprocess.Popen([*self.as_user, self.programs["postgres"], *self.begin(data)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder) as server:
            try:
                self.wait_until_it_answers(server.poll)
                self.client("pgbench", "-i", "-q", "-s", "2", "postgres")
            finally:
                server.terminate()
        return data

    def wait_until_it_answers(self, ended):
        deadline = time.monotonic() + START_TIMEOUT_S
        while ended() is None:
            try:
                return self.client("psql", "-Atc", "select 1", "postgres")
            except Failure:
                if time.monotonic() > deadline:
                    raise Timeout("the server does not answer") from None
                time.sleep(0.05)
        raise Failure("the server ended before it answered")

    def server_arguments(self):
        data = os.path.join(self.folder, "run")
        shutil.rmtree(data, ignore_errors=True)
        run_client(["cp", "-a", self.cluster, data])
        return self.begin(data)

    def command(self):
        return [*self.as_user, self.program]

    def load(self, pid, figures):
        with open(f"/proc/{pid}/maps") as maps:
            if self.allocator.library not in maps.read():
                raise Failure("the library of the allocator is not in its memory; may the user postgres read it?")
        self.wait_until_it_answers(lambda: None)
        for load in self.LOADS:
            self.client("pgbench", "-n", "-c", "4", "-j", "1", "--random-seed=1", *load, "postgres")
        return self.client("psql", "-Atc", self.QUESTION, "postgres").decode().strip()

    def measure(self, allocator):
        self.allocator = allocator
        return super().measure(allocator)


def large_server_rows(tools):
    return [NginxRow(tools), PostgresRow(tools)]
