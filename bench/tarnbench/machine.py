"""What the numbers depend on beside the allocator."""
import os
import platform
import re
import subprocess

SETTINGS = re.compile(r"^(TARN_|MIMALLOC_|MALLOC_|_RJEM_|TCMALLOC_|TBB_|GLIBC_TUNABLES$|LD_PRELOAD$)")


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def version_of(library):
    """The Debian package that a library is of, or the commit of the source tree that it was built in."""
    for path in (library, library.removeprefix("/usr"), "/usr" + library):
        owner = said(["dpkg-query", "-S", path]).partition(":")[0]
        if owner:
            return f"{owner} " + said(["dpkg-query", "-W", "-f", "${Version}", owner])
    commit = said(["git", "-C", os.path.dirname(os.path.abspath(__file__)), "describe", "--always", "--dirty"])
    return f"commit {commit}" if commit and os.path.basename(library).startswith("libtarn") else ""


def said(command):
    """What a program prints, or nothing."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def describe():
    processor = re.search(r"^model name\s*:\s*(.*)$", read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", read("/proc/meminfo"), re.MULTILINE)
    return {
        "architecture": platform.machine(),
        "processor": processor[1] if processor else "",
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int(memory[1]) // 1024 if memory else 0,
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "transparent_hugepages": read("/sys/kernel/mm/transparent_hugepage/enabled").strip(),
        "load_average_at_start": os.getloadavg()[0],
        "allocator_settings": {name: value for name, value in os.environ.items() if SETTINGS.match(name)},
    }
