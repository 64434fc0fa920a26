"""The rows of the table that are workloads in C, and what all rows have in common."""
import json
import re
import subprocess

from . import Trouble
from .measure import Failure, Run

WALL = "wall"
CPU = "cpu"


class Row:
    """One row: something that can be run under any allocator.

    `name` is what --only matches. `time_of` says what the time of the table is: the wall time of the timed part, or
    the CPU time (user and system) of the measured process from its start to its end.
    """

    kind = ""
    time_of = WALL
    by_default = True
    timed = True  # false: its figures are the result, not its time, and once is enough
    workload = ""  # rows of one workload differ in their threads alone
    threads = 0
    compared_output = False  # the output has to be the same under every allocator

    def __init__(self, name, operation):
        self.name = name
        self.operation = operation

    def extra_allocators(self, glibc):
        """Columns that this row has beside those of all rows."""
        del glibc
        return []

    def check(self, allocator):
        """Raises Failure when the allocator would not be used. Called once, before anything is measured."""

    def measure(self, allocator):
        """One run: a Sample, or Failure."""
        return self.finish(self.start(allocator), allocator)

    start_resting = None  # where a row can tell what it holds after a rest: begins such a run

    def start(self, allocator):
        """Begins a run; rows whose time is not compared are begun under all allocators at once."""
        raise NotImplementedError

    def finish(self, run, allocator):
        """Waits for the end of a run that was begun: a Sample, or Failure."""
        raise NotImplementedError


class WorkloadRow(Row):
    """A workload of tarn-workloads with a number of threads, in a process of its own."""

    kind = "workload"
    TIMEOUT_S = 40
    FIGURES = ("rss_before", "rss_after", "rss_rested", "rss_peak", "minor_faults", "minor_faults_timed", "switches_timed",
               "items_per_second")
    WORKLOAD_FIGURE = "held_"  # what a workload reports begins with this

    def __init__(self, tools, workload, threads, by_default, timed, operation):
        super().__init__(workload if threads == 1 else f"{workload} x{threads}", operation)
        self.tools = tools
        self.workload = workload
        self.threads = threads
        self.filter = f"^{workload}/iterations:[0-9]+/process_time/real_time/threads:{threads}$"
        self.by_default = by_default
        self.timed = timed

    def start(self, allocator):
        return self.run(allocator, {})

    def start_resting(self, allocator):
        """The same; the program goes on with light work for two seconds."""
        return self.run(allocator, {"BENCH_REST_MS": "2000"})

    def run(self, allocator, variables):
        return Run(self.tools, allocator,
                   [self.tools.workloads, f"--benchmark_filter={self.filter}", "--benchmark_format=json"], variables)

    def finish(self, run, allocator):
        sample, output = run.finish(self.TIMEOUT_S)
        try:
            result = json.loads(output)
            benchmark, = result["benchmarks"]
        except ValueError:
            raise Failure("its report cannot be read") from None
        provider = result["context"]["malloc"]
        if self.tools.real_path(provider) != allocator.library:
            raise Failure(f"its malloc is that of {provider}")
        # Google Benchmark divides by the iterations of all threads together.
        rounds = benchmark["iterations"] // benchmark["threads"]
        sample.time_s = benchmark["real_time"] * benchmark["threads"] * rounds / 1e3
        for name, value in benchmark.items():
            if name in self.FIGURES or name.startswith(self.WORKLOAD_FIGURE):
                sample.figures[name] = value
        return sample


def workload_rows(tools):
    """All that tarn-workloads knows, the extra ones too."""
    try:
        text = subprocess.run([tools.workloads, "--list"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Trouble(f"{tools.workloads} --list: {error}") from None
    rows = []
    for line in text.splitlines():
        name, threads, default, result, operation = line.split("\t")
        if not re.fullmatch(r"[\w/-]+", name):
            raise Trouble(f"the workload «{name}» cannot be asked for by a regular expression")
        rows.append(WorkloadRow(tools, name, int(threads), default == "default", result == "time", operation))
    return rows
