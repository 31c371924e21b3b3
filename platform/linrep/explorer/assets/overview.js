/* The overview: the paper's claims, each with what was found, its one figure and the ways into the evidence. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;
  var FIRST = { probe: [/^layers_class/, /^layers_/], steer: [/^layers_success/, /^layers_turned/, /^layers_p_target/, /^dose_/], sae: [/^front/, /^layers_fvu/], sharing: [/^sharing_geometry/, /^sharing_/] };

  function figureOf(artefact) {
    var figure = artefact.figures[0];
    (FIRST[artefact.stage] || []).slice().reverse().forEach(function (wanted) {
      figure = artefact.figures.find(function (one) { return wanted.test(one.name); }) || figure;
    });
    return figure
      ? el("figure", {}, el("img", { class: "plot", src: figure.file, alt: artefact.headline.join(" ") || figure.name, loading: "lazy" }))
      : null;
  }

  function claim(site, one) {
    var own = [];
    one.stages.forEach(function (stage) {
      L.results(site, stage).forEach(function (artefact) {
        own.push(artefact);
      });
    });
    // Of several recipes the one that the site is called after speaks first: the others are its controls, or older.
    own.sort(function (a, b) { return (b.name === site.title + "-" + b.digest) - (a.name === site.title + "-" + a.digest); });
    own.sort(function (a, b) { return one.stages.indexOf(a.stage) - one.stages.indexOf(b.stage); });
    var first = own.find(function (artefact) {
      return artefact.headline.length;
    });
    return el(
      "section",
      { class: "card" },
      el("h2", {}, one.title),
      first
        ? [
            el("p", { class: "headline" }, L.text(first.headline.join(" "), 2000)),
            figureOf(first),
            own
              .filter(function (artefact) {
                return artefact !== first && artefact.headline.length;
              })
              .map(function (artefact) {
                return el("p", {}, el("strong", {}, artefact.stage + ": "), L.text(artefact.headline.join(" "), 2000));
              }),
          ]
        : el("p", { class: "quiet" }, "Not measured in this workspace."),
      el("p", { class: "quiet" }, "What this does not show: " + one.limits),
      el(
        "p",
        {},
        own
          .filter(function (artefact) {
            return artefact.page;
          })
          .map(function (artefact) {
            return [el("a", { href: L.href(artefact.page, { of: artefact.key }) }, artefact.stage + ": the evidence"), " · "];
          }),
        own.map(function (artefact) {
          return [el("a", { href: L.href("provenance", { of: artefact.key }) }, "where " + artefact.stage + " comes from"), " "];
        })
      )
    );
  }

  function find() {
    var input = el("input", { type: "search", id: "find", placeholder: "boat", autocomplete: "off" });
    var form = el("form", { class: "controls", role: "search" }, el("label", {}, "Find latents by explanation, label or word", input), el("button", { type: "submit" }, "Search"));
    form.addEventListener("submit", function (event) {
      event.preventDefault();
      location.hash = L.href("search", { q: input.value });
    });
    return form;
  }

  L.page("overview", {
    title: "Overview",
    show: function (container, query, site) {
      var harvests = L.results(site, "harvest");
      L.append(container, [
        el("h1", {}, "How images stand in the residual stream, and what they share with text"),
        harvests.map(function (one) {
          return el("p", {}, L.text(one.name), ": ", L.text(one.headline.join(" "), 2000));
        }),
        site.saes.length ? find() : null,
        el(
          "div",
          { class: "cards" },
          site.claims.map(function (one) {
            return claim(site, one);
          })
        ),
        site.damaged.length
          ? el("section", {}, el("h2", {}, "Left out"), el("ul", {}, site.damaged.map(function (line) { return el("li", {}, L.text(line)); })))
          : null,
        site.without.length
          ? el("p", { class: "quiet" }, "Without pictures and texts, because the corpora are not where they were: ", L.text(site.without.join(", ")))
          : null,
      ]);
    },
  });
})();
