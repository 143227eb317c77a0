"""Names of fields in a batch that data and models share, besides RecBole's own."""

# Labels of a window, one per position: int64, shape (b, L), 0 for no label.
TARGET_LIST_FIELD = "target_item_list"

# With train_mask_history, items that the user had before those of the row: int64, shape (b, E), 0 behind the last one.
EARLIER_LIST_FIELD = "earlier_item_list"

# For models that read time: seconds of each item of a history, relative to its newest one (so at most 0 in time order);
# float64, shape (b, L), 0 at padding. See recbole_posattn.data.relative_times.
TIME_LIST_FIELD = "relative_time_list"

# The times of the file in a data set whose model reads time, neither rounded nor scaled; float64, shape (N,). In no
# batch.
EXACT_TIME_FIELD = "exact_time"
