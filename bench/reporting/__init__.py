"""The report: tables, plots, pictures and the HTML page, made from the frames of the analysis."""
