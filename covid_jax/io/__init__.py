"""One file format each, to and from arrays and geometry."""
