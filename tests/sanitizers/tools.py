"""What both scripts of this folder share: how a program is compiled with the library, and run."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from support import Report  # noqa: E402, F401

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD, LIBRARY, ARCHIVE = map(os.path.abspath, sys.argv[1:4])

ARCHIVE_LINK = [ARCHIVE, "-lurcu-bp", "-lurcu-common", "-lpthread"]
SHARED_LINK = ["-Wl,--no-as-needed", LIBRARY, "-Wl,-rpath," + os.path.dirname(LIBRARY)]

TARN_BYTES = "112"   # what Tarn, and nobody else, says malloc_usable_size(malloc(100)) is
ASKED_BYTES = "100"  # what a run time with an allocator of its own says


def compiled(compiler, path, *options):
    subprocess.run([compiler, "-g", "-O1", "-fno-builtin", "-std=gnu11", "-D_GNU_SOURCE", "-w", "-I",
                    os.path.join(ROOT, "include"), os.path.join(HERE, "program.c"), "-o", path, *options, "-lpthread"],
                   check=True, timeout=120)
    return path


def run(command, preload=(), **extra):
    """Status, and all that was printed. The environment has no settings of this run of the tests."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("TARN_", "ASAN_", "TSAN_", "MSAN_", "LD_"))}
    if preload:
        kept["LD_PRELOAD"] = " ".join(preload)
    return subprocess.run(command, env=kept | extra, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", timeout=200)


def must_end_well(ran):
    assert ran.returncode == 0 and ran.stdout.splitlines()[-1] == "end", ran


def must_be_found(ran, text):
    """The mistake was found: the status is not 0, and the report says this."""
    assert ran.returncode != 0 and text in ran.stdout, ran
