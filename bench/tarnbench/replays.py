"""Rows that are traces of real programs, replayed by tarn-replay."""
import glob
import os

from . import traces
from .measure import Failure, Run
from .rows import Row
from .tools import ROOT

TRACES = os.path.join(ROOT, "bench", "traces")
ENDING = ".trace.xz"
# Real programs that have no row otherwise. The others come with --all: a default run has to stay short.
BY_DEFAULT = ("git", "postgresql")
OPERATIONS = 6000000
FEWER_OPERATIONS = {"memcached": 150000}  # nearly all of them large, and mapped anew each time


class TraceRow(Row):
    """A trace in a process of its own. What is compared is the time of the rounds, by the clock."""

    kind = "trace"
    TIMEOUT_S = 60
    FIGURES = ("threads", "rounds", "items_per_second", "rss_before", "rss_after", "rss_peak", "minor_faults_timed",
               "switches_timed")

    def __init__(self, tools, path):
        self.program_name = os.path.basename(path)[:-len(ENDING)]
        super().__init__(f"trace/{self.program_name}",
                         f"what {self.program_name} asked of its allocator, replayed thread by thread")
        self.tools = tools
        self.path = path
        self.by_default = self.program_name in BY_DEFAULT

    def unpacked(self):
        """The trace without compression, in the folder of this run."""
        path = os.path.join(self.tools.folder, f"{self.program_name}.trace")
        if not os.path.exists(path):
            try:
                data = traces.read(self.path)
            except (OSError, traces.BadTrace) as error:
                raise Failure(str(error)) from None
            with open(path, "wb") as file:
                file.write(data)
        return path

    def start(self, allocator):
        operations = FEWER_OPERATIONS.get(self.program_name, OPERATIONS)
        return Run(self.tools, allocator, [self.tools.replay, "--operations", str(operations), self.unpacked()])

    def finish(self, run, allocator):
        sample, output = run.finish(self.TIMEOUT_S)
        try:
            result = dict(line.split(" ", 1) for line in output.decode().splitlines())
            provider = result["malloc"]
            sample.time_s = float(result["time_s"])
            sample.figures = {name: float(result[name]) for name in self.FIGURES}
        except (ValueError, KeyError):
            raise Failure("its report cannot be read") from None
        if self.tools.real_path(provider) != allocator.library:
            raise Failure(f"its malloc is that of {provider}")
        return sample


def trace_rows(tools):
    """All of bench/traces."""
    return [TraceRow(tools, path) for path in sorted(glob.glob(os.path.join(TRACES, f"*{ENDING}")))]
