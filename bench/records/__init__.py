"""What one evaluation says: schema, columns, labels, reading, merging, and its sweep. No torch."""
