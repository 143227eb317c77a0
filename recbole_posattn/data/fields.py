"""Names of fields in a batch that data and models share, besides RecBole's own."""

# Labels of a window, one per position: int64, shape (b, L), 0 for no label.
TARGET_LIST_FIELD = "target_item_list"
