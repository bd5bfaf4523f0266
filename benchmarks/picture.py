"""Time and memory of one picture by the command line, in fresh processes.

    python benchmarks/picture.py

Expected on 2 CPU cores: generation at most 5 s, peak memory at most 1 GiB, `tintype --help` at most 0.5 s.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 5
TINTYPE = [sys.executable, "-m", "tintype.apps.cli"]


def main() -> None:
    helps, generated, whole = [], [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        subprocess.run([*TINTYPE, "--help"], check=True, capture_output=True)
        helps.append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            started = time.perf_counter()
            command = [
                *TINTYPE,
                "txt2img",
                "a red apple on a sky blue background",
                "--seed",
                "7",
                "--json",
                "-o",
                folder,
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            whole.append(time.perf_counter() - started)
            generated.append(json.loads(done.stdout)["seconds"]["generate"])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"tintype --help      {statistics.median(helps):.3f} s")
    print(f"generation          {statistics.median(generated):.3f} s")
    print(f"whole command       {statistics.median(whole):.3f} s")
    print(f"peak memory         {peak:.0f} MiB")


if __name__ == "__main__":
    main()
