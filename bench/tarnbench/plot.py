"""Plots as SVG text, to stand inside a page: bars with their spread, and lines with a label at their end.

Colours are not written here: a series has the class s0, s1, …, and the page's style says what colour that is by day
and by night. Lines differ in their dashes and points too, and every line and bar bears its name.
"""
import math
from html import escape

WIDTH = 520
ROW_HEIGHT = 22
LINES_HEIGHT = 250
NAME_WIDTH = 92
VALUE_WIDTH = 132
LEFT, RIGHT, TOP, BOTTOM = 52, 92, 14, 40  # around lines
LABEL_DISTANCE = 14  # between the names at the ends of lines
CHARACTER_WIDTH = 6.2
TICKS = 5
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 2")


def at(value):
    """A coordinate, short."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def text(x, y, words, css="", anchor="start"):
    return (f'<text x="{at(x)}" y="{at(y)}" text-anchor="{anchor}"' + (f' class="{css}"' if css else "") +
            f'>{escape(str(words))}</text>')


def line(x1, y1, x2, y2, css):
    return f'<line x1="{at(x1)}" y1="{at(y1)}" x2="{at(x2)}" y2="{at(y2)}" class="{css}"/>'


def svg(height, title, parts):
    return (f'<svg viewBox="0 0 {WIDTH} {at(height)}" role="img" aria-label="{escape(title)}">'
            f'<title>{escape(title)}</title>{"".join(parts)}</svg>')


def ticks(highest, count=TICKS):
    """Round numbers from 0 to at least `highest`."""
    if not highest > 0:
        return [0.0, 1.0]
    raw = highest / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [step * index for index in range(math.ceil(highest / step - 1e-9) + 1)]


def short(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spaced(places, distance, low, high):
    """Places moved apart so that neighbours are `distance` apart, within low … high, in the order given."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    floor = low
    for index in order:
        moved[index] = max(moved[index], floor)
        floor = moved[index] + distance
    ceiling = high
    for index in reversed(order):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - distance
    return moved


def bars(title, rows):
    """Horizontal bars from 0. rows: (series, name, value, (low, high) or None, mark or None, words).

    The range is drawn across the end of the bar; the mark is a small upright line, for a second value.
    """
    rows = list(rows)
    reach = max([0.0] + [part for _, _, value, interval, mark, _ in rows
                         for part in (value, interval[1] if interval else 0.0, mark or 0.0)]) or 1.0
    scale = (WIDTH - NAME_WIDTH - VALUE_WIDTH) / reach
    parts = []
    for index, (series, name, value, interval, mark, words) in enumerate(rows):
        top = index * ROW_HEIGHT + 3
        middle = top + (ROW_HEIGHT - 6) / 2
        parts.append(text(NAME_WIDTH - 8, middle + 4, name, "name", "end"))
        parts.append(f'<rect x="{NAME_WIDTH}" y="{at(top)}" width="{at(max(value * scale, 0.5))}" '
                     f'height="{ROW_HEIGHT - 6}" class="fill s{series}"/>')
        if interval and interval[1] > interval[0]:
            left, right = (NAME_WIDTH + part * scale for part in interval)
            parts.append(line(left, middle, right, middle, "whisker"))
            parts += [line(end, middle - 4, end, middle + 4, "whisker") for end in (left, right)]
        if mark is not None:
            parts.append(line(NAME_WIDTH + mark * scale, top - 1, NAME_WIDTH + mark * scale,
                              top + ROW_HEIGHT - 5, "mark"))
        parts.append(text(WIDTH - VALUE_WIDTH + 8, middle + 4, words, "value"))
    return svg(len(rows) * ROW_HEIGHT + 2, title, parts)


def marker(kind, x, y, series):
    """A point of a line; its shape says the series too."""
    kind %= 4
    if kind == 0:
        return f'<circle cx="{at(x)}" cy="{at(y)}" r="3.2" class="fill s{series}"/>'
    if kind == 1:
        return f'<rect x="{at(x - 3)}" y="{at(y - 3)}" width="6" height="6" class="fill s{series}"/>'
    corners = ((0, -4), (4, 3), (-4, 3)) if kind == 2 else ((0, -4), (4, 0), (0, 4), (-4, 0))
    points = " ".join(f"{at(x + dx)},{at(y + dy)}" for dx, dy in corners)
    return f'<polygon points="{points}" class="fill s{series}"/>'


def lines(title, curves, x_label, y_label, log2_x=False, points=True):
    """curves: (series, name, [(x, y), …]), each with at least one point."""
    curves = [(series, name, sorted(values)) for series, name, values in curves if values]
    if not curves:
        return ""
    place = math.log2 if log2_x else float
    all_x = sorted({x for _, _, values in curves for x, _ in values})
    low_x, high_x = (place(all_x[0]), place(all_x[-1])) if log2_x else (0.0, all_x[-1])
    y_ticks = ticks(max(y for _, _, values in curves for _, y in values))
    right, bottom = WIDTH - RIGHT, LINES_HEIGHT - BOTTOM

    def x_at(x):
        return LEFT + (place(x) - low_x) / ((high_x - low_x) or 1.0) * (right - LEFT)

    def y_at(y):
        return bottom - y / y_ticks[-1] * (bottom - TOP)

    parts = []
    for tick in y_ticks:
        parts += [line(LEFT, y_at(tick), right, y_at(tick), "grid"),
                  text(LEFT - 6, y_at(tick) + 4, short(tick), "tick", "end")]
    x_ticks = all_x if log2_x else [tick for tick in ticks(high_x) if tick <= high_x]
    for tick in x_ticks:
        parts += [line(x_at(tick), bottom, x_at(tick), bottom + 4, "axis"),
                  text(x_at(tick), bottom + 17, short(tick), "tick", "middle")]
    parts += [line(LEFT, bottom, right, bottom, "axis"),
              text((LEFT + right) / 2, LINES_HEIGHT - 6, x_label, "tick", "middle"),
              f'<text transform="translate(12 {at((TOP + bottom) / 2)}) rotate(-90)" text-anchor="middle" '
              f'class="tick">{escape(y_label)}</text>']
    ends = spaced([y_at(values[-1][1]) for _, _, values in curves], LABEL_DISTANCE, TOP, bottom)
    for (series, name, values), label_y in zip(curves, ends):
        path = " ".join(f"{at(x_at(x))},{at(y_at(y))}" for x, y in values)
        dash = DASHES[series % len(DASHES)]
        parts.append(f'<polyline points="{path}" class="line s{series}"' +
                     (f' stroke-dasharray="{dash}"' if dash else "") + "/>")
        if points:
            parts += [marker(series, x_at(x), y_at(y), series) for x, y in values]
        end_x, end_y = x_at(values[-1][0]), y_at(values[-1][1])
        parts.append(line(end_x + 5, end_y, right + 12, label_y, "lead"))
        parts.append(text(right + 15, label_y + 4, name, f"label s{series}"))
    return svg(LINES_HEIGHT, title, parts)
