"""Tables as rows and columns of text, and how they are drawn for Markdown, LaTeX and the terminal."""
