"""The model side: loading, token maps, batches, and hooks that record and edit the residual stream."""
