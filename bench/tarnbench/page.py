"""The page of --html: one file with everything in it, made from what the JSON file holds."""
from html import escape

from .plot import bars, lines
from .table import number

# By day and by night. The hues are those of Okabe and Ito, which people with any kind of colour vision tell apart.
COLOURS = (
    ("#0063a6", "#5db4f0"),
    ("#c64600", "#ff8a4c"),
    ("#00795a", "#2fc79b"),
    ("#b0478c", "#e69bc9"),
    ("#8a6a00", "#e6b422"),
    ("#5c5c5c", "#b4b4b4"),
    ("#3f3fbf", "#a3a3ff"),
    ("#7a2e2e", "#e08a8a"),
)
MEASURE_NAMES = {
    "time": "time",
    "rss": "peak resident memory",
    "after": "resident after the work",
    "faults": "minor faults",
    "switches": "context switches",
}
MIB = 1024
STYLE = """
:root { color-scheme: light dark; --text: #1d1d1f; --soft: #5f6066; --rule: #d9d9de; --paper: #ffffff; --panel: #f6f6f8;
%(day)s }
@media (prefers-color-scheme: dark) { :root { --text: #ececf0; --soft: #a2a3ab; --rule: #3a3b42; --paper: #16171a;
--panel: #1f2024;
%(night)s } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 1180px; background: var(--paper); color: var(--text);
font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: .3rem 0; max-width: 60rem; }
.soft { color: var(--soft); }
.bad { font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; }
th:first-child, td:first-child { text-align: left; }
td.best { font-weight: 700; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%%), 1fr)); gap: 1rem; }
.card { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; padding: .8rem 1rem;
min-width: 0; }
.pair { margin-bottom: 1rem; }
.caption { color: var(--soft); font-size: .85rem; margin: .4rem 0 .2rem; }
svg { display: block; width: 100%%; max-width: 36rem; height: auto; }
svg text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: var(--text); }
svg .tick, svg .value { font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; }
line.grid { stroke: var(--rule); stroke-width: 1; }
line.axis { stroke: var(--soft); stroke-width: 1; }
line.lead { stroke: var(--soft); stroke-width: .7; }
line.whisker { stroke: var(--text); stroke-width: 1.3; }
line.mark { stroke: var(--text); stroke-width: 2; }
.line { fill: none; stroke-width: 2; }
%(series)s
"""


def style(count):
    shades = [COLOURS[index % len(COLOURS)] for index in range(count)]
    return STYLE % {
        "day": " ".join(f"--s{index}: {day};" for index, (day, _) in enumerate(shades)),
        "night": " ".join(f"--s{index}: {night};" for index, (_, night) in enumerate(shades)),
        "series": "\n".join(f".fill.s{index} {{ fill: var(--s{index}); }} "
                            f".line.s{index} {{ stroke: var(--s{index}); }} "
                            f"svg .label.s{index} {{ fill: var(--s{index}); }}" for index in range(count)),
    }


def element(tag, content, css=""):
    return f"<{tag}" + (f' class="{css}"' if css else "") + f">{content}</{tag}>"


