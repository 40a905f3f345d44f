"""Bars against limits, as SVG."""
import collections
from xml.sax.saxutils import escape

SMALL, LARGE = "at-most.svg", "at-least.svg"

# A bar: its value with the smallest and the largest round, its limit, whether that is met.
Row = collections.namedtuple("Row", "label value low high limit met")

LABEL, PLOT, RIGHT = 270, 430, 70  # widths in pixels
LINE, TOP = 24, 44
FONT = 'font-family="sans-serif" font-size="12"'
COLOURS = {True: "#2e7d32", False: "#c62828"}


def nice_top(rows):
    """The end of the axis: bars beyond four times the largest limit are cut."""
    cut = 4 * max(r.limit for r in rows)
    return min(max(max(r.high, r.limit) for r in rows) * 1.05, cut)


def bar(row, y, top):
    def x(value):
        return LABEL + PLOT * min(value, top) / top

    middle = y + LINE / 2
    beyond = " &gt;" if row.value > top else ""
    return [
        f'<text x="{LABEL - 8}" y="{middle + 4}" text-anchor="end" {FONT}>{escape(row.label)}</text>',
        f'<rect x="{LABEL}" y="{y + 5}" width="{x(row.value) - LABEL:.1f}" height="{LINE - 10}" '
        f'fill="{COLOURS[row.met]}"/>',
        f'<line x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{middle}" y2="{middle}" '
        'stroke="#000" stroke-width="1.5"/>',
        f'<line x1="{x(row.limit):.1f}" x2="{x(row.limit):.1f}" y1="{y + 1}" y2="{y + LINE - 1}" '
        'stroke="#1565c0" stroke-width="3"/>',
        f'<text x="{LABEL + PLOT + 8}" y="{middle + 4}" {FONT}>{row.value:.3f}{beyond}</text>',
    ]


def bars(title, rows):
    """One bar per row; thin line: all rounds; thick mark: the limit."""
    width, height = LABEL + PLOT + RIGHT, TOP + LINE * max(len(rows), 1) + 10
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="10" y="24" font-family="sans-serif" font-size="15">{escape(title)}</text>',
    ]
    if not rows:
        out.append(f'<text x="10" y="{TOP + 14}" {FONT}>not measured</text>')
    for i, row in enumerate(rows):
        out += bar(row, TOP + i * LINE, nice_top(rows))
    return "\n".join(out + ["</svg>"]) + "\n"
