"""The report that bench/run all makes of its parts: `markdown(parts, names)`, and `page(parts, names)`, one page of HTML that
needs nothing else.

`parts` is {name: {run, printed, result}} as bench/all writes them; `names` are all that there could be. A part without a
result has failed, and is only named.
"""

import html
import math
import re

from about import MINE
from flame_graph import svg
from side_by_side import number

TITLES = {
    "micro": "Operations alone",
    "servers": "Beside the limit servers",
    "compare": "Servers beside each other",
    "latency": "Latency",
    "clients": "Clients beside each other",
    "memory": "Memory per connection",
    "memory-tls": "Memory per connection, TLS",
    "memory-deflate": "Memory per connection, permessage-deflate",
    "many": "Many connections",
    "flame": "Where the time of an echo goes",
    "tls": "TLS",
}
LIMIT_GOAL = 0.97
LIMITED = ("decoder_bench", "close_bench", "upgrade_bench", "timer_wheel_bench", "slab_bench")


def measured(parts):
    return {name: part for name, part in parts.items() if part["result"]}


# ---- Markdown ----


def table(head, rows, align="r"):
    """`align`: of the columns from the second on."""
    align = ["---"] + ["--:" if align == "r" else "---"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in [head, align, *rows])


def shares_table(result, figures_of):
    """Levada's figures, its share of its limit, the others as shares of levada's on io_uring / epoll, and A/A."""
    rows = result["results"]
    workloads = list(dict.fromkeys(row["workload"] for row in rows))
    cells = {(row["server"], row["workload"]): row for row in rows}
    servers = list(dict.fromkeys(row["server"] for row in rows))
    line = lambda name, make: [name, *(make(cells[name, each]) if (name, each) in cells else "-" for each in workloads)]
    body = [line(name, lambda row: number(row["messages_per_cpu_s"]["median"])) for name in MINE if name in servers]
    if any(row.get("to_limit") for row in rows):
        body += [[f"{line(name, limit_cell)[0]}, of its limit", *line(name, limit_cell)[1:]] for name in MINE if name in servers]
    body += [line(name, share_cell) for name in servers if name not in MINE]
    floors = {each: [cells[name, each]["a_to_a"] for name in servers if (name, each) in cells] for each in workloads}
    body.append(["A/A, medians", *(f"{min(f['median'] for f in found):.2f}-{max(f['median'] for f in found):.2f}" for found in floors.values())])
    body.append(["A/A, blocks", *(f"{min(f['min'] for f in found):.2f}-{max(f['max'] for f in found):.2f}" for found in floors.values())])
    return table([figures_of, *workloads], body)


def limit_cell(row):
    if not row.get("to_limit"):
        return "-"
    text = f"{row['to_limit']['median']:.2f}"
    return text if row["to_limit"]["median"] >= LIMIT_GOAL else f"**{text}**"


def share_cell(row):
    """levada on io_uring / on epoll; bold where levada is not ahead of a peer."""
    texts = []
    for name in reversed(MINE):
        share = row["of"].get(name, {}).get("median")
        text = "-" if share is None else f"{share:.2f}"
        behind = share is not None and share >= 1 and not row["server"].startswith("limit_")
        texts.append(f"**{text}**" if behind else text)
    return " / ".join(texts)


def skipped_lines(result):
    return "\n".join(f"- skipped: {name}: {reason}" for name, reason in result.get("skipped", {}).items())


def micro_markdown(part):
    rows = [[f"`{name}`", f"{case['ns_per_op']:.1f}", f"{case['limit_ns']:.1f}", f"{case['ns_per_op'] / case['limit_ns']:.2f}"]
            for program in LIMITED for name, case in part["result"].get("full", {}).get(program, {}).items() if "limit_ns" in case]
    beside = table(["operation / its size", "ns", "its limit, ns", "of the limit"], rows) if rows else ""
    return "\n\n".join([*part["printed"].split("\n\n")[:2], beside])


def compare_markdown(part):
    text = ("Echoes, handshakes or deliveries per server CPU-second: levada's figures, what share of its limit server's that is (bold "
            f"below {LIMIT_GOAL}), and below them the others' as shares of levada's on io_uring / on epoll in the same rounds. Above 1, "
            "levada is behind: bold. -: not measured.")
    return "\n\n".join([text, shares_table(part["result"], "per server CPU-second"), skipped_lines(part["result"])])


