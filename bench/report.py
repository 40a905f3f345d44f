#!/usr/bin/env python3
"""Results of bench/run.sh: one file of all samples, a page with figures and plots, comparisons.

  bench/report.py write FOLDER PART...   FOLDER/result.json, result.md and *.svg from what
                                         the benchmarks wrote, with this machine's description
  bench/report.py page FOLDER            result.md and *.svg anew from FOLDER/result.json
  bench/report.py compare OLD NEW        how the figures of two result.json differ
"""
import json
import math
import os
import platform
import random
import signal
import subprocess
import sys

sys.dont_write_bytecode = True  # nothing beside the sources
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import plots  # noqa: E402

FORMAT = 1

# What a ratio (ours / what it is held against, the median of the rounds) has to be: in some
# layouts, or in all. Figures that are not named here are reported without a limit.
LOWER, HIGHER = "at most", "at least"
LIMITS = {
    "remote-read": (LOWER, {"two-cores-spinning": 1.35, None: 1.25}),
    "rate-8-threads": (HIGHER, {None: 0.75}),
    "first-touch": (HIGHER, {None: 0.5}),
    "remote-stream": (HIGHER, {None: 0.6}),
    "local": (HIGHER, {None: 1 / 1.05}),
    # Their partner is 1.5 times the floor and KVM's own exit.
    "vcpu-empty": (LOWER, {None: 1.0}),
    "vcpu-pio": (LOWER, {None: 1.0}),
    "vcpu-mmio": (LOWER, {None: 1.0}),
    "gateway-rate": (HIGHER, {None: 1.0}),
    "gateway-latency": (LOWER, {None: 1.3}),
    "guest-local": (HIGHER, {None: 1 / 1.05}),
    "guest-boot": (LOWER, {None: 1.1}),
    "guest-compute": (LOWER, {None: 0.6}),
    "guest-swap": (HIGHER, {None: 1.0}),
}
# Units of which less is better; with the others, rates, more is.
TIMES = {"us", "s"}
# What is counted and not compared: at most so much.
COUNT_LIMITS = {
    ("gateway", "idle_percent_of_a_core"): 0.2,
    ("capacity", "directory_bytes_per_tracked_page"): 64,
    ("capacity", "directory_bytes_per_whole_unit"): 64,
    ("capacity", "bytes_per_untouched_unit"): 0,
    ("capacity", "start_mib"): 64,
    ("local", "faults"): 0,
    ("guest-local", "faults"): 0,
}
RESAMPLES = 4000
MIN_ROUNDS = 3  # with fewer there is nothing to resample


class Bad(Exception):
    """What is wrong with an input, as one line."""


def median(values):
    v = sorted(values)
    middle = len(v) // 2
    return v[middle] if len(v) % 2 else (v[middle - 1] + v[middle]) / 2


# ---- reading ----------------------------------------------------------------


def load(path):
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except OSError as e:
        raise Bad(f"{path}: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise Bad(f"{path}: not JSON: {e}") from None


def text(path, where, obj, key):
    value = obj.get(key) if isinstance(obj, dict) else None
    if not isinstance(value, str) or not value:
        raise Bad(f"{path}: {where}: no text '{key}'")
    return value


def is_number(x):
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)


def numbers(path, where, obj, key):
    value = obj.get(key)
    if not isinstance(value, list) or not value or not all(is_number(x) and x > 0 for x in value):
        raise Bad(f"{path}: {where}: '{key}' is not a list of numbers above 0")
    return value


def check_series(path, where, s):
    name = text(path, where, s, "name")
    for key in ("unit", "against"):
        text(path, name, s, key)
    if len(numbers(path, name, s, "ours")) != len(numbers(path, name, s, "base")):
        raise Bad(f"{path}: {name}: 'ours' and 'base' have not the same number of rounds")


def check_part(path, part):
    """A part is what one benchmark wrote about one layout."""
    if not isinstance(part, dict):
        raise Bad(f"{path}: not the result of a benchmark")
    program = text(path, "result", part, "program")
    if not isinstance(part.get("series", []), list):
        raise Bad(f"{path}: {program}: 'series' is not a list")
    if part.get("series") or part.get("counts"):
        text(path, program, part, "layout")
    for s in part.get("series", []):
        check_series(path, program, s)
    counts = part.get("counts", {})
    if not isinstance(counts, dict) or not all(is_number(v) for v in counts.values()):
        raise Bad(f"{path}: {program}: 'counts' are not numbers")


