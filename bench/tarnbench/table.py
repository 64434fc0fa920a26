"""The table on stdout."""
from .statistics import BEST, CONFIDENCE, HELD_LEAST_KIB, LEAST_SAMPLES

ABSENT = "-"
FAILED = "fail"
MIB = 1024 * 1024
CELL = 7
HELD_MOST = 0.1
HELD_ROWS = 8
LEAD_NAME = 6  # characters of the name of the base, before its milliseconds

# Heading of each group of columns, and how one of its cells is written.
GROUPS = {
    "time": "time, ratio of medians to {base}",
    "spread": "time, +-% of each",
    "cpu": "CPU time, ratio of medians to {base}",
    "rss": "peak resident memory, MiB",
    "after": "resident after the work, MiB",
    "rested": "two seconds after, MiB",
    "faults": "minor faults, thousands",
    "switches": "context switches",
}
RATIO_GROUPS = ("time", "cpu")
SPREAD_GROUP = "spread"
SCALES = {"rss": 1024, "after": 1024, "rested": 1024, "faults": 1000, "switches": 1}
GEOMETRIC_LABEL = "geomean, {}"

# Figures of memory that are worth a line of their own.
FIGURE_LINES = {
    "held_at_peak": "400,000 blocks of 133 B",
    "held_by_stragglers": "all but 0.1 % freed",
    "held_when_empty": "all freed",
    "held_after_phase_1": "after 16 to 128 B, 1/128 survives",
    "held_after_phase_2": "after 96 B to 1 KiB, too",
    "held_after_phase_3": "after 768 B to 16 KiB, too",
    "held_after_phase_4": "after 24 to 512 B, too",
    "held_after_all_phases": "survivors freed",
    "held_by_idle_threads": "threads idle, all freed",
    "held_after_threads": "threads ended",
    "rss_after_load": "resident after the load",
    "rss_after_flush": "resident after all keys were deleted",
}


def number(value, digits=1):
    """Three digits or so, whatever the size."""
    if value is None:
        return ABSENT
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{0 if abs(value) >= 100 else digits}f}"


