"""Linear probes: sufficient statistics, closed forms, softmax regression, what they score, and the artefact they make."""
