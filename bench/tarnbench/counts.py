"""What can be counted of a library, so that no clock and no other program disturbs it: instructions of calls, locked
operations, mapping calls. All by tarn-counted (counted.c), which has a clock of its own that goes on in fixed steps.
"""
import math
import os
import re
import subprocess
from dataclasses import dataclass

from . import Trouble

ACCEPTED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "accepted")
LIMIT_S = 60
CALLS = ("malloc", "calloc", "realloc", "free", "aligned_alloc")
# Workloads: name, threads. With one thread every count repeats exactly.
WORKLOADS = (
    ("server", 1), ("tail", 1), ("large", 1), ("vectors", 1), ("hot/64B", 1), ("burst/same", 1), ("burst/random", 1),
    ("server", 4), ("pipe/small", 2), ("tail", 4), ("burst/random", 4),
)
ROUNDS = 2
THREADED_RUNS = 9  # of which the lowest counts: what the scheduler adds differs from run to run
COUNTERS = ("locked operations", "mapping calls")  # as the report calls them

# A rise of more than this fails. Instructions and counts of one thread repeat exactly; 1 % is room for the slow paths,
# and less than one instruction of a hot call. Of threads, counts depend on who runs when: measured with one library, 28
# lowest counts of 9 runs, on 2 cores that were idle, busy, or one alone, differed so in locked operations:
# server x4 1165 to 1588 (36 %), pipe/small x2 474 to 563 (19 %), tail x4 1108 to 1314 (19 %), burst/random x4 8190 to
# 9616 (17 %); in mapping calls by 1. (pipe/mixed, left out: x2 from 4042 to 14974.) So threads show what is gross.
INSTRUCTION_TOLERANCE = 0.01
EXACT_TOLERANCE = 0.0
THREADED_TOLERANCE = 0.4
THREADED_LOCKED_SLACK = 30
THREADED_MAP_SLACK = 2

# What docs/decisions/0001 promises of the shared library, in whole instructions.
LIMITS = {("pair_64", "malloc"): 18, ("pair_64", "free"): 22, ("pair_16", "malloc"): 18, ("pair_16", "free"): 22}


@dataclass
class Count:
    """One line of the table: what was counted, and how far it may rise."""

    what: str
    unit: str
    before: float | None
    now: float
    part: float  # of `before` that it may rise
    slack: float = 0.0
    limit: int | None = None  # of its whole part, whatever was before
    accepted: float | None = None  # up to which a rise was accepted, with a reason (bench/accepted)

    def change(self):
        return None if self.before is None else self.now - self.before

    def complaint(self):
        """Why this fails, or None."""
        if self.limit is not None and int(self.now) > self.limit:
            return f"above the limit of {self.limit}"
        if self.before is not None and self.now > self.before * (1 + self.part) + self.slack:
            return None if self.accepted is not None and self.now <= self.accepted else "rises"
        return None


def read_accepted(text):
    """{(what, unit): up to which it may rise}; a line is «what | unit | up to | why», # begins a comment."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            what, unit, most, why = (field.strip() for field in line.split("|"))
            value = float(most.replace(",", ""))
        except ValueError:
            raise Trouble(f"bench/accepted, line {number}: it is not «what | unit | up to | why»") from None
        if not (what and unit and why and math.isfinite(value)) or (what, unit) in found:
            raise Trouble(f"bench/accepted, line {number}: something is missing, not a number, or there twice")
        found[what, unit] = value
    return found


def accept(found):
    """Notes in the counts how far their rise is accepted; a line that no count answers to is an error."""
    with open(ACCEPTED, encoding="utf-8") as file:
        accepted = read_accepted(file.read())
    for count in found:
        count.accepted = accepted.pop((count.what, count.unit), None)
    if accepted:
        raise Trouble(f"bench/accepted: nothing is counted that is called {' | '.join(next(iter(accepted)))}")


def run(command, **options):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
                              check=False, **options)
    except OSError as error:
        raise Trouble(f"{command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Trouble(f"{' '.join(command)} did not end in time") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise Trouble(f"{' '.join(command)} ended with {done.returncode}: {said[-2000:]}")
    return done


def environment(library, **more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TARN_")}
    return {**kept, "LD_PRELOAD": library, "LD_BIND_NOW": "1", **more}


def calls_in(text):
    """Callgrind's file → {(operation, call): (number of calls, instructions inside them)}, of functions counted_…"""
    names, calls = {}, {}
    caller = callee = ""
    number = None
    for line in text.splitlines():
        match = re.match(r"(c?fn)=\((\d+)\)(?: (.*))?$", line)
        if match:
            kind, key, name = match.groups()
            if name:
                names[key] = name
            if kind == "fn":
                caller = names[key]
            else:
                callee = names[key]
        elif line.startswith("calls="):
            number = int(line[len("calls="):].split()[0])
        elif number is not None and line:
            if caller.startswith("counted_"):
                key = caller.removeprefix("counted_"), callee.removeprefix("tarn_")
                before = calls.get(key, (0, 0))
                calls[key] = before[0] + number, before[1] + int(line.split()[1])
            number = None
    return calls


