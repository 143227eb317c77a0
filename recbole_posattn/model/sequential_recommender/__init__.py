"""The models, in the place where RecBole keeps its own."""
