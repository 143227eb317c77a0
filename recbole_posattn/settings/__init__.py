"""What a key may be, and where its default comes from."""
