"""The allocators to compare, and where their libraries are."""
import os
import re
import subprocess
from dataclasses import dataclass, field

from . import Trouble

# Name in the table, and the name under which the loader knows the library.
PEERS = {
    "mimalloc": "libmimalloc.so.2",
    "jemalloc": "libjemalloc.so.2",
    "tcmalloc": "libtcmalloc_minimal.so.4",
    "tbbmalloc": "libtbbmalloc_proxy.so.2",
}
GLIBC = "glibc"
TARN = "tarn"
PYMALLOC = "pymalloc"
DEFAULT_NAMES = [TARN, *PEERS, GLIBC]

LIBRARY_FOLDERS = ("/usr/local/lib", "/usr/lib64", "/usr/lib", "/lib64", "/lib")


@dataclass(frozen=True)
class Allocator:
    name: str
    library: str  # the file that provides malloc
    preload: bool = True  # false for the one that the program has anyway
    variables: dict = field(default_factory=dict, hash=False)


def loader_cache():
    """What ldconfig knows: soname → file, for the architecture of this machine."""
    words = {"x86_64": "x86-64", "aarch64": "AArch64"}
    wanted = words.get(os.uname().machine, "")
    known = {}
    for program in ("/sbin/ldconfig", "/usr/sbin/ldconfig", "ldconfig"):
        try:
            text = subprocess.run([program, "-p"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        for line in text.splitlines():
            match = re.match(r"\s+(\S+) \(([^)]*)\) => (\S+)", line)
            if match and wanted in match[2]:
                known.setdefault(match[1], match[3])
        break
    return known


def find_library(soname, cache):
    """The real path of a library, or None."""
    machine = os.uname().machine
    folders = [f"/usr/lib/{machine}-linux-gnu", f"/lib/{machine}-linux-gnu", *LIBRARY_FOLDERS]
    for path in [cache.get(soname)] + [os.path.join(folder, soname) for folder in folders]:
        if path and os.path.exists(path):
            return os.path.realpath(path)
    return None


def find_allocators(names, extra, build):
    """The allocators asked for, and the names of peers that this machine does not have.

    `names` is None for all. An allocator that was asked for by name, or tarn, has to be there.
    """
    cache = loader_cache()
    files = {name: find_library(soname, cache) for name, soname in PEERS.items()}
    files[GLIBC] = find_library("libc.so.6", cache)
    files[TARN] = os.path.realpath(os.path.join(build, "lib", "libtarn.so"))
    for name, path in extra.items():
        files[name] = os.path.realpath(path)
    chosen = names if names is not None else list(dict.fromkeys(DEFAULT_NAMES + list(extra)))
    found, missing = [], []
    for name in chosen:
        path = files[name]
        if name == TARN and not os.path.exists(path):
            raise Trouble(f"{path} is missing: the build is not complete; other allocators with --allocators")
        if path is None and names is not None:
            raise Trouble(f"the library of {name} ({PEERS.get(name, 'libc.so.6')}) is not installed")
        if path is None:
            missing.append(name)
            continue
        found.append(Allocator(name, path, preload=name != GLIBC))
    return found, missing, Allocator(GLIBC, files[GLIBC], preload=False)
