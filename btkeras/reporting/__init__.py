"""Reports: what runs say as a document, and that document as HTML, Markdown, LaTeX or JSON."""