class Page:
    """`report` is what the JSON file holds."""

    def __init__(self, report):
        self.report = report
        self.names = report["names"]
        self.series = {name: index for index, name in enumerate(self.names)}
        self.failures = {(failure["row"], failure["allocator"]) for failure in report["failures"]}

    def text(self):
        body = [self.head(), self.summary(), self.scaling(), self.rows(), self.over_time(), self.machine()]
        return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
                '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
                f"<title>Tarn: allocators compared</title><style>{style(len(self.names))}</style></head>\n<body>\n" +
                "\n".join(part for part in body if part) + "\n</body></html>\n")

    def head(self):
        report = self.report
        what = (f"{', '.join(self.names)}; {len(report['rows'])} rows, {report['rounds']} rounds in "
                f"{report['seconds']:.0f} s, {report['made_at']}. Ratios are to {report['reference']}; "
                "below 1 is faster, or smaller.")
        parts = [element("h1", "Allocators compared"), element("p", escape(what), "soft")]
        if report["interrupted"]:
            parts.append(element("p", "Interrupted: the page holds what was measured until then.", "bad"))
        for row, spread in report["not_settled"].items():
            what = "too few rounds" if spread is None else f"±{100 * spread:.1f} %"
            parts.append(element("p", escape(f"Not settled: {row}: {what}"), "bad"))
        for failure in report["failures"]:
            parts.append(element("p", escape(f"Failed: {failure['row']} with {failure['allocator']}: "
                                             f"{failure['what']}"), "bad"))
        return "\n".join(parts)

    def summary(self):
        """Geometric means, a line for each kind of rows and each measure."""
        lines_of_table = [element("tr", "".join(element("th", escape(name)) for name in
                                                ["geometric mean of ratios", *self.names]))]
        for label, measures in self.report["geometric_means"].items():
            for measure, means in measures.items():
                if measure not in MEASURE_NAMES or not any(mean for mean, _ in means.values()):
                    continue
                whole = max(count for _, count in means.values())
                best = min(f"{mean:.2f}" for mean, count in means.values() if mean and count == whole)
                cells = [element("td", escape(f"{label}: {MEASURE_NAMES[measure]}"))]
                for name in self.names:
                    mean, count = means[name]
                    words = f"{mean:.2f}" if mean else "–"
                    starred = "*" if mean and count < whole else ""
                    cells.append(element("td", words + starred, "best" if words == best and not starred else ""))
                lines_of_table.append(element("tr", "".join(cells)))
        if len(lines_of_table) == 1:
            return ""
        return (element("h2", "Summary") + element("div", element("table", "\n".join(lines_of_table)), "wide") +
                element("p", "A star: over fewer rows than the others; compare it with care.", "soft"))

    def value(self, row, name, measure):
        summary = row["summary"].get(name)
        return summary.get(measure) if summary else None

    def time_bars(self, row):
        for name in self.names:
            time = self.value(row, name, "time")
            if not time:
                continue
            ratio = row["time_ratio"].get(name)
            words = f"{number(time['median'] * 1e3)} ms ±{100 * time['spread']:.0f} %"
            yield (self.series[name], name, time["median"], time["interval"], None,
                   words + (f" · {ratio:.2f}×" if ratio else ""))

    def memory_bars(self, row):
        for name in self.names:
            peak, after = self.value(row, name, "rss"), self.value(row, name, "after")
            if not peak:
                continue
            mark = after["median"] / MIB if after else None
            words = f"{number(peak['median'] / MIB)} MiB" + (f", after {number(mark)}" if after else "")
            yield self.series[name], name, peak["median"] / MIB, [part / MIB for part in peak["interval"]], mark, words

    def rows(self):
        parts = [element("h2", "Rows"),
                 element("p", "Bars: medians. Across their end: the interval that holds the true median with 93 % (the "
                              "whole range, up to five rounds). The upright line in the bars of memory: resident "
                              "after the work.", "soft")]
        for row in self.report["rows"]:
            charts = []
            if row["time_of"]:
                charts.append((f"Time, {row['time_of']}", bars(f"{row['name']}: time", self.time_bars(row))))
            charts.append(("Peak resident memory", bars(f"{row['name']}: peak resident memory", self.memory_bars(row))))
            if not row["summary"]:
                continue
            inside = "".join(element("div", element("p", escape(caption), "caption") + chart)
                             for caption, chart in charts)
            failed = [name for name in self.names if (row["name"], name) in self.failures]
            parts.append(element("section", element("h3", escape(row["name"])) +
                                 element("p", escape(row["operation"]), "caption") +
                                 (element("p", escape(f"Failed: {', '.join(failed)}"), "bad") if failed else "") +
                                 element("div", inside, "grid"), "card pair"))
        return "\n".join(parts)

    def families(self):
        """Rows of one workload that differ in their threads: name → [(threads, row)]."""
        families = {}
        for row in self.report["rows"]:
            if row["time_of"] and row.get("threads"):
                families.setdefault(row["workload"], []).append((row["threads"], row))
        return {name: sorted(rows, key=lambda pair: pair[0]) for name, rows in families.items() if len(rows) > 1}

    def scaling(self):
        """Speed over threads. The work of a row is fixed, so speed is one time over another."""
        cards = []
        for workload, rows in self.families().items():
            least, first = rows[0]
            base_name = next((name for name in [self.report["reference"], *self.names]
                              if self.value(first, name, "time")), None)
            if base_name is None:
                continue
            base = self.value(first, base_name, "time")["median"]
            curves = [(self.series[name], name, [(threads, base / self.value(row, name, "time")["median"])
                                                 for threads, row in rows if self.value(row, name, "time")])
                      for name in self.names]
            unit = "1 thread" if least == 1 else f"{least} threads"
            chart = lines(f"{workload}: speed over threads", curves, "threads",
                          f"speed, {base_name} with {unit} = 1", log2_x=True)
            cards.append(element("section", element("h3", escape(workload)) +
                                 element("p", escape(rows[0][1]["operation"]), "caption") + chart, "card"))
        if not cards:
            return ""
        cores = self.report["machine"]["cores"]
        return (element("h2", "Speed over threads") +
                element("p", f"The same work, divided among more threads. Cores: {cores}.", "soft") +
                element("div", "\n".join(cards), "grid"))

    def over_time(self):
        cards = []
        for row in self.report["rows"]:
            curves = [(self.series[name], name, [(seconds, kib / MIB) for seconds, kib in samples])
                      for name, samples in row.get("rss_over_time", {}).items() if name in self.series]
            chart = lines(f"{row['name']}: resident memory over time", curves, "seconds", "resident, MiB", points=False)
            if chart:
                cards.append(element("section", element("h3", escape(row["name"])) + chart, "card"))
        if not cards:
            return ""
        return (element("h2", "Resident memory over time") +
                element("p", "One more run of each, looked at every 20 ms; its time is not compared.", "soft") +
                element("div", "\n".join(cards), "grid"))

    def machine(self):
        about = self.report["machine"]
        rows = [("processor", about["processor"] or about["architecture"]), ("cores", about["cores"]),
                ("memory", f"{about['memory_mib']:,} MiB, pages of {about['page_bytes']} bytes"),
                ("kernel", about["kernel"]), ("libc", about["libc"]), ("Python", about["python"]),
                ("transparent huge pages", about["transparent_hugepages"]),
                ("load as it began", f"{about['load_average_at_start']:.2f}")]
        rows += sorted(about["allocator_settings"].items())
        rows += [(allocator["name"], f"{allocator['version']}  {allocator['library']}".strip())
                 for allocator in self.report["allocators"]]
        table = "\n".join(element("tr", element("td", escape(name)) + element("td", escape(str(value))))
                          for name, value in rows)
        return element("h2", "Machine and versions") + element("div", element("table", table), "wide")
