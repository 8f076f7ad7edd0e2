"""Peak memory of reading a large file: `understudy stats` and `understudy check` on half of it and on all of it.

    python benchmarks/memory.py ROWS --format FORMAT --model TOKENIZER --num-rows N

Each command runs in a process of its own; the figure is the operating system's peak resident set of that process. With
streaming, the whole file needs no more than its half.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows")
    parser.add_argument("--format", default="auto")
    parser.add_argument("--model", required=True)
    parser.add_argument("--num-rows", type=int, required=True, help="episodes in the file")
    args = parser.parse_args()
    print(f"{'command':10} {'episodes':>10} {'peak MiB':>10} {'seconds':>10} {'status':>7}")
    for command, options in (("stats", []), ("check", ["--model", args.model])):
        for num_rows in (args.num_rows // 2, args.num_rows):
            line = [command, args.rows, "--format", args.format, "--limit", str(num_rows), *options, "--json"]
            mebibytes, seconds, status = measure([sys.executable, "-m", "understudy", *line])
            print(f"{command:10} {num_rows:10,} {mebibytes:10,.0f} {seconds:10,.1f} {status:7}", flush=True)


def measure(command: list[str]) -> tuple[float, float, int]:
    """Run a command; return its peak resident set in MiB, its wall seconds and its exit status."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    kibibytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return kibibytes / 1024, time.perf_counter() - started, os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