def clients_markdown(part):
    text = ("Messages per CPU-second of the client, from the same limit server: levada's figures, and the others' as shares of levada's on "
            "io_uring / on epoll in the same rounds. Above 1, levada is behind: bold.")
    return "\n\n".join([text, shares_table(part["result"], "per client CPU-second"), skipped_lines(part["result"])])


def microseconds(value):
    return f"{value:.0f} µs" if value < 1000 else f"{value / 1000:.3g} ms"


QUANTILES = ("p50", "p99", "p99.9", "p99.99")


def latency_markdown(part):
    result, rows = part["result"], []
    groups = dict.fromkeys((row["beside"], row["share"]) for row in result["open_loop"])
    for beside, share in groups:
        found = {row["server"]: row for row in result["open_loop"] if (row["beside"], row["share"]) == (beside, share)}
        rate = next(iter(found.values()))["rate"]
        for name in sorted(found, key=lambda each: (each in MINE, each)):
            late = found[name]["lag_p99"] > found[name]["p99"] / 5
            rows.append([name + ("*" if late else ""), beside, f"{share:.0%}", f"{rate / 1000:.1f} k/s",
                         *(microseconds(found[name][key]) for key in QUANTILES)])
    settings = result["settings"]
    text = (f"Open loop, {settings['connections']} connections, {settings['bytes']} B, at shares of the peak of the slowest in each "
            "group of a peer and levada. *: the load itself was late, such figures tell about the load.")
    trips = [[row["server"], *(f"{row[key]:.1f} µs" for key in QUANTILES)] for row in result["round_trips"]]
    return "\n\n".join([text, table(["server", "group of", "of the peak", "rate", *QUANTILES], rows),
                        "One message on one connection, back and forth:", table(["server", *QUANTILES], trips), skipped_lines(result)])


def printed(part):
    return part["printed"].strip()


MARKDOWN = {"micro": micro_markdown, "compare": compare_markdown, "clients": clients_markdown, "latency": latency_markdown}


def machine_of(parts):
    systems = [part["result"]["system"] for part in parts.values()]
    machines = dict.fromkeys(f"{each['cpus']} x {each['cpu']}, {each['memory_gib']:.0f} GiB, Linux {each['kernel']}" for each in systems)
    dates = sorted({each["date"] for each in systems})
    return f"{' to '.join(dates[:1] + dates[1:][-1:])} on {' and '.join(machines)}"


def versions_of(parts):
    """Of every compiler and library that took part."""
    found = {}
    for part in parts.values():
        found.update({name: version for name, version in part["result"].get("versions", {}).items() if "/" not in name})
        for server in [*part["result"].get("servers", {}).values(), *part["result"].get("clients", {}).values()]:
            if isinstance(server, dict) and server["version"]:
                found[server["library"]] = server["version"]
    return ", ".join(f"{name} {version}" for name, version in found.items())


def run_lines(parts, names):
    rows = []
    for name in names:
        if name not in parts:
            rows.append([name, "", "", "", "not measured"])
            continue
        run, result = parts[name]["run"], parts[name]["result"]
        notes = [*(["quick: the figures mean nothing"] if run["quick"] else []), *([f"exit status {run['status']}"] if run["status"] else []),
                 *(["no result"] if not result else [])]
        load = f"{result['system']['load']:.1f}" if result else ""
        rows.append([name, run["began"], f"{run['took_s'] / 60:.1f} min", load, f"`{run['command']}`" + "".join(f", {note}" for note in notes)])
    return table(["part", "began", "took", "load at its end", "command"], rows, align="l")


def markdown(parts, names):
    good = measured(parts)
    body = [f"Measured {machine_of(good)}, with `bench/run all`.", f"Versions: {versions_of(good)}.", run_lines(parts, names)]
    for name in names:
        if name in good:
            body += [f"#### {TITLES[name]}", MARKDOWN.get(name, printed)(good[name])]
    return "\n\n".join(text.strip() for text in body if text.strip()) + "\n"


# ---- HTML ----


