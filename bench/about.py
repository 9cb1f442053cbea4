"""What a result was measured on and with; and programs of this folder as modules."""

import os
import platform
import re
import shutil
import subprocess
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

BENCH = Path(__file__).resolve().parent
MINE = ("levada_epoll", "levada_io_uring")


def load_program(path):
    """A program whose name has no .py, as a module."""
    name = Path(path).name
    loader = SourceFileLoader(name, str(BENCH / path))
    module = module_from_spec(spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def output_of(*command, cwd=None):
    """The first line that a command prints; empty where there is no such command."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False, cwd=cwd)
    return done.stdout.partition("\n")[0].strip()


def system():
    found = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": found[1] if found else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gib": round(int(memory[1]) / 2**20, 1),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
    }


def versions(build):
    """Of compilers and of levada; a peer's library version is in the peers' manifest."""
    found = {
        "g++": output_of("g++", "-dumpfullversion"),
        "go": output_of("go", "env", "GOVERSION").removeprefix("go"),
        "rustc": output_of("rustc", "--version").removeprefix("rustc ").partition(" ")[0],
        "node": output_of("node", "--version"),
        "levada": output_of("git", "describe", "--always", "--dirty", cwd=BENCH),
    }
    gate = load_program("gate")
    try:
        found["build"] = gate.build_kind(Path(build))
    except (gate.Unmeasured, OSError, ValueError, StopIteration):
        pass
    return {name: version for name, version in found.items() if version}
