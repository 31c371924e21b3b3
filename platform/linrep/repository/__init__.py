"""Repositories of the Hugging Face hub: addresses, what they hold, and files fetched through the hub's cache and verified."""