STYLE = """
:root { color-scheme: light dark; --page: #fcfcfb; --panel: #ffffff; --ink: #1d1d1b; --soft: #62625c; --line: #dedcd5;
  --mine: #2a78d6; --second: #2f9e6e; --other: #b9b6ab; }
@media (prefers-color-scheme: dark) { :root { --page: #161614; --panel: #1e1e1b; --ink: #efeee9; --soft: #a5a39a;
  --line: #3a3935; --mine: #6aa8f0; --second: #5cc796; --other: #6b685e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 20px 16px 40px; max-width: 1340px; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .5rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); overflow-wrap: anywhere; }
nav a { color: inherit; margin-right: 1em; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 16px; align-items: start; }
figure { margin: 0; padding: 12px; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
figure.wide { grid-column: 1 / -1; background: #fcfcfb; }
figcaption { font-weight: 600; margin-bottom: 6px; }
svg { display: block; width: 100%; height: auto; } .plot text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.b0 { fill: var(--mine); } .b1 { fill: var(--second); } .b2 { fill: var(--other); } .span { stroke: var(--ink); }
.curve { fill: none; stroke-width: 1.8; } .grid { stroke: var(--line); }
details { margin-top: 8px; } summary { cursor: pointer; color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: 4px 12px 4px 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
"""
CURVES = ("#2a78d6", "#2f9e6e", "#c2603a", "#8a5fc7", "#b08a1e", "#c0498b", "#4f6d7a", "#7a7a72")


def color(name):
    if name.startswith("levada"):
        return "b1" if "io_uring" in name else "b0"
    return "b2"


def figure(title, body, kind=""):
    return f"<figure{kind}><figcaption>{html.escape(title)}</figcaption>{body}</figure>"


def bars(title, values, form, logarithmic=False, spans=None):
    """A bar for each (name, value), the longest first unless it is a cost, which has a logarithmic scale."""
    values = [(name, value) for name, value in values if value > 0]
    if not values:
        return ""
    values.sort(key=lambda pair: pair[1], reverse=not logarithmic)
    top, low = max(value for _, value in values), min(value for _, value in values)
    base = 10 ** math.floor(math.log10(low)) if logarithmic else 0
    position = lambda value: 300 * (math.log10(max(value, base) / base) / max(math.log10(top / base), 1e-9) if logarithmic else value / top)
    marks = []
    for row, (name, value) in enumerate(values):
        y, length, text = 22 * row, max(position(value), 1), html.escape(form(value))
        marks.append(f'<text x="166" y="{y + 15}" text-anchor="end">{html.escape(name if len(name) < 28 else "…" + name[-26:])}</text>'
                     f'<rect class="{color(name)}" x="172" y="{y + 3}" width="{length:.1f}" height="15" rx="2">'
                     f"<title>{html.escape(name)}: {text}</title></rect>"
                     f'<text x="{178 + length:.1f}" y="{y + 15}">{text}</text>')
        if spans and name in spans:
            first, last = (172 + position(value) for value in spans[name])
            marks.append(f'<line class="span" x1="{first:.1f}" x2="{last:.1f}" y1="{y + 10.5}" y2="{y + 10.5}"/>')
    scale = ", logarithmic" if logarithmic else ""
    return figure(title + scale, f'<svg class="plot" viewBox="0 0 560 {22 * len(values) + 4}" role="img" '
                  f'aria-label="{html.escape(title)}">{"".join(marks)}</svg>')


