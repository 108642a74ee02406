"""Tables of text, and how they are written as Markdown and LaTeX and printed in the terminal."""
