"""Carrying out a comparison: checks first, then rounds in which the allocators take turns on every row.

In a round each row is run under every allocator, one after the other, and the one that begins changes from row to row
and from round to round: what else goes on in the machine meets all of them alike.
"""
import collections
import shutil
import sys
import time

from .allocators import GLIBC
from .measure import Failure, Timeout
from .statistics import LEAST_SAMPLES, summarise

LINE_EVERY_S = 15  # where the output is not a terminal
LEAST_DONE = 0.25  # of a round, before the time left is guessed
BAR_CHARACTERS = 24
OVERTIME = 1.15  # times the budget; a round that takes longer than those before it is cut short here
MOST_TIMEOUTS = 3  # then an allocator is left out, or one that hangs would hold up all the others for an hour


class Progress:
    """One line that is kept up to date on a terminal; elsewhere a line now and then."""

    def __init__(self, stream):
        self.stream = stream
        self.live = stream.isatty()
        self.last = time.monotonic()
        self.width = 0

    def show(self, text, now=False):
        moment = time.monotonic()
        if self.live:
            text = text[:shutil.get_terminal_size().columns - 1]  # a line that wraps cannot be taken back
            self.stream.write("\r" + text.ljust(self.width))
            self.width = len(text)
        elif now or moment - self.last >= LINE_EVERY_S:
            self.stream.write(text + "\n")
            self.last = moment
        self.stream.flush()

    def clear(self):
        if self.live and self.width:
            self.stream.write("\r" + " " * self.width + "\r")
            self.stream.flush()
            self.width = 0


def bar(part):
    """How much is done, as text; `part` from 0 to 1."""
    filled = round(BAR_CHARACTERS * part)
    return "[" + "#" * filled + "." * (BAR_CHARACTERS - filled) + "]"