def curves(title, series, form_x, form_y):
    """A line for each {name: [(x, y)]}, on logarithmic axes."""
    series = {name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in series.items()}
    series = {name: points for name, points in series.items() if points}
    if not series:
        return ""
    xs, ys = ([point[axis] for points in series.values() for point in points] for axis in (0, 1))
    left, right, top, bottom = 62, 430, 10, 250

    def scale(values, first, last):
        low, high = math.log10(min(values)), math.log10(max(values))
        return lambda value: first + (last - first) * (math.log10(value) - low) / max(high - low, 1e-9)

    to_x, to_y = scale(xs, left, right), scale(ys, bottom, top)
    marks = []
    for power in range(math.ceil(math.log10(min(ys))), math.floor(math.log10(max(ys))) + 1):
        y = to_y(10**power)
        marks.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text x="{left - 4}" y="{y + 4:.1f}" text-anchor="end">{html.escape(form_y(10**power))}</text>')
    last = -math.inf
    for x in sorted(set(xs)):
        if to_x(x) < last + 52:
            continue
        last = to_x(x)
        marks.append(f'<text x="{to_x(x):.1f}" y="{bottom + 16}" text-anchor="middle">{html.escape(form_x(x))}</text>')
    for index, (name, points) in enumerate(series.items()):
        stroke = CURVES[index % len(CURVES)]
        path = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in points)
        marks.append(f'<polyline class="curve" points="{path}" style="stroke:{stroke}"><title>{html.escape(name)}</title></polyline>')
        marks += [f'<circle cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="2.5" fill="{stroke}"><title>{html.escape(name)}, {form_x(x)}: '
                  f'{form_y(y)}</title></circle>' for x, y in points]
        marks.append(f'<rect x="{right + 12}" y="{top + 18 * index}" width="10" height="10" fill="{stroke}"/>'
                     f'<text x="{right + 26}" y="{top + 10 + 18 * index}">{html.escape(name)}</text>')
    return figure(f"{title}, logarithmic", f'<svg class="plot" viewBox="0 0 560 {max(275, 18 * len(series) + 8)}" role="img" aria-label="{html.escape(title)}">'
                  f'{"".join(marks)}</svg>')


def nanoseconds(value):
    return f"{value:.3g} ns" if value < 1000 else microseconds(value / 1000) if value >= 10_000 else f"{value / 1000:.3g} µs"


def size(value):
    for limit, unit in ((2**30, "Gi"), (2**20, "Mi"), (2**10, "Ki")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}B"
    return f"{value:.0f} B"


