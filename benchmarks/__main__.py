"""Run every benchmark; set OMP_NUM_THREADS=1 for steady numbers."""

from . import mdp_iteration, updates

updates.main()
mdp_iteration.main()
