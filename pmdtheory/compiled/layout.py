"""Names: of the laws, of the passes over actions, and of the places where numbers lie in buffers."""

BLOCK = 256  # actions; a block of all that a pass reads and writes fits the first cache
LANES = 32  # rows that are solved side by side
PART = 2**15  # actions of a row whose sums are taken together

# Where each quantity of the rows in work begins in a buffer. Distances that are known let the compiler see that they do
# not overlap.
QUANTITIES = 18
(
    V, WEIGHT, LOG, CHANGE, PSI, SLOPE, CURVE, STEP, OWN, TAU, RATE, MEAN, FIRST, SECOND, SHIFT, MOVE, MASS,
    GIVEN,
) = (LANES * i for i in range(QUANTITIES))  # fmt: skip

# λ = 0; λ = a; λ = v; λ = v + a with a = (E_p[r] − b)/τ.
KL, MIXED, PMD_MEAN, BASELINE = range(4)

# What `solve_rows` does: all, or one part of it for a row whose passes several threads share.
ALL, START, PASS, BETWEEN = range(4)

# The passes: most probable action, mean reward, targets, then steps in 32 bits and in 64 and the last change; for the
# KL update the likeliest action, exponents, and what is left to do with log Z; dividing by the mass; none.
BEST, AVERAGE, TARGETS, ROUGH, EXACT, LAST, LIKELIEST, EXPONENTS, IDEAL, SCALE, END = range(11)
