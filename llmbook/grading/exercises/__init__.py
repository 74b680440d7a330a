"""One module per chapter; each holds a dictionary EXERCISES."""
