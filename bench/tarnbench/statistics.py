"""Medians, spreads and ratios of a finished session; what the table shows and the JSON file holds."""
import math
from statistics import median

BEST = "best"

# Columns of the table: name → how to read it from a sample.
MEASURES = {
    "time": lambda sample: sample.time_s,
    "rss": lambda sample: sample.peak_rss_kib,
    "faults": lambda sample: sample.minor_faults,
    "switches": lambda sample: sample.voluntary_switches + sample.involuntary_switches,
    "cpu": lambda sample: sample.cpu_s,
}


def summarise(values):
    """Median, extremes, and half of the range as a part of the median."""
    middle = median(values)
    return {
        "median": middle,
        "lowest": min(values),
        "highest": max(values),
        "spread": (max(values) - min(values)) / 2 / middle if middle else 0.0,
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
                result[name] = {measure: summarise([read(sample) for sample in samples])
                                for measure, read in MEASURES.items()}
                figures = sorted({figure for sample in samples for figure in sample.figures})
                result[name]["figures"] = {
                    figure: median([sample.figures[figure] for sample in samples if figure in sample.figures])
                    for figure in figures}
        return result

    def value(self, row, name, measure):
        """The median, or None."""
        summary = self.summaries[row.name].get(name)
        return summary[measure]["median"] if summary else None

    def base(self, row, measure):
        """What ratios are taken to: the value of the reference, or the lowest of all."""
        if self.reference != BEST:
            return self.value(row, self.reference, measure)
        values = [self.value(row, name, measure) for name in self.summaries[row.name]]
        return min(values, default=None)

    def ratio(self, row, name, measure):
        value, base = self.value(row, name, measure), self.base(row, measure)
        return value / base if value and base else None

    def spread(self, row, measure="time"):
        """That of the middle allocator of the row."""
        spreads = [summary[measure]["spread"] for summary in self.summaries[row.name].values()]
        return median(spreads) if spreads else None

    def rows_of(self, *kinds):
        return [row for row in self.session.rows if row.timed and (not kinds or row.kind in kinds)]

    def geometric(self, rows, name, measure):
        """Over the rows where this allocator and the reference both have a value, and how many these are."""
        ratios = [self.ratio(row, name, measure) for row in rows]
        ratios = [ratio for ratio in ratios if ratio]
        return geometric_mean(ratios), len(ratios)
