"""Rows that are real programs run to their end: CPython, the C compiler, sqlite3.

Their time is CPU time. What they print, or write, must be the same under every allocator.
"""
import hashlib
import os
import subprocess
import sys

from .allocators import GLIBC, PYMALLOC, Allocator
from .measure import Failure, Run, check_provider
from .rows import CPU, Row

CPYTHON = "/usr/bin/python3"


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


class ProgramRow(Row):
    """A program that has to be found on this machine."""

    kind = "program"
    time_of = CPU
    compared_output = True
    TIMEOUT_S = 60

    def __init__(self, tools, name, operation, program, check_arguments):
        super().__init__(name, operation)
        self.tools = tools
        self.program = program
        self.check_arguments = check_arguments
        self.preload_libc = False

    def check(self, allocator):
        """A program may be linked with an allocator of its own; then glibc has to be preloaded as the others are."""
        command = [self.program] + self.check_arguments
        try:
            check_provider(command, allocator)
        except Failure:
            if allocator.name != GLIBC:
                raise
            check_provider(command, allocator, preload_libc=True)
            self.preload_libc = True

    def run_options(self, allocator):
        return {"preload_libc": self.preload_libc and not allocator.preload}

    def run(self, allocator, arguments, **more):
        run = Run(self.tools, allocator, [self.program] + arguments, **self.run_options(allocator), **more)
        sample, output = run.finish(self.TIMEOUT_S)
        sample.time_s = sample.cpu_s
        return sample, output


class PythonRow(ProgramRow):
    """A script under CPython with PYTHONMALLOC=malloc: every object is a block of the allocator."""

    def __init__(self, tools, name, operation, script):
        super().__init__(tools, name, operation, CPYTHON, ["-V"])
        self.script = tools.script(script)

    def extra_allocators(self, glibc):
        """CPython's own allocator, which takes its arenas from the system."""
        return [Allocator(PYMALLOC, glibc.library, preload=False, variables={"PYTHONMALLOC": "pymalloc"})]

    def measure(self, allocator):
        variables = {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}
        sample, output = self.run(allocator, ["-S", "-B", self.script], variables=variables)
        sample.output = output.decode().strip()
        return sample


class SqliteRow(ProgramRow):
    def __init__(self, tools):
        super().__init__(tools, "sqlite3", "in-memory database: 50,000 rows, indexes, queries, updates, deletes",
                         tools.program("sqlite3"), ["-version"])

    def measure(self, allocator):
        script = self.tools.generated("sqlite.sql", "sqlite_script.py")
        sample, output = self.run(allocator, ["-batch", ":memory:", f".read {script}"])
        sample.output = digest(output)
        return sample


class CompilerRow(ProgramRow):
    """cc1 alone, without the driver that starts it, the assembler or the linker."""

    def __init__(self, tools):
        super().__init__(tools, "cc1", "gcc -O2 of one generated C file of 1,500 lines", self.find_cc1(tools),
                         ["--version"])

    @staticmethod
    def find_cc1(tools):
        gcc = tools.program("gcc")
        if not gcc:
            return None
        path = subprocess.run([gcc, "-print-prog-name=cc1"], capture_output=True, text=True, check=False).stdout.strip()
        return path if os.path.isabs(path) and os.path.exists(path) else None

    def measure(self, allocator):
        source = self.tools.generated("compile.i", "compile_source.py")
        result = os.path.join(self.tools.folder, "compiled.s")
        arguments = ["-fpreprocessed", "-quiet", "-w", "-O2", "-dumpbase", "compiled.c", source, "-o", result]
        sample, _ = self.run(allocator, arguments)
        with open(result, "rb") as file:
            sample.output = digest(file.read())
        os.unlink(result)
        return sample


def program_rows(tools):
    return [
        PythonRow(tools, "python/json", "CPython: documents to JSON text and back", "json_documents.py"),
        PythonRow(tools, "python/pickle", "CPython: records of many kinds pickled and unpickled",
                  "pickle_records.py"),
        PythonRow(tools, "python/ast", "CPython: source text parsed, changed, compiled, written", "ast_modules.py"),
        PythonRow(tools, "python/objects", "CPython: instances, dicts, lists, strings that come and go",
                  "objects_churn.py"),
        CompilerRow(tools),
        SqliteRow(tools),
    ]


def generate(script, path):
    """Writes what a script of programs/ prints to a file."""
    with open(path, "wb") as file:
        subprocess.run([sys.executable, "-S", "-B", script], stdout=file, check=True)
