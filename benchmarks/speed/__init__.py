"""How fast the network trains and predicts, next to other libraries."""
