"""Downstream tasks: where their items come from, how they become requests, and what scores say about them."""