def count_instructions(program, library, folder):
    """{(operation, call): instructions of one call}"""
    path = os.path.join(folder, "callgrind.out")
    run(["valgrind", "--tool=callgrind", "-q", f"--callgrind-out-file={path}", program, "calls"],
        env=environment(library), cwd=folder)
    with open(path, encoding="utf-8", errors="replace") as file:
        calls = calls_in(file.read())
    os.unlink(path)
    found = {key: inside / number for key, (number, inside) in calls.items() if key[1] in CALLS}
    if not found:
        raise Trouble("callgrind has seen no call of the allocator")
    return found


def counters_in(text):
    """The counters of the report that a library built with -Dcounters=true prints."""
    values = {}
    for counter in COUNTERS:
        match = re.search(rf"^tarn:\s+([\d,]+)\s+{counter}$", text, re.MULTILINE)
        if not match:
            raise Trouble(f"no counter «{counter}» in the report: is it a build with -Dcounters=true?")
        values[counter] = int(match[1].replace(",", ""))
    return values


def count_workload(program, library, name, threads):
    done = run([program, name, str(threads), str(ROUNDS)], env=environment(library, TARN_STATS="1"))
    return counters_in(done.stderr)


def compare_calls(before, now):
    """Lines for the calls of two libraries; `before` is None where there is nothing to compare with."""
    for key, value in sorted(now.items()):
        operation, call = key
        yield Count(f"{operation}: {call}", "instructions", before.get(key) if before else None, value,
                    INSTRUCTION_TOLERANCE, limit=LIMITS.get(key))
    for key in LIMITS:
        if key not in now:
            raise Trouble(f"callgrind has not seen {key[1]} in {key[0]}")


def compare_workload(program, before, now, name, threads):
    """Runs both libraries in turns; with one thread, once is enough."""
    lowest = {}
    for turn in range(1 if threads == 1 else THREADED_RUNS):
        for library in (before, now) if turn % 2 == 0 else (now, before):
            for counter, value in count_workload(program, library, name, threads).items():
                lowest[library, counter] = min(value, lowest.get((library, counter), value))
    row = name if threads == 1 else f"{name} x{threads}"
    for counter in COUNTERS:
        part = EXACT_TOLERANCE if threads == 1 else THREADED_TOLERANCE
        slack = 0 if threads == 1 else THREADED_MAP_SLACK if counter == "mapping calls" else THREADED_LOCKED_SLACK
        yield Count(row, counter, lowest[before, counter], lowest[now, counter], part, slack)


def table(counts, names):
    """Lines of text; the counts that did not change in one line at the end, unless they have a limit."""
    shown = [count for count in counts if count.before is None or count.change() or count.limit or count.complaint()]
    width = max([len(count.what) for count in shown] + [4]) + 2
    yield f"{'what':<{width}}{'counted':<20}{names[0]:>14}{names[1]:>14}{'change':>9}  verdict"
    yield "-" * (width + 20 + 14 + 14 + 9 + 9)
    for count in shown:
        digits = 1 if count.unit == "instructions" else 0
        before = "-" if count.before is None else f"{count.before:,.{digits}f}"
        change = "-" if not count.before else f"{100 * count.change() / count.before:+.1f} %"
        verdict = count.complaint()
        allowed = f" (limit {count.limit})" if count.limit and not verdict else ""
        if count.accepted is not None and not verdict:
            allowed += f" (accepted up to {count.accepted:,.{digits}f})"
        yield (f"{count.what:<{width}}{count.unit:<20}{before:>14}{count.now:>14,.{digits}f}{change:>9}  "
               f"{'FAILED: ' + verdict if verdict else 'ok'}{allowed}")
    if len(shown) < len(counts):
        yield f"{len(counts) - len(shown)} more did not change."
