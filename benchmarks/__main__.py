"""Run every benchmark but `benchmarks.pretrained`, which needs a fetched model; OMP_NUM_THREADS=1 steadies numbers."""

from . import mdp_iteration, updates

updates.main()
mdp_iteration.main()
