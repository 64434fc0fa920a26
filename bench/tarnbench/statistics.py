"""Medians, spreads and ratios of a finished session; what the table shows and the JSON file holds."""
import math
from statistics import median

BEST = "best"

# Kinds of rows of which means are taken.
GROUPS_OF_ROWS = {"workloads": ("workload",), "traces": ("trace",), "programs": ("program", "server")}

CONFIDENCE = 0.93  # of the interval of a median; the whole range of five samples has it
LEAST_SAMPLES = 5  # from which on the interval holds the true median with that confidence

HELD_LEAST_KIB = 8192  # of peak above the start, for what is held to be told as a part of it

# Resident bytes once the work is done, of the figures that a row may have; the first that there is.
AFTER_FIGURES = ("rss_after", "rss_after_flush", "rss_after_load")


def resident_after(sample):
    """KiB after everything was freed, deleted, or loaded; None for programs that just end."""
    for figure in AFTER_FIGURES:
        if figure in sample.figures:
            return sample.figures[figure] / 1024
    return None


def resident_rested(sample):
    return sample.figures["rss_rested"] / 1024 if "rss_rested" in sample.figures else None


# Columns of the table: name → how to read it from a sample.
MEASURES = {
    "time": lambda sample: sample.time_s,
    "rss": lambda sample: sample.peak_rss_kib,
    "after": resident_after,
    "rested": resident_rested,
    "faults": lambda sample: sample.minor_faults,
    "switches": lambda sample: sample.voluntary_switches + sample.involuntary_switches,
    "cpu": lambda sample: sample.cpu_s,
}


def interval_rank(count):
    """How many of the lowest and of the highest samples lie outside the interval of the median.

    Each sample is above the true median with chance 1/2, whatever the distribution. So with n samples, the chance that
    the median lies below the (k+1)-th lowest is that of at most k heads in n throws.
    """
    rank, outside = 0, 2 / 2 ** count
    while 2 * (rank + 1) < count:
        outside += 2 * math.comb(count, rank + 1) / 2 ** count
        if 1 - outside < CONFIDENCE:
            break
        rank += 1
    return rank


def summarise(values):
    """Median, extremes, and half of the interval of the median as a part of it. None for no values."""
    if not values:
        return None
    middle = median(values)
    ordered = sorted(values)
    rank = interval_rank(len(ordered))
    low, high = ordered[rank], ordered[-1 - rank]
    return {
        "median": middle,
        "lowest": ordered[0],
        "highest": ordered[-1],
        "interval": [low, high],
        "spread": (high - low) / 2 / middle if middle else 0.0,
    }


def geometric_mean(ratios):
    return math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios)) if ratios else None


class Results:
    """summaries[row name][allocator name][measure], for pairs that were measured and did not fail."""

    def __init__(self, session, reference):
        self.session = session
        self.reference = reference
        self.names = []
        for row in session.rows:
            for allocator in session.columns(row):
                if allocator.name not in self.names:
                    self.names.append(allocator.name)
        self.summaries = {row.name: self.summarise_row(row) for row in session.rows}

    def summarise_row(self, row):
        result = {}
        for name, samples in self.session.samples[row.name].items():
            if samples and (row.name, name) not in self.session.failures:
                result[name] = {measure: self.summarise_measure(samples, read) for measure, read in MEASURES.items()}
                figures = sorted({figure for sample in samples for figure in sample.figures})
                result[name]["figures"] = {
                    figure: median([sample.figures[figure] for sample in samples if figure in sample.figures])
                    for figure in figures}
        return result

    @staticmethod
    def summarise_measure(samples, read):
        return summarise([value for value in map(read, samples) if value is not None])

    def value(self, row, name, measure):
        """The median, or None."""
        summary = self.summaries[row.name].get(name)
        return summary[measure]["median"] if summary and summary[measure] else None

    def held(self, row, name):
        """What is still held after a rest, as a part of the peak; both above what the process had at its start. None
        where the peak is so low that the light work itself is a part of it."""
        rested, peak = self.value(row, name, "rested"), self.value(row, name, "rss")
        before = self.summaries[row.name].get(name, {}).get("figures", {}).get("rss_before", 0) / 1024
        if rested is None or peak is None or peak < before + HELD_LEAST_KIB:
            return None
        return max(rested - before, 0) / (peak - before)

    def base(self, row, measure):
        """What ratios are taken to: the value of the reference, or the lowest of all."""
        if self.reference != BEST:
            return self.value(row, self.reference, measure)
        values = [self.value(row, name, measure) for name in self.summaries[row.name]]
        return min((value for value in values if value is not None), default=None)

    def ratio(self, row, name, measure):
        value, base = self.value(row, name, measure), self.base(row, measure)
        return value / base if value and base else None

    def spread_of(self, row, name, measure="time"):
        """That of one allocator, or None as long as there is but one sample."""
        summary = self.summaries[row.name].get(name)
        samples = self.session.samples[row.name].get(name, [])
        return summary[measure]["spread"] if summary and summary[measure] and len(samples) > 1 else None

    def spread(self, row, measure="time"):
        """That of the middle allocator of the row."""
        spreads = [summary[measure]["spread"] for summary in self.summaries[row.name].values()]
        return median(spreads) if spreads else None

    def rows_of(self, *kinds):
        return [row for row in self.session.rows if row.timed and (not kinds or row.kind in kinds)]

    def groups_of_rows(self):
        """Label → rows, of what a geometric mean is taken over; «all» where there is more than one group."""
        groups = {label: self.rows_of(*kinds) for label, kinds in GROUPS_OF_ROWS.items()}
        groups = {label: rows for label, rows in groups.items() if rows}
        return {**groups, "all": self.rows_of()} if len(groups) > 1 else groups

    def geometric(self, rows, name, measure):
        """Over the rows where this allocator and the reference both have a value, and how many these are."""
        ratios = [self.ratio(row, name, measure) for row in rows]
        ratios = [ratio for ratio in ratios if ratio]
        return geometric_mean(ratios), len(ratios)
