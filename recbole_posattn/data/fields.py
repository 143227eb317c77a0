"""Names of fields in a batch that data and models share, besides RecBole's own."""

# Labels of a window, one per position: int64, shape (b, L), 0 for no label.
TARGET_LIST_FIELD = "target_item_list"

# With train_mask_history, items that the user had before those of the row: int64, shape (b, E), 0 behind the last one.
EARLIER_LIST_FIELD = "earlier_item_list"
