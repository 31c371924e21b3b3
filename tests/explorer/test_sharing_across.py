"""Words and maps of sharing across layers say where the best text layers lie."""

import numpy as np
import polars as pl
import pyarrow as pa

from linrep.explorer.sharing_across import across_figure, across_headline, across_lines, best_words
from linrep.store.tables import table_of
from schemas.sharing import SHARING_ACROSS

ROWS = ((0.02, 0.03, 0.01), (0.2, 0.4, 0.5), (0.5, 0.3, 0.1))
"""By image layer: nothing; the next text layer, and the own one cannot be separated; the first one."""
BEST = ((True, True, True), (False, True, True), (True, False, False))


def table(pooling: str = "mean", model: str = "trained") -> pa.Table:
    cells = [
        {
            "model": model, "metric": "direction_cosine", "pooling": pooling, "attribute": "class", "image_layer": i,
            "text_layer": j, "value": value, "low": value - 0.05, "high": value + 0.05, "null": 0.0, "null_low": -0.05,
            "null_high": 0.05, "best": BEST[i][j], "n": 100, "note": None, "parents": "0",
        }
        for i, row in enumerate(ROWS)
        for j, value in enumerate(row)
    ]  # fmt: skip
    return table_of(cells, SHARING_ACROSS)


def test_words_name_the_best_text_layers_and_where_they_lie():
    said = best_words(pl.DataFrame(pl.from_arrow(table())))
    assert said == (
        "0 none above its null; 1 2 [1-2]; 2 0 [0]. The own layer is among the best at 1 of 2 image layers, earlier ones at 1."
    )


def test_lines_are_of_each_choice_of_tokens_and_model():
    lines = across_lines(pa.concat_tables([table(), table("last"), table(model="untrained")]))
    assert len(lines) == 4
    assert lines[2].startswith("  class directions, the last token under one question: 0 none")
    assert lines[3].startswith("  untrained model: class directions, means of all tokens: ")
    assert across_lines(table().slice(0, 0)) == []
    assert across_headline(pa.concat_tables([table(), table(model="untrained")])) == [
        "Across layers, class directions of means of all tokens agree best at text layer 2 for 1, 0 for 2. "
        "The own layer is among the best at 1 of 2 image layers, earlier ones at 1."
    ]
    assert across_headline(table(model="untrained")) == []


def test_maps_mark_the_diagonal_the_null_and_the_best():
    figure = across_figure(pa.concat_tables([table(), table("last")]))
    assert figure is not None
    one, other = (axes for axes in figure.axes if axes.images)
    assert one.get_title().replace("\n", " ") == "class directions, means of all tokens; null 0.00"
    assert other.get_title().replace("\n", " ").startswith("class directions, the last token")
    (image,) = one.images
    assert image.get_clim() == (-0.5, 0.5)
    diagonal, dots = one.lines
    assert (np.asarray(diagonal.get_xdata()) == np.asarray(diagonal.get_ydata())).all()
    # Image layers upwards; those whose best value is not above its null have no dot.
    assert sorted(map(tuple, np.asarray(dots.get_xydata()).tolist())) == [(0, 2), (1, 1), (2, 1)]
    assert across_figure(table().slice(0, 0)) is None