def read_result(path):
    result = load(path)
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise Bad(f"{path}: not a result of bench/report.py in format {FORMAT}")
    if not isinstance(result.get("machine"), dict) or not isinstance(result.get("parts"), list):
        raise Bad(f"{path}: 'machine' or 'parts' is missing")
    for part in result["parts"]:
        check_part(path, part)
    return result


# ---- figures ----------------------------------------------------------------


def series_of(result):
    """{(figure, layout): series}, in the order of the file."""
    return {(s["name"], p["layout"]): s for p in result["parts"] for s in p.get("series", [])}


def counts_of(result):
    """{(benchmark, name, layout): value}"""
    found = {}
    for p in result["parts"]:
        for name, value in p.get("counts", {}).items():
            found[(p["program"].replace("wvmbench ", ""), name, p["layout"])] = value
    return found


def ratios(series):
    return [a / b for a, b in zip(series["ours"], series["base"])]


def limit_of(figure, layout):
    """(LOWER or HIGHER, limit) or None."""
    if figure not in LIMITS:
        return None
    kind, by_layout = LIMITS[figure]
    return kind, by_layout.get(layout, by_layout[None])


def is_met(kind, value, limit):
    return value <= limit if kind == LOWER else value >= limit


def lower_is_better(figure, series):
    limit = LIMITS.get(figure)
    return limit[0] == LOWER if limit else series["unit"] in TIMES


# ---- the page ---------------------------------------------------------------


def first_line(path, key):
    try:
        with open(path, encoding="utf-8") as f:
            for line in f:
                if line.startswith(key):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "unknown"


