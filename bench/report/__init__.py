"""From frames to what people look at: tables, plots, images, the page."""
