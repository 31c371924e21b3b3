"""Features for other people's tools: Neuronpedia's bulk import and delphi's latent cache."""
