"""Files of others: texts and tokenizers, pickled weights, and the checkpoint folders that imports write."""
