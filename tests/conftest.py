"""Settings for all tests."""

import torch

torch.set_num_threads(1)  # sums round otherwise with another number of threads, and some tests compare bits
