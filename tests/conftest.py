"""For every test: one thread a process, and no word to the outside."""

import os

# Before anything imports torch. The tests run in several processes (make test), and shapes are tiny.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
