"""What several domains measure with: distances, divergences, intervals, floors and tables."""
