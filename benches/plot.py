"""Lines on two logarithmic axes, as SVG."""

import math
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 80, 190, 48, 62
INK, FAINT, GRID = "#222222", "#555555", "#dddddd"
COLOURS = ["#0b62a8", "#c2410c", "#15803d", "#7c3aed"]


@dataclass(frozen=True)
class Line:
    """A line: of one colour for one kind of work, dashed for peers."""

    name: str
    colour: int
    dashed: bool
    points: list[tuple[float, float]]


def label(value: float) -> str:
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def ticks(low: float, high: float) -> list[float]:
    """More of each power of ten the fewer there are."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = math.log10(high / low)
    steps = (1, 1.5, 2, 3, 4, 5, 6, 8) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
    return [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p * 1.0001 and s * 10.0**p <= high * 1.0001]


def outward(values: list[float]) -> tuple[float, float]:
    """Limits that leave room around."""
    low, high = min(values), max(values)
    return low / 1.3, high * 1.3


def plot(title: str, x_name: str, y_name: str, lines: list[Line]) -> str:
    """The picture. Its background is white, whatever surrounds it."""
    lines = [line for line in lines if line.points]
    x0, x1 = outward([x for line in lines for x, _ in line.points])
    y0, y1 = outward([y for line in lines for _, y in line.points])
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at_x(x: float) -> float:
        return LEFT + (right - LEFT) * math.log(x / x0) / math.log(x1 / x0)

    def at_y(y: float) -> float:
        return bottom - (bottom - TOP) * math.log(y / y0) / math.log(y1 / y0)

    def text(x: float, y: float, words: str, anchor: str = "middle", more: str = f'fill="{FAINT}"') -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(words)}</text>'

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
           f'font-family="Helvetica, Arial, sans-serif" font-size="13" role="img" aria-label="{escape(title)}">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
           text(LEFT, 26, title, "start", f'fill="{INK}" font-size="16" font-weight="bold"')]
    for x in ticks(x0, x1):
        out.append(f'<line x1="{at_x(x):.1f}" y1="{TOP}" x2="{at_x(x):.1f}" y2="{bottom}" stroke="{GRID}"/>')
        out.append(text(at_x(x), bottom + 20, label(x)))
    for y in ticks(y0, y1):
        out.append(f'<line x1="{LEFT}" y1="{at_y(y):.1f}" x2="{right}" y2="{at_y(y):.1f}" stroke="{GRID}"/>')
        out.append(text(LEFT - 8, at_y(y) + 4.5, label(y), "end"))
    out.append(f'<path d="M{LEFT} {TOP} V{bottom} H{right}" fill="none" stroke="{INK}"/>')
    out.append(text((LEFT + right) / 2, HEIGHT - 16, x_name, more=f'fill="{INK}"'))
    out.append(text(0, 0, y_name, more=f'fill="{INK}" transform="translate(22 {(TOP + bottom) / 2:.0f}) rotate(-90)"'))
    for number, line in enumerate(lines):
        colour, dash = COLOURS[line.colour % len(COLOURS)], ' stroke-dasharray="6 4"' if line.dashed else ""
        path = " L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in sorted(line.points))
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        fill = "#ffffff" if line.dashed else colour
        out += [f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3.5" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>' for x, y in line.points]
        key = TOP + 10 + number * 22
        out.append(f'<line x1="{right + 16}" y1="{key}" x2="{right + 44}" y2="{key}" stroke="{colour}" stroke-width="2"{dash}/>')
        out.append(text(right + 52, key + 4.5, line.name, "start", f'fill="{INK}"'))
    return "\n".join([*out, "</svg>", ""])