class Table:
    def __init__(self, results, groups):
        self.results = results
        self.groups = groups
        self.label_width = max([len(row.name) for row in results.session.rows] +
                               [len(GEOMETRIC_LABEL.format(label)) for label in results.groups_of_rows()]) + 1
        self.headings = [name[:CELL - 1] for name in results.names]

    def base_name(self):
        return self.results.reference

    def cell(self, row, name, group):
        if (row.name, name) in self.results.session.failures:
            return FAILED
        if group in RATIO_GROUPS:
            ratio = self.results.ratio(row, name, group)
            return f"{ratio:.2f}" if ratio else ABSENT
        if group == SPREAD_GROUP:
            spread = self.results.spread_of(row, name)
            return ABSENT if spread is None else f"{100 * spread:.1f}"
        value = self.results.value(row, name, group)
        return ABSENT if value is None else number(value / SCALES[group])

    def cells(self, texts):
        return "".join(text.rjust(CELL) for text in texts)

    def lead(self, group, row=None):
        """What stands before the ratios of a group: the median of the base, what time it is, the spread."""
        if group not in RATIO_GROUPS:
            return ""
        if row is None:
            return f"{self.base_name()[:LEAD_NAME] + ' ms':>10} {'of':<4}{'+-%':>4}"
        base = self.results.base(row, group)
        spread = self.results.spread(row, group) if self.results.session.rounds_done > 1 else None
        return (f"{number(base * 1e3 if base else None):>10} {row.time_of if group == 'time' else 'cpu':<4}"
                f"{ABSENT if spread is None else format(100 * spread, '.0f'):>4}")

    def line(self, label, texts):
        return " | ".join([label.ljust(self.label_width)] + texts)

    def heading(self, group):
        text = GROUPS[group].format(base="the best of the row" if self.results.reference == BEST else self.base_name())
        return text.ljust(len(self.lead(group)) + len(self.headings) * CELL)

    def row_lines(self, groups):
        yield self.line("", [self.heading(group) for group in groups]).rstrip()
        head = self.line("row", [self.lead(group) + self.cells(self.headings) for group in groups])
        yield head
        yield "-" * len(head)
        for row in self.results.rows_of():
            yield self.line(row.name, [
                self.lead(group, row) + self.cells(self.cell(row, name, group) for name in self.results.names)
                for group in groups])
        yield "-" * len(head)
        for label, rows in self.results.groups_of_rows().items():
            yield self.line(GEOMETRIC_LABEL.format(label), [self.geometric_cells(rows, group) for group in groups])

    def geometric_cells(self, rows, group):
        """Ratios to the base in every group. A star: not over all rows that the reference has."""
        if group == SPREAD_GROUP:
            return self.cells(ABSENT for _ in self.results.names)
        texts = []
        whole = max(self.results.geometric(rows, name, group)[1] for name in self.results.names)
        for name in self.results.names:
            mean, count = self.results.geometric(rows, name, group)
            texts.append(ABSENT if mean is None else f"{mean:.2f}" + ("*" if count < whole else ""))
        return " " * len(self.lead(group)) + self.cells(texts)

    def notes(self):
        """What a reader has to know of the columns."""
        measured = "the best allocator of the row" if self.results.reference == BEST else self.base_name()
        yield (f"Time of wall: the timed part, by the clock. Time of cpu: user and system time of the process, from "
               f"start to end.\nColumn ms: the median of {measured}. Columns +-%: half of the interval that holds the "
               f"true median with {100 * CONFIDENCE:.0f} % (up to\n{LEAST_SAMPLES} rounds: half of their range); the "
               f"one before the ratios is that of the middle allocator.")
        if "after" in self.groups:
            yield "Resident after the work: workloads, when all is freed; redis, all keys deleted; else after the load."
        if any("*" in line for line in self.row_lines(self.groups)):
            yield "A star: the mean is over fewer rows than that of the others; compare it with care."

    def held_lines(self):
        """Which rows hold too much two seconds after."""
        shares = {(row.name, name): self.results.held(row, name) for row in self.results.session.rows
                  for name in self.results.names if row.name in self.results.summaries}
        for name in self.results.names:
            held = {row: share for (row, whose), share in shares.items() if whose == name and share is not None}
            if held:
                above = sorted(((share, row) for row, share in held.items() if share > HELD_MOST), reverse=True)
                rows = ", ".join(f"{row} {100 * share:.0f} %" for share, row in above[:HELD_ROWS])
                yield (f"Two seconds after the work {name} holds more than {100 * HELD_MOST:.0f} % of the peak, above its "
                       f"start, in {len(above)} of {len(held)} rows of {HELD_LEAST_KIB // 1024} MiB and more" + (f": {rows}" if rows else "")
                       + (", …" if len(above) > HELD_ROWS else ""))

    def figure_lines(self):
        names = self.results.names
        lines = []
        for row in self.results.session.rows:
            summaries = self.results.summaries[row.name]
            for figure, label in FIGURE_LINES.items():
                values = [summaries.get(name, {}).get("figures", {}).get(figure) for name in names]
                if any(value is not None for value in values):
                    texts = [number(None if value is None else value / MIB) for value in values]
                    lines.append((f"{row.name}: {label}", texts))
        if not lines:
            return
        width = max(len(label) for label, _ in lines) + 1
        yield "memory held, MiB".ljust(width) + self.cells(self.headings)
        yield "-" * (width + len(names) * CELL)
        for label, texts in lines:
            yield label.ljust(width) + self.cells(texts)

    def lines(self, width):
        """One table when there is room for it, else one below the other."""
        if self.results.rows_of():
            whole = list(self.row_lines(self.groups))
            if width and max(map(len, whole)) > width:
                whole = [line for group in self.groups for line in [*self.row_lines([group]), ""]][:-1]
            yield from whole
            yield ""
        figures = list(self.figure_lines())
        yield from figures
        if figures:
            yield ""
