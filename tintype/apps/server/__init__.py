"""HTTP: our own jobs, the interfaces that other programs' clients speak, and the page. Loads no torch."""
