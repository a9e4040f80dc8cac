"""Which methods leave the best models: texts of several domains, runs over methods and seeds, tables and figures."""
