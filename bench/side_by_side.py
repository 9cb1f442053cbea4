"""Servers measured side by side: what bench/servers and bench/peers/compare share.

The servers run on CPU 0, the client on CPU 1. In a block every server is started anew, and they take turns of a few
hundredths of a second, A B C C B A in every round; only one has work at a time, the others sleep. The client reads the
server's CPU clock (user and system time of all its threads, in nanoseconds) around each turn.

A ratio is taken within a round, then its median over the rounds of a block, then over the blocks, so that a machine
whose speed changes from second to second favours nobody. Shown are the median, minimum and maximum over the blocks.
A/A is the same server's turns in the first half of each round against those in the second half: what a ratio of 1
looks like here.
"""

import contextlib
import itertools
import json
import os
import re
import select
import shlex
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from verified_echo import Failure

SERVER_CPU, CLIENT_CPU = 0, 1


@dataclass(frozen=True)
class Workload:
    name: str
    connections: int
    size: int = 0  # payload bytes
    depth: int = 1  # messages in flight per connection
    client: str = "limit_client"
    needs: str = ""  # what a server must do besides echoing


WORKLOADS = [
    Workload("200x16B", 200, 16),
    Workload("200x512B", 200, 512),
    Workload("200x4KiB", 200, 4 << 10),
    Workload("200x64KiB", 200, 64 << 10),
    Workload("200x16x16B", 200, 16, depth=16),
    Workload("20x1MiB", 20, 1 << 20),
]


class Server:
    """A running server process, pinned, with the port that it announced."""

    def __init__(self, name, command):
        self.name = name
        args = shlex.split(command.replace("{port}", "0"))
        try:
            self.process = subprocess.Popen(
                args,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CPU}),
            )
        except OSError as error:
            raise Failure(f"{name}: {args[0]}: {error.strerror}") from error
        try:
            self.port = self._announced_port()
        except BaseException:
            self.stop()
            raise

    def _announced_port(self):
        output, deadline = b"", time.monotonic() + 10
        while time.monotonic() < deadline:
            if select.select([self.process.stdout], [], [], 0.1)[0]:
                chunk = os.read(self.process.stdout.fileno(), 4096)
                if not chunk:
                    break
                output += chunk
            found = re.search(rb"listening ws://[^\s/]*:(\d+)\s", output)
            if found:
                return int(found[1])
        raise Failure(f"{self.name}: did not say where it listens: {output.decode(errors='replace').strip()!r}")

    def stop(self):
        """Ends the server and returns what it printed since it listens."""
        self.process.terminate()
        try:
            output, _ = self.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, _ = self.process.communicate()
        return output.decode(errors="replace").strip()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        output = self.stop()
        status = self.process.returncode
        if kind is None and status not in (0, -signal.SIGTERM):
            raise Failure(f"{self.name}: ended with status {status}: {output}")


# ---- measuring ----


def run_block(options, workload, order):
    """Per server its rounds, each a pair of turns [messages, server CPU seconds, seconds]; and the client's load."""
    slice_s = max(options.slice, 20e-6 * workload.connections)  # so that every connection has more than one message
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(Server(name, options.commands[name])) for name in order]
        client = [
            os.path.join(options.build, "bench", workload.client),
            *itertools.chain(*(("--target", f"{server.port}:{server.process.pid}") for server in running)),
            *("--connections", workload.connections, "--bytes", workload.size, "--depth", workload.depth),
            *("--rounds", max(options.rounds, round(options.seconds / (2 * slice_s))), "--slice", slice_s),
            *("--warmup", options.warmup, "--cpu", CLIENT_CPU),
        ]
        done = subprocess.run([str(word) for word in client], capture_output=True, text=True)
        if done.returncode != 0:
            why = done.stderr.strip() or f"the client ended with status {done.returncode}"
            raise Failure(f"{workload.name} with {' '.join(order)}: {why}")
    result = json.loads(done.stdout)
    targets = dict(zip(order, result["targets"]))
    for name, rounds in targets.items():
        if any(turn[0] <= 0 or turn[1] <= 0 for pair in rounds for turn in pair):
            raise Failure(f"{workload.name} with {name}: a turn without messages, or without CPU time of the server")
    return targets, result["client_load"]


