"""`python -m benchmarks`: the CPU's; a GPU's is `python -m benchmarks.gpu`."""

from benchmarks.cpu import main

main()
