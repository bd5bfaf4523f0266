"""Rebuild `tintype/conditioning/clip_merges.txt.gz` from the byte-pair merges published with CLIP.

    pip download --no-deps open_clip_torch && unzip open_clip_torch-*.whl open_clip/bpe_simple_vocab_16e6.txt.gz
    python tools/make_clip_vocabulary.py open_clip/bpe_simple_vocab_16e6.txt.gz

The published file holds 262,144 merges; CLIP uses the first 48,894 of them:
256 bytes + 256 word-final bytes + 48,894 merges + start and end of text = 49,408 entries.
"""

import gzip
import sys
from pathlib import Path

MERGES = 49_408 - 2 - 2 * 256
TARGET = Path(__file__).parent.parent / "tintype" / "conditioning" / "clip_merges.txt.gz"


def main() -> None:
    lines = gzip.decompress(Path(sys.argv[1]).read_bytes()).decode("utf-8").split("\n")
    merges = "\n".join(lines[1 : MERGES + 1])
    TARGET.write_bytes(gzip.compress(merges.encode("utf-8"), mtime=0))
    print(f"{MERGES} merges, {TARGET.stat().st_size / 1024:.0f} KiB -> {TARGET.name}")


if __name__ == "__main__":
    main()
