"""Sharing through the Hugging Face hub: SAEs, results and samples of a store, pushed when asked for, and pulled."""
