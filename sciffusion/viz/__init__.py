"""Pictures: grids of images, training curves, and the report that is one HTML file."""
