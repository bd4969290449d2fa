"""Which settings of a run change none of its numbers: one place for all who leave some aside."""

NAMES = frozenset({"table_name", "row_name", "scale"})
# Where a run is written and how often, and which text its scale was made for.
KEEPING = frozenset({"tracker", "runs_dir", "fresh", "log_every", "save_every", "scale_text"})
# Known by what they came to: a fingerprint, a kind, a type, the hashes of the run started from.
CAME_TO = frozenset({"data", "device", "dtype", "init_from"})

NO_NUMBER = NAMES | KEEPING | CAME_TO
