"""The version of the package, and that of the method by which results come about."""

__version__ = "0.1.0"

# Raised whenever the same settings, data and seed give other results than before, because a fault of the method was
# mended, say: finished runs of an older one are then not taken again.
#   2: time order in 64 bits; Pop counts interactions; the user is the unit of intervals and tests
RESULTS_VERSION = 2
