/* Where everything comes from: every result with its digests, recipe, notes, command and summary. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;

  function whole(one) {
    return el(
      "section",
      {},
      el("h2", {}, L.text(one.key)),
      one.headline.length ? el("p", { class: "headline" }, L.text(one.headline.join(" "), 4000)) : null,
      L.facts([
        ["stage", one.stage],
        ["digest", one.digest],
        ["made from", Object.keys(one.parents).map(function (key) { return [key + " " + one.parents[key], el("br", {})]; })],
        ["begun", one.created],
        ["finished", one.finished],
        ["counts", one.counts ? Object.keys(one.counts).map(function (key) { return key + " " + L.number(one.counts[key]) + " "; }) : null],
        ["notes", one.notes.length ? L.text(one.notes.join("; "), 4000) : null],
      ]),
      el("h3", {}, "The command that makes it"),
      el("pre", { tabindex: 0 }, one.command),
      el("h3", {}, "Its section of the recipe"),
      el("pre", { tabindex: 0 }, JSON.stringify(one.config, null, 2)),
      el("h3", {}, "Its summary"),
      el("pre", { tabindex: 0 }, one.summary),
      one.figures.length ? [el("h3", {}, "Its figures"), L.figures(one)] : null
    );
  }

  L.page("provenance", {
    title: "Provenance",
    show: function (container, query, site) {
      var named = site.artefacts.find(function (one) { return one.key === query.of; });
      L.append(container, [
        el("h1", {}, named ? "Where this comes from" : "Where everything comes from"),
        named ? [el("p", {}, el("a", { href: L.href("provenance") }, "all results")), whole(named)] : null,
        named
          ? null
          : L.table(
              "Every complete result of the workspace.",
              [{ label: "result" }, { label: "digest" }, { label: "finished, UTC" }, { label: "headline" }],
              site.artefacts.map(function (one) {
                return [el("a", { href: L.href("provenance", { of: one.key }) }, L.text(one.key)), one.digest, (one.finished || "").slice(0, 16).replace("T", " "), L.text(one.headline.join(" "), 300)];
              })
            ),
      ]);
    },
  });
})();
