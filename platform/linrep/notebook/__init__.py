"""A workspace in a notebook: images, latents, searches and results that show themselves. `linrep.open("runs")` gives one."""
