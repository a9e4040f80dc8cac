"""Pages and tables of runs, comparisons and scaling studies. Needs only the standard library (Python 3.9 or later)."""
