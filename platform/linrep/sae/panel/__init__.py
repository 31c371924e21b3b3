"""Does an SAE beat its controls? Measures that separate a trained SAE from random ones, with intervals over images and seeds.

All of it is arithmetic on rows, attribute values and SAEs. `python -m bench.sae_panel` reads a harvest and runs the model.
"""
