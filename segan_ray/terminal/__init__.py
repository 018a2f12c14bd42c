"""Output of commands on a terminal: text, tables, and a sweep while it runs."""
