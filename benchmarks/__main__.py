"""Run every benchmark but `benchmarks.pretrained`, which needs a fetched model; OMP_NUM_THREADS=1 steadies numbers."""

from . import large_mdp, mdp_iteration, simulators, updates

for benchmark in (updates, mdp_iteration, simulators, large_mdp):
    benchmark.main()
