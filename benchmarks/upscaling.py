"""Peak memory of upscaling, in fresh processes: what a tile takes, and what a picture of 4096 x 4096 takes in tiles.

    python benchmarks/upscaling.py            # the embedded upscaler
    python benchmarks/upscaling.py -m stable-diffusion-x4-upscaler --tile 128 --side 512

Beside what one tile takes, a large picture is its latent and its pixels as floats and bytes; `whole` says, where it is
asked for, what a picture takes without tiles, and what `tasks/room.py` expects.
"""

import argparse
import json
import subprocess
import sys

ONE = """
import json, resource, sys, time
import numpy as np
from PIL import Image
import tintype
from tintype.tasks.pictures import data_url
from tintype.tasks.room import needed
from tintype.tasks.task import resolve

model, side, tile, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) or None, int(sys.argv[4])
loaded = tintype.load(model)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = np.linspace(0, 255, side)
picture = np.stack(np.broadcast_arrays(rows[:, None], rows[None], 128.0), axis=-1).astype(np.uint8)
request = tintype.Request(task="upscale", image=data_url(Image.fromarray(picture)), seed=1, tile=tile, steps=steps)
started = time.perf_counter()
[made] = tintype.generate(loaded, request)
print(json.dumps({
    "picture": f"{made.width} x {made.height}",
    "tile": tile,
    "mebibytes": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
    "expected": round(needed(loaded, resolve(loaded, request)) / 2**20),
    "seconds": round(time.perf_counter() - started, 1),
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="upscaler")
    parser.add_argument("--tile", type=int, default=64, help="pixels of the small picture (default: 64)")
    parser.add_argument("--steps", type=int, default=2, help="of sampling; memory does not depend on them (default: 2)")
    parser.add_argument("--side", type=int, default=1024, help="of the large small picture (default: 1024)")
    parser.add_argument("--whole", type=int, action="append", default=[], help="also this side without tiles")
    arguments = parser.parse_args()
    tiled = [(arguments.tile, arguments.tile), (arguments.side, arguments.tile)]
    for side, tile in [*tiled, *((side, 0) for side in arguments.whole)]:
        told = [sys.executable, "-c", ONE, arguments.model, str(side), str(tile), str(arguments.steps)]
        found = json.loads(subprocess.run(told, check=True, capture_output=True, text=True).stdout)
        within = f"in tiles of {found['tile']}" if found["tile"] else "at once"
        print(
            f"{found['picture']:12} {within:16} {found['mebibytes']:6} MiB beyond the model "
            f"(expected {found['expected']}), {found['seconds']:6} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
