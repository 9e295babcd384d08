"""First measurements on a GPU; never run yet."""