class Session:
    """The samples of a comparison as they come in: samples[row name][allocator name] is a list."""

    def __init__(self, rows, allocators, glibc, rounds, budget_s, spread=None):
        self.rows = rows
        self.allocators = allocators
        self.glibc = glibc
        self.rounds = rounds
        self.budget_s = budget_s
        self.spread = spread  # as a part of the median; then a row whose spread is no larger is not measured again
        self.row_seconds = collections.Counter()  # row name → time spent on it
        self.row_rounds = collections.Counter()
        self.samples = {row.name: {allocator.name: [] for allocator in self.columns(row)} for row in rows}
        self.failures = {}  # (row name, allocator name) → what went wrong
        self.timeouts = collections.Counter()  # allocator name → rows that did not end in time
        self.rss_over_time = {}  # row name → allocator name → [(seconds, KiB)]
        self.rounds_done = 0
        self.interrupted = False
        self.cut_short = False
        self.started = time.monotonic()
        self.progress = Progress(sys.stderr)

    def columns(self, row):
        return self.allocators + row.extra_allocators(self.glibc)

    def elapsed(self):
        return time.monotonic() - self.started

    def fail(self, row, allocator, failure):
        self.failures.setdefault((row.name, allocator.name), str(failure))
        if isinstance(failure, Timeout):
            self.timeouts[allocator.name] += 1

    def can_run(self, row, allocator):
        if self.timeouts[allocator.name] >= MOST_TIMEOUTS:
            self.failures.setdefault((row.name, allocator.name), "not tried: other rows did not end in time")
        return (row.name, allocator.name) not in self.failures

    def run(self):
        try:
            self.check_allocators()
            while self.rounds_done < self.rounds and self.pending() and self.another_round_fits():
                self.one_round()
                if self.cut_short:
                    break
                self.rounds_done += 1
            self.compare_outputs()
        except KeyboardInterrupt:
            self.interrupted = True
        self.progress.clear()

    def check_allocators(self):
        """Which object provides malloc to each program, before time is spent on it."""
        for row in self.rows:
            for allocator in self.columns(row):
                self.progress.show(f"checking {row.name} with {allocator.name}")
                try:
                    row.check(allocator)
                except Failure as failure:
                    self.fail(row, allocator, failure)

    def spread_of(self, row):
        """The largest of the allocators of a row, or None while one of them has too few samples."""
        spreads = []
        for allocator in self.columns(row):
            samples = self.samples[row.name][allocator.name]
            if (row.name, allocator.name) in self.failures:
                continue
            if len(samples) < LEAST_SAMPLES:
                return None
            spreads.append(summarise([sample.time_s for sample in samples])["spread"])
        return max(spreads, default=0.0)

    def is_settled(self, row):
        spread = self.spread_of(row) if self.spread is not None else None
        return spread is not None and spread <= self.spread

    def pending(self):
        """The rows that the next round has to measure."""
        return [row for row in self.rows if row.timed and not self.is_settled(row)] or (
            self.rows if self.rounds_done == 0 else [])

    def unsettled(self):
        """Rows whose spread is still too large, with it (None: too few samples), where a spread was asked for."""
        if self.spread is None:
            return []
        return [(row, self.spread_of(row)) for row in self.rows if row.timed and not self.is_settled(row)]

    def round_seconds(self):
        """What the next round will take."""
        return sum(self.row_seconds[row.name] / self.row_rounds[row.name] for row in self.pending()
                   if self.row_rounds[row.name])

    def another_round_fits(self):
        return (self.rounds_done == 0 or self.budget_s is None or
                self.elapsed() + self.round_seconds() <= self.budget_s)

    def is_overdue(self):
        return self.rounds_done > 0 and self.budget_s is not None and self.elapsed() > OVERTIME * self.budget_s

    def one_round(self):
        rows = [row for row in self.pending() if row.timed]
        plan = []
        for index, row in enumerate(rows):
            columns = self.columns(row)
            first = (index + self.rounds_done) % len(columns)
            plan += [(row, allocator) for allocator in columns[first:] + columns[:first]]
        last_row = None
        for done, (row, allocator) in enumerate(plan):
            if row is not last_row and self.is_overdue():
                self.cut_short = True
                return
            self.row_rounds[row.name] += row is not last_row
            last_row = row
            self.show_progress(done, len(plan), row, allocator)
            started = time.monotonic()
            self.one_sample(row, allocator)
            self.row_seconds[row.name] += time.monotonic() - started
        self.untimed_samples()
        if not self.progress.live:
            self.progress.show(f"round {self.rounds_done + 1} done after {self.elapsed():.0f} s",
                               now=self.spread is None)

    def one_sample(self, row, allocator):
        if not self.can_run(row, allocator):
            return
        try:
            self.samples[row.name][allocator.name].append(row.measure(allocator))
        except Failure as failure:
            self.fail(row, allocator, failure)

    def untimed_samples(self):
        """The rows that compare memory, not time: once."""
        for row in self.rows:
            if not row.timed and not self.rounds_done:
                self.progress.show(f"{row.name} with all allocators")
                for allocator, sample in self.side_by_side(row, row.start):
                    self.samples[row.name][allocator.name].append(sample)

    def side_by_side(self, row, start):
        """Runs a row under all allocators at once; [(allocator, sample)]."""
        begun, samples = [], []
        try:
            for allocator in self.columns(row):
                if self.can_run(row, allocator):
                    begun.append((allocator, start(allocator)))
            for allocator, run in begun:
                try:
                    samples.append((allocator, row.finish(run, allocator)))
                except Failure as failure:
                    self.fail(row, allocator, failure)
        finally:
            for _, run in begun:
                run.close()
        return samples

    def rest(self):
        """One more run of every workload, which goes on with light work for a while; all figures but that of the end
        are those of the other runs."""
        rows = [row for row in self.rows if row.start_resting]
        try:
            for done, row in enumerate(rows):
                self.progress.show(f"memory two seconds after, {done}/{len(rows)}: {row.name}")
                for allocator, sample in self.side_by_side(row, row.start_resting):
                    for measured in self.samples[row.name][allocator.name][:1]:
                        measured.figures["rss_rested"] = sample.figures["rss_rested"]
        except KeyboardInterrupt:
            self.interrupted = True
        self.progress.clear()

    def watch(self, tools):
        """One more run of everything, whose resident memory is looked at again and again; no sample of it counts."""
        plan = [(row, allocator) for row in self.rows for allocator in self.columns(row)
                if self.can_run(row, allocator)]
        try:
            for done, (row, allocator) in enumerate(plan):
                self.progress.show(f"memory over time, {done}/{len(plan)}: {row.name} with {allocator.name}")
                tools.watch = []
                try:
                    row.measure(allocator)
                    self.rss_over_time.setdefault(row.name, {})[allocator.name] = tools.watch
                except Failure as failure:
                    self.fail(row, allocator, failure)
        except KeyboardInterrupt:
            self.interrupted = True
        tools.watch = None
        self.progress.clear()

    def seconds_left(self, part):
        """From the rounds and the `part` of a round that are done; None as long as that is too little to go by.

        With a spread asked for, this is the most that it may take: rows may settle before.
        """
        done = self.rounds_done + part
        if done < LEAST_DONE:
            return None
        if self.rounds_done and self.spread is not None:
            per_round = self.round_seconds()
            more = self.rounds - done
            if self.budget_s is not None:
                return max(0.0, min(per_round * more, self.budget_s - self.elapsed()))
            return per_round * more
        per_round = self.elapsed() / done
        rounds = self.rounds
        if self.budget_s is not None:
            rounds = min(rounds, max(self.rounds_done + 1, int(self.budget_s / per_round)))
        return max(0.0, per_round * (rounds - done))

    def show_progress(self, done, count, row, allocator):
        left = self.seconds_left(done / count)
        text = "" if left is None else f", {'at most' if self.spread is not None else 'about'} {left:.0f} s left"
        if self.progress.live:
            part = self.elapsed() / (self.elapsed() + left) if left is not None else 0.0
            text = f"{bar(part)} {100 * part:3.0f} %{text}; "
            self.progress.show(f"{text}round {self.rounds_done + 1}, {done}/{count}: {row.name} with {allocator.name}")
            return
        self.progress.show(f"round {self.rounds_done + 1} of at most {self.rounds}, {done}/{count}{text}: "
                           f"{row.name} with {allocator.name}")

    def compare_outputs(self):
        """What a program printed must be what it printed under glibc."""
        for row in self.rows:
            if not row.compared_output:
                continue
            samples = self.samples[row.name]
            expected = samples.get(GLIBC) or self.run_under_glibc(row)
            if not expected:
                self.failures.setdefault((row.name, GLIBC), "no output to compare with")
                continue
            for name, given in samples.items():
                wrong = [sample.output for sample in given if sample.output != expected[0].output]
                if wrong:
                    given_text, right_text = (" ".join(text.split()) for text in (wrong[0], expected[0].output))
                    self.failures[row.name, name] = (f"its output «{given_text}» is not that under glibc, "
                                                     f"«{right_text}»")

    def run_under_glibc(self, row):
        if not any(self.samples[row.name].values()) or (row.name, GLIBC) in self.failures:
            return []
        try:
            row.check(self.glibc)
            return [row.measure(self.glibc)]
        except Failure as failure:
            self.fail(row, self.glibc, failure)
            return []
