"""Tables of programs that call torch: what a recording keeps, and what ends it."""
