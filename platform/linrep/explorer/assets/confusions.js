/* What a probe confuses: a matrix as a table with shades, or a list where the classes are many.

   LineOfSight.confusions({classes, n_classes, rows, cells, whole}, attribute) -> elements */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;

  /* Right answers on a scale of blue, wrong ones on one of orange; dark ink has a contrast of at least 4.5 to 1 on all of them. */
  function shade(share, right) {
    var from = right ? [232, 241, 250] : [255, 240, 228];
    var to = right ? [110, 180, 240] : [255, 120, 70];
    return "rgb(" + from.map(function (one, i) { return Math.round(one + (to[i] - one) * share); }).join(" ") + ")";
  }

  function matrix(probe, attribute) {
    var found = new Map();
    probe.cells.forEach(function (cell) { found.set(cell[0] + " " + cell[1], cell[2]); });
    var head = el(
      "tr",
      {},
      el("th", { scope: "col" }, "class of the row"),
      probe.classes.map(function (name) { return el("th", { scope: "col", class: "upright" }, L.text(name, 60)); }),
      el("th", { scope: "col", class: "n" }, "rows")
    );
    var rows = probe.classes.map(function (name, i) {
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, L.classLink(attribute, name)),
        probe.classes.map(function (other, j) {
          var n = found.get(i + " " + j) || 0;
          var share = probe.rows[i] ? n / probe.rows[i] : 0;
          if (!n) {
            return el("td", { class: "n cell" });
          }
          return el(
            "td",
            { class: "n cell", title: name + " read as " + other + ": " + n + " of " + probe.rows[i], style: { "background-color": shade(share, i === j) } },
            L.percent(share)
          );
        }),
        el("td", { class: "n" }, L.number(probe.rows[i]))
      );
    });
    return [
      el("p", {}, "Percent of each class's test rows (lines) by the class of the best score (columns). Blue: right, orange: wrong, empty: none."),
      L.scrolling(
        "Confusion matrix",
        el("table", { class: "matrix" }, el("caption", { hidden: true }, "Confusion matrix"), el("thead", {}, head), el("tbody", {}, rows))
      ),
    ];
  }

  function list(probe, attribute) {
    return L.table(
      "The most frequent confusions of " + probe.n_classes.toLocaleString("en") + " classes",
      [{ label: "class of the rows" }, { label: "read as" }, { label: "rows", n: true }, { label: "percent of the class", n: true }],
      probe.cells.map(function (cell) {
        return [
          L.classLink(attribute, probe.classes[cell[0]]),
          L.classLink(attribute, probe.classes[cell[1]]),
          cell[2] + " of " + probe.rows[cell[0]],
          L.percent(cell[2] / probe.rows[cell[0]]),
        ];
      })
    );
  }

  L.confusions = function (probe, attribute) {
    return probe.whole ? matrix(probe, attribute) : list(probe, attribute);
  };
})();
