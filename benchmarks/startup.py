"""What it costs to be there: import, ``--help``, and the size of a core install.

Run: ``python benchmarks/startup.py [--install]``. CPU seconds (user + system) of whole processes, medians;
``--install`` also builds a fresh environment with the core dependencies and weighs it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

COMMANDS = {
    "bare python": ["-c", "pass"],
    "import kernloom": ["-c", "import kernloom"],
    "from kernloom import Kernel, AssistantAgent": ["-c", "from kernloom import Kernel, AssistantAgent"],
    "kernloom --help": ["-m", "kernloom", "--help"],
}


def cpu_seconds(arguments: list[str]) -> float:
    """User and system time of one child process."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT.parent)
    after = os.times()
    return (after.children_user - before.children_user) + (after.children_system - before.children_system)


def weigh_core() -> tuple[int, float]:
    """Distributions and megabytes that ``pip install kernloom`` adds to an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python"
        pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
        freeze = [*pip, "list", "--format=freeze"]
        site = subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        before_size = _megabytes(Path(site))
        before = len(subprocess.run(freeze, check=True, capture_output=True, text=True).stdout.splitlines())
        # From a copy: building leaves folders behind.
        source = Path(folder) / "source"
        kept_out = shutil.ignore_patterns(".*", "node_modules", "build", "tests", "examples")
        shutil.copytree(ROOT, source, ignore=kept_out)
        constraints = str(ROOT / "constraints.txt")
        subprocess.run(
            [*pip, "install", "--quiet", "--no-compile", "-c", constraints, str(source)], check=True
        )
        after = len(subprocess.run(freeze, check=True, capture_output=True, text=True).stdout.splitlines())
        return after - before, _megabytes(Path(site)) - before_size


def _megabytes(folder: Path) -> float:
    return sum(f.stat().st_blocks * 512 for f in folder.rglob("*") if f.is_file()) / 1e6


def main() -> int:
    """Print a line per figure; 1 when one is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="also weigh a core install")
    parser.add_argument("-n", type=int, default=9, help="runs of each command")
    options = parser.parse_args()
    medians: dict[str, float] = {}
    for name, arguments in COMMANDS.items():
        cpu_seconds(arguments)
        medians[name] = statistics.median(cpu_seconds(arguments) for _ in range(options.n))
    bare = medians.pop("bare python")
    rows = [
        (f"{name}, over bare python", seconds - bare, 0.05, "s")
        if name == "import kernloom"
        else (name, seconds, 0.30, "s")
        for name, seconds in medians.items()
    ]
    if options.install:
        distributions, size = weigh_core()
        rows += [("core install, distributions", distributions, 32, ""), ("core install, MB", size, 80, "")]
    print(f"bare python {bare:.3f} s CPU")
    for name, figure, limit, unit in rows:
        print(f"{'ok  ' if figure <= limit else 'OVER'} {name}: {figure:.3g} {unit} (limit {limit:g})")
    return any(figure > limit for _, figure, limit, _ in rows)


if __name__ == "__main__":
    sys.exit(main())