def micro_plots(part):
    result = part["result"]
    for operation in dict.fromkeys(row["operation"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["operation"] == operation]
        libraries = dict.fromkeys(name for row in rows for name in row["libraries"])
        if rows[0]["payload"] is None:
            values = {name: case["ns_per_op"] for name, case in rows[0]["libraries"].items()}
            yield bars(operation, [*values.items(), ("limit", rows[0]["limit_ns"] or 0)], nanoseconds, logarithmic=True)
            continue
        series = {name: [(row["payload"], row["libraries"][name]["ns_per_op"]) for row in rows if name in row["libraries"]] for name in libraries}
        series["memcpy"] = [(row["payload"], row["limit_ns"]) for row in rows if row["limit_ns"]]
        yield curves(f"{operation}: time over payload", series, size, nanoseconds)
    for program, cases in result.get("full", {}).items():
        yield from full_plots(program.removesuffix("_bench"), cases)


def full_plots(title, cases):
    """Curves over the last argument where there are three of it or more, in eights; bars of the rest."""
    series = {}
    for name, case in cases.items():
        if found := re.match(r"(.+)/(\d+)$", name):
            series.setdefault(found[1], []).append((int(found[2]), case["ns_per_op"]))
    drawn = {name: points for name, points in series.items() if len([x for x, _ in points if x > 0]) > 2}
    names = list(drawn)
    for at in range(0, len(names), len(CURVES)):
        yield curves(f"{title}: time over the last argument", {name: sorted(drawn[name]) for name in names[at : at + len(CURVES)]},
                     lambda value: size(value).replace("B", "").strip(), nanoseconds)
    rest = [(name, case["ns_per_op"]) for name, case in cases.items() if name.rpartition("/")[0] not in drawn]
    yield bars(title, rest, nanoseconds, logarithmic=True)


def turn_plots(part):
    rows = part["result"]["results"]
    for workload in dict.fromkeys(row["workload"] for row in rows):
        found = {row["server"]: row["messages_per_cpu_s"] for row in rows if row["workload"] == workload}
        yield bars(f"{workload}: per CPU-second", [(name, each["median"]) for name, each in found.items()], number,
                   spans={name: (each["min"], each["max"]) for name, each in found.items()})


def latency_plots(part):
    latency = part["result"]
    for key in ("p50", "p99", "p99.9"):
        yield bars(f"One message, back and forth: {key}", [(row["server"], row[key]) for row in latency["round_trips"]],
                   lambda value: f"{value:.1f} µs", logarithmic=True)
    for beside in dict.fromkeys(row["beside"] for row in latency["open_loop"]):
        found = [row for row in latency["open_loop"] if row["beside"] == beside and row["share"] == 0.7]
        if found:
            title = f"p99 at {found[0]['rate'] / 1000:.0f} k/s, 70 % of the peak of {found[0]['slowest']}"
            yield bars(title, [(row["server"], row["p99"]) for row in found], microseconds, logarithmic=True)


def memory_plots(part):
    results = part["result"]["results"]
    names = {"shaken": "after the handshake", "echoed": "after one echo each", "idle": "idle"}
    for kind, prefix in (("User memory", ""), ("Kernel slab, both ends,", "kernel_")):
        for point, name in names.items():
            values = [(server, found[prefix + point]) for server, found in results.items() if prefix + point in found]
            yield bars(f"{kind} per connection, {name}", values, size, logarithmic=not prefix)
    for point, title in (("echoed", "User memory"), ("kernel_echoed", "Kernel slab of the machine")):
        yield curves(f"{title} over connections", {name: found["points"][point] for name, found in results.items()},
                     lambda value: f"{value / 1000:.3g} k", size)


def flame_plots(part):
    result = part["result"]
    for backend, found in result["backends"].items():
        title = f"{backend}: {found['ns_per_message']:.0f} ns per message, {found['user_ns']:.0f} ns of it in user code"
        yield figure(title, svg(found["stacks"], title, found["ns_per_message"], "ns"), " class='wide'")
    for backend, found in result["backends"].items():
        yield bars(f"{backend}: user code per message", [(each["name"].replace("levada::", ""), each["ns"]) for each in found["functions"][:20]], nanoseconds)


def tls_plots(part):
    for backend, found in part["result"]["results"].items():
        series = {name: [(row["payload"], row[name][0]) for row in found["echoes"]] for name in ("ws", "wss", "cipher")}
        yield curves(f"{backend}: echoes per CPU-second over payload", series, size, number)
        names = {"ws": "ws", "full": "wss, full", "resumed": "wss, resumed"}
        yield bars(f"{backend}: connections per CPU-second", [(name, found["connections"][key][0]) for key, name in names.items()], number)


PLOTS = {"micro": micro_plots, "servers": turn_plots, "compare": turn_plots, "latency": latency_plots, "clients": turn_plots,
         "memory": memory_plots, "memory-tls": memory_plots, "memory-deflate": memory_plots, "many": memory_plots,
         "flame": flame_plots, "tls": tls_plots}


def html_text(text):
    """Markdown's tables and lines."""
    mark = lambda value: re.sub(r"`(.+?)`", r"<code>\1</code>", re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(value.strip())))
    made, rows = [], []

    def end_table():
        if rows:
            cells = ["".join(f"<{kind}>{mark(cell)}</{kind}>" for cell in row)
                     for row, kind in zip(rows, ["th"] + ["td"] * (len(rows) - 1))]
            made.append(f"<div class='scroll'><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table></div>")
            rows.clear()

    for line in text.splitlines():
        if line.startswith("|"):
            if not re.match(r"^\|[-:| ]+\|$", line):
                rows.append(line.strip().strip("|").split("|"))
            continue
        end_table()
        if line.strip():
            made.append(f"<p>{mark(line)}</p>")
    end_table()
    return "".join(made)


def page(parts, names):
    good = measured(parts)
    sections = []
    for name in names:
        if name not in good:
            continue
        part = good[name]
        tables = html_text(MARKDOWN.get(name, printed)(part)) + ("<h3>as printed</h3>" + html_text(part["printed"]) if name in MARKDOWN else "")
        sections.append(f"<h2 id='{name}'>{TITLES[name]}</h2><p class='soft'><code>{html.escape(part['run']['command'])}</code></p>"
                        f"<div class='plots'>{''.join(PLOTS[name](part))}</div><details><summary>as tables</summary>{tables}</details>")
    links = "".join(f"<a href='#{name}'>{TITLES[name]}</a>" for name in names if name in good)
    return ("<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width, "
            f"initial-scale=1'><link rel='icon' href='data:,'><title>levada measured</title><style>{STYLE}</style></head>"
            f"<body><h1>levada, measured</h1><p class='soft'>{html.escape(machine_of(good))}. {html.escape(versions_of(good))}. A bar is a "
            f"median, the line in it the lowest and highest block.</p><nav>{links}</nav>{''.join(sections)}<h2>What was run</h2>"
            f"{html_text(run_lines(parts, names))}</body></html>\n")
