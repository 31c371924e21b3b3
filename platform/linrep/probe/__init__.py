"""Linear probes: sufficient statistics, closed forms, softmax regression, and what they score."""
