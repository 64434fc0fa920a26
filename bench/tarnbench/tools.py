"""Where things are: what the build made, the programs of this machine, and a folder for this run."""
import functools
import os
import shutil

from . import Trouble
from .programs import generate

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(HERE)
BUILDS = ("build-bench", "build")
SYSTEM_FOLDERS = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def find_build(given):
    """The build folder that holds the benchmark programs."""
    for folder in [given] if given else [os.path.join(ROOT, name) for name in BUILDS]:
        if os.path.exists(os.path.join(folder, "bench", "tarn-workloads")):
            return os.path.abspath(folder)
    if given:
        raise Trouble(f"{given} holds no bench/tarn-workloads: configure it with -Dbench=true and build it")
    raise Trouble("nothing is built with -Dbench=true in build-bench or build: use bench/run, or name it with --build")


class Tools:
    """All paths in one place."""

    def __init__(self, build, folder):
        self.folder = folder  # temporary, of this run alone
        self.watch = None  # while memory is looked at: where the samples of the run go
        self.workloads = os.path.join(build, "bench", "tarn-workloads")
        self.measure = os.path.join(build, "bench", "tarn-measure")
        self.replay = os.path.join(build, "bench", "tarn-replay")
        self.memcached_load = os.path.join(build, "bench", "tarn-memcached-load")
        for path in (self.measure, self.replay, self.memcached_load):
            if not os.path.exists(path):
                raise Trouble(f"{path} is missing: the build is not complete")

    real_path = staticmethod(functools.lru_cache(maxsize=None)(os.path.realpath))

    @staticmethod
    def program(name):
        """The absolute path of a program of the system, or None."""
        return shutil.which(name, path=SYSTEM_FOLDERS) or shutil.which(name)

    @staticmethod
    def script(name):
        return os.path.join(HERE, "programs", name)

    def generated(self, name, script):
        """A file of this run, written by a script of programs/ on first use."""
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            generate(self.script(script), path)
        return path
