"""SAEs of image-text pairs: three designs at an equal budget, and what each shows of what the modalities share.

A pair is two rows of one width. The designs: one SAE of both modalities' rows (mixed), an SAE for each modality whose latents are
matched after training, and a crosscoder with shared and private latents. Each is read as two SAEs whose latents are aligned by
number, one for the rows of each modality, so that all measures are the same for all. `python -m bench.sae_sharing` compares them.
"""
