"""Settings for all tests."""

import torch
from hypothesis import settings

torch.set_num_threads(1)  # sums round otherwise with another number of threads, and some tests compare bits
settings.register_profile("any machine", deadline=None)  # how busy the machine is says nothing of the code
settings.load_profile("any machine")
