"""Time over the share of zero blocks in weights, as tables and a drawing.

Usage: taskset -c 1 python benches/sparsity.py SPARSE_SPEED_BINARY
Runs the example `sparse_speed` for each instruction set that has kernels of its own and writes
sparsity.md and sparsity.svg beside this file. Needs only Python.
"""

import math
import pathlib
import re
import subprocess
import sys

FOLDER = pathlib.Path(__file__).parent
COLOURS = ["#1b6ca8", "#c8553d", "#2a7f62", "#8d6a9f"]
WIDTH, HEIGHT, LEFT, TOP = 360, 260, 46, 34


def tables(text):
    """Title, names of sizes and rows (percent, speed-ups) of each table."""
    found = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        rows = [
            (int(line[0].split()[0]), [float(cell.split("=")[1]) for cell in line[1:]])
            for line in lines[2:]
        ]
        found.append((lines[0][0].split(":")[0], lines[0][1:], rows))
    return found


def panel(index, title, names, rows):
    """One diagram: speed-up on a logarithmic scale from 1/8 to 32, by doublings."""
    x0, y0 = index % 2 * (WIDTH + 80) + LEFT, index // 2 * (HEIGHT + 70) + TOP
    def at(percent, ratio):
        level = (min(max(math.log2(ratio), -3), 5) + 3) / 8
        return x0 + percent / 95 * WIDTH, y0 + HEIGHT - level * HEIGHT

    parts = [f'<text x="{x0}" y="{y0 - 10}" font-weight="bold">{title}</text>']
    for power in range(-3, 6):
        _, y = at(0, 2.0**power)
        shade = "#444" if power == 0 else "#ddd"
        label = f"{2**power}×" if power >= 0 else f"1/{2**-power}"
        parts.append(f'<path d="M{x0} {y:.1f}h{WIDTH}" stroke="{shade}"/>')
        parts.append(f'<text x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for percent in range(0, 100, 20):
        x, _ = at(percent, 1)
        parts.append(f'<text x="{x:.1f}" y="{y0 + HEIGHT + 16}" text-anchor="middle">{percent} %</text>')
    for i, name in enumerate(names):
        points = " ".join("{:.1f},{:.1f}".format(*at(p, ratios[i])) for p, ratios in rows)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[i]}" stroke-width="2"/>')
        parts.append(f'<text x="{x0 + 8}" y="{y0 + 16 + 15 * i}" fill="{COLOURS[i]}">{name}</text>')
    return parts


def main():
    texts = [
        subprocess.run([sys.argv[1], isa], check=True, capture_output=True, text=True).stdout
        for isa in ("amx", "avx512")
    ]
    f32 = texts[0].strip().split("\n\n")[0]
    bytes_of = [text.strip().split("\n\n")[1] for text in texts]
    text = "\n\n".join([f32, *bytes_of])
    head = """# Blocks of zeros in weights

`benches/sparsity.py`: microseconds of the dense kernel / of the kernel that skips zero blocks (16 columns
by one f32 or four bytes of K) = speed-up; one core, shortest of 15 rounds that take turns; rows × K × N.
The answers are the same to the last bit. `amx` multiplies dense bytes on tiles, `avx512` on vectors; both
skip on vectors. Taken: f32, and bytes without tiles, from 45 % zeros; bytes from 70 % for up to 4 rows, and
beside tiles from 88 % for up to 64 rows, 95 % up to 256, never beyond. Others used the machine meanwhile:
single cells, the first column of f32 above all, are up to twice as long as alone.

![speed-up over the share of zero blocks](sparsity.svg)

"""
    (FOLDER / "sparsity.md").write_text(head + text + "\n")
    drawn = [part for i, table in enumerate(tables(text)) for part in panel(i, *table)]
    size = f"{2 * (WIDTH + 80)}", f"{2 * (HEIGHT + 70) + 10}"
    (FOLDER / "sparsity.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    main()