def measure(options, workload):
    """The blocks; each starts with another server."""
    names, blocks = list(options.commands), []
    for index in range(options.blocks):
        print(f"\r{workload.name} block {index + 1}/{options.blocks} ", end="", file=sys.stderr)
        shift = index % len(names)
        blocks.append(run_block(options, workload, names[shift:] + names[:shift]))
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    return blocks


def rate(turns):
    return sum(turn[0] for turn in turns) / sum(turn[1] for turn in turns)


def ratio_in_block(mine, other):
    return statistics.median(rate(a) / rate(b) for a, b in zip(mine, other))


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def floor_line(rows):
    """A/A of one workload: what ratios of 1 look like in it."""
    floors = [row["a_to_a"] for row in rows]
    low, high = min(floor["min"] for floor in floors), max(floor["max"] for floor in floors)
    low_median, high_median = min(floor["median"] for floor in floors), max(floor["median"] for floor in floors)
    rounds = len(rows[0]["blocks"][0])
    return (f"A/A of {rows[0]['workload']}: medians {low_median:.3f} to {high_median:.3f}, blocks {low:.3f} to {high:.3f}, "
            f"{rounds} rounds a block")


def limit_of(name, servers):
    """The limit server that `name` is held against: its own backend's."""
    for backend in ("io_uring", "epoll"):
        if name.endswith(backend) and f"limit_{backend}" in servers and name != f"limit_{backend}":
            return f"limit_{backend}"
    return None


def summarize(blocks, servers, workload):
    first = next(iter(servers))
    rows = []
    for name in servers:
        mine = [rounds[name] for rounds, _ in blocks]
        turns = [turn for rounds in mine for pair in rounds for turn in pair]
        limit = limit_of(name, servers)
        ratios = lambda other: spread([ratio_in_block(rounds[name], rounds[other]) for rounds, _ in blocks])
        halves = [statistics.median(rate([a]) / rate([b]) for a, b in rounds) for rounds in mine]
        rows.append(
            {
                "workload": workload.name,
                "server": name,
                "messages_per_cpu_s": spread([statistics.median(rate(pair) for pair in rounds) for rounds in mine]),
                "messages_per_s": sum(turn[0] for turn in turns) / sum(turn[2] for turn in turns),
                "server_load": sum(turn[1] for turn in turns) / sum(turn[2] for turn in turns),
                "client_load": statistics.median(load for _, load in blocks),
                "first": first,
                "to_first": ratios(first),
                "limit": limit,
                "to_limit": ratios(limit) if limit else None,
                "a_to_a": spread(halves),
                "blocks": mine,
            }
        )
    return rows


# ---- reporting ----


def number(value):
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def interval(value, form):
    return f"{form(value['median'])} ({form(value['min'])}-{form(value['max'])})"


def table_head(first):
    head = ["workload", "server", "messages per CPU-s", f"to {first}", "to its limit", "A/A", "load s/c"]
    return "| " + " | ".join(head) + " |\n|---|---|--:|--:|--:|--:|--:|"


def table_rows(rows):
    ratio = lambda value: f"{value:.3f}"
    for row in rows:
        cells = [
            row["workload"],
            row["server"],
            interval(row["messages_per_cpu_s"], number),
            interval(row["to_first"], ratio),
            interval(row["to_limit"], ratio) if row["to_limit"] else "",
            interval(row["a_to_a"], ratio),
            f"{row['server_load']:.2f}/{row['client_load']:.2f}",
        ]
        yield "| " + " | ".join(cells) + " |"


def default_servers(build):
    echo = os.path.join(build, "tools", "levada-echo")
    commands = {f"limit_{name}": os.path.join(build, "bench", f"limit_{name}") for name in ("epoll", "io_uring")}
    servers = {name: f"{shlex.quote(path)} --port {{port}}" for name, path in commands.items() if os.path.exists(path)}
    if os.path.exists(echo):
        for backend in ("epoll", "io_uring"):
            servers[f"levada_{backend}"] = (
                f"{shlex.quote(echo)} --host 127.0.0.1 --port {{port}} --threads 1 --backend {backend} --quiet"
            )
    return servers
