"""Names of batch fields that the data and the models agree on, beside RecBole's own."""

# Labels of a window, one at each position: int64, shape (b, L), 0 where there is none.
TARGET_LIST_FIELD = "target_item_list"
