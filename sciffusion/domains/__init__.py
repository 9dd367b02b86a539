"""Images, proteins and molecules: one folder each."""