def whole_file(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read().strip()
    except OSError:
        return "unknown"


def commit():
    here = os.path.dirname(os.path.realpath(__file__))
    try:
        run = [["git", "-C", here, "rev-parse", "HEAD"], ["git", "-C", here, "status", "--porcelain", "-uno"]]
        out = [subprocess.run(c, capture_output=True, text=True, check=True).stdout.strip() for c in run]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return out[0] + (" with changes" if out[1] else "")


def machine():
    huge = "/sys/kernel/mm/transparent_hugepage/"
    return {
        "cpu": first_line("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "ram_kib": int(first_line("/proc/meminfo", "MemTotal").split()[0]),
        "hypervisor": "hypervisor" in first_line("/proc/cpuinfo", "flags").split(),
        "huge_pages": whole_file(huge + "enabled"),
        "huge_pages_shmem": whole_file(huge + "shmem_enabled"),
        "commit": commit(),
        "load_average": os.getloadavg()[0],
    }


def number(x):
    return f"{x:.3f}" if abs(x) < 10 else f"{x:.1f}" if abs(x) < 1000 else f"{x:.0f}"


def table_of_figures(result):
    lines = [
        "| figure | layout | rounds | WaveVM | against | ratio | spread | limit | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, layout), s in series_of(result).items():
        r, limit = ratios(s), limit_of(name, layout)
        value = median(r)
        lines.append(
            f"| {name} | {layout} | {len(r)} | {number(median(s['ours']))} {s['unit']} "
            f"| {s['against']}: {number(median(s['base']))} {s['unit']} | **{value:.3f}** "
            f"| {min(r):.3f} to {max(r):.3f} "
            + (f"| {limit[0]} {limit[1]:.3g} | {'met' if is_met(limit[0], value, limit[1]) else '**not met**'} |"
               if limit else "| | |"))
    return lines


def table_of_counts(result):
    lines = ["| counted | layout | value | limit | |", "|---|---|---|---|---|"]
    for (bench, name, layout), value in counts_of(result).items():
        limit = COUNT_LIMITS.get((bench, name))
        judged = "| | |" if limit is None else (
            f"| at most {limit} | {'met' if value <= limit else '**not met**'} |")
        lines.append(f"| {bench}: {name} | {layout} | {value:.6g} {judged}")
    return lines


def explained(result):
    """The bars that `wvmbench fault --explain` drew, by layout; bench/run.sh puts them beside the page."""
    layouts = [p["layout"] for p in result["parts"] if p["program"] == "wvmbench fault --explain"]
    lines = ["", "## Where the time of a fault goes", ""] if layouts else []
    for layout in layouts:
        lines += [f"![parts of a fault, {layout}](explain-{layout}.svg)", ""]
    return lines


def page(result):
    m = result["machine"]
    ram = m.get("ram_kib")
    head = [
        "# Benchmarks", "",
        f"{m.get('cpu')}, {m.get('cores')} cores, {round(ram / 1048576) if is_number(ram) else '?'} GiB RAM, "
        f"Linux {m.get('kernel')}; commit {m.get('commit')}.", "",
        "A ratio is WaveVM's figure over that of what it is held against, round by round, the two",
        "in turn; the median of the rounds counts. Spread: the smallest and the largest round.", "",
    ]
    return "\n".join(
        head + table_of_figures(result)
        + ["", f"![ratios that have to be small]({plots.SMALL})", "",
           f"![ratios that have to be large]({plots.LARGE})"]
        + explained(result) + ["", "## Counted", ""]
        + table_of_counts(result)) + "\n"


def rows_for(result, wanted):
    rows = []
    for (name, layout), s in series_of(result).items():
        limit = limit_of(name, layout)
        if limit and limit[0] == wanted:
            r = ratios(s)
            rows.append(plots.Row(f"{name}, {layout}", median(r), min(r), max(r), limit[1],
                                  is_met(wanted, median(r), limit[1])))
    return rows


def put(folder, name, content):
    path = os.path.join(folder, name)
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path + ".new", "w", encoding="utf-8") as f:
            f.write(content)
        os.replace(path + ".new", path)
    except OSError as e:
        raise Bad(f"{path}: {e.strerror}") from None
    print(f"written: {path}")


def put_page(folder, result):
    put(folder, plots.SMALL, plots.bars("Ratio to the partner: at most the mark", rows_for(result, LOWER)))
    put(folder, plots.LARGE, plots.bars("Ratio to the partner: at least the mark", rows_for(result, HIGHER)))
    put(folder, "result.md", page(result))


def write(folder, paths):
    parts = []
    for path in paths:
        parts.append(load(path))
        check_part(path, parts[-1])
    result = {"format": FORMAT, "machine": machine(), "parts": parts}
    put(folder, "result.json", json.dumps(result, indent=1) + "\n")
    put_page(folder, result)


# ---- comparing --------------------------------------------------------------


def interval(old, new):
    """The 95 % bootstrap interval of median(new) / median(old): percentiles, fixed seed."""
    rng = random.Random(1)
    seen = sorted(
        median(rng.choices(new, k=len(new))) / median(rng.choices(old, k=len(old)))
        for _ in range(RESAMPLES))
    return seen[int(RESAMPLES * 0.025)], seen[int(RESAMPLES * 0.975) - 1]


def verdict(low, high, lower_better):
    if low <= 1 <= high:
        return "no difference shown"
    return "faster" if (high < 1) == lower_better else "slower"


def compare_series(key, old, new):
    name, layout = key
    a, b = ratios(old), ratios(new)
    line = f"{name:<22} {layout:<20} {median(a):8.3f} -> {median(b):8.3f}  x {median(b) / median(a):6.3f}"
    if min(len(a), len(b)) < MIN_ROUNDS:
        return f"{line}  fewer than {MIN_ROUNDS} rounds: no difference shown"
    low, high = interval(a, b)
    return f"{line}  [{low:.3f}, {high:.3f}]  {verdict(low, high, lower_is_better(name, new))}"


def compare(old_path, new_path):
    old, new = read_result(old_path), read_result(new_path)
    for key in ("cpu", "cores", "kernel"):
        if old["machine"].get(key) != new["machine"].get(key):
            print(f"note: another machine: {key} {old['machine'].get(key)} and {new['machine'].get(key)}")
    a, b = series_of(old), series_of(new)
    both = [k for k in a if k in b]
    counts_a, counts_b = counts_of(old), counts_of(new)
    if not both and not set(counts_a) & set(counts_b):
        raise Bad(f"{old_path} and {new_path} have no figure in common")
    print("ratio to the partner, old -> new, new / old, its 95 % interval by bootstrap over the rounds")
    for key in both:
        print(compare_series(key, a[key], b[key]))
    for key in [k for k in a if k not in b] + [k for k in b if k not in a]:
        print(f"{key[0]:<22} {key[1]:<20} only in {old_path if key in a else new_path}")
    for key, value in counts_a.items():
        if key in counts_b and key[:2] in COUNT_LIMITS:
            word = "same" if value == counts_b[key] else "less" if counts_b[key] < value else "more"
            print(f"{key[0] + ' ' + key[1]:<43} {value:.6g} -> {counts_b[key]:.6g}  {word}")


def main(argv):
    try:
        if len(argv) >= 3 and argv[0] == "write":
            write(argv[1], argv[2:])
        elif len(argv) == 2 and argv[0] == "page":
            put_page(argv[1], read_result(os.path.join(argv[1], "result.json")))
        elif len(argv) == 3 and argv[0] == "compare":
            compare(argv[1], argv[2])
        else:
            print(__doc__.strip(), file=sys.stderr)
            return 2
    except Bad as e:
        print(f"report.py: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    sys.exit(main(sys.argv[1:]))
