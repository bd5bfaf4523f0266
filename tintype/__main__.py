"""`python -m tintype`, and what torchrun starts: `torchrun --nproc-per-node 2 -m tintype train …`."""

import sys

from tintype.apps.cli import main

sys.exit(main())
