/* What several pages show: pictures with heat maps, texts with shaded tokens, choices, facts, and the figures of a result. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;

  /* Give the pictures of a shard their layouts, which it holds once each; gives the pictures. */
  L.pictures = function (shard) {
    shard.pictures.forEach(function (picture) {
      if (typeof picture.layout === "number") {
        picture.layout = shard.layouts[picture.layout];
      }
    });
    return shard.pictures;
  };

  /* A picture with the patches that fire over it.

     picture: {file, name, label, width, height, layout: {base: {x, y}, crops: {x, y}}}, edges in shares of the image.
     patches: [[is a crop, row, column, activation]]; view: "both", "base" or "crops"; most: the activation that is drawn full. */
  L.heatmap = function (picture, patches, most, view) {
    var rects = [];
    patches.forEach(function (patch) {
      var grid = patch[0] ? picture.layout.crops : picture.layout.base;
      var x = grid.x[patch[2]];
      var y = grid.y[patch[1]];
      if (!x || !y || x[1] <= x[0] || y[1] <= y[0] || (view === "base" && patch[0]) || (view === "crops" && !patch[0])) {
        return;
      }
      var strength = most > 0 ? Math.min(1, patch[3] / most) : 0;
      rects.push(
        el(
          "rect",
          { class: "patch", x: x[0], y: y[0], width: x[1] - x[0], height: y[1] - y[0], "fill-opacity": (0.06 + 0.54 * strength).toFixed(3) },
          el("title", {}, (patch[0] ? "crop" : "whole image") + ", row " + patch[1] + ", column " + patch[2] + ": " + L.number(patch[3]))
        )
      );
    });
    var small = Math.max(picture.width, picture.height) <= 160;
    return el(
      "span",
      { class: "picture", style: { "aspect-ratio": picture.width + " / " + picture.height } },
      picture.file
        ? el("img", { src: picture.file, alt: picture.label || picture.name, loading: "lazy", width: picture.width, height: picture.height, class: small ? "small" : null })
        : el("span", { class: "quiet" }, "no picture"),
      el("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" }, rects)
    );
  };

  /* A text whose tokens are shaded by their activations. */
  L.tokens = function (pieces, values, most) {
    return el(
      "p",
      { class: "tokens" },
      el(
        "bdi",
        {},
        pieces.map(function (piece, i) {
          var strength = most > 0 ? Math.min(1, values[i] / most) : 0;
          return el(
            "span",
            {
              class: "token",
              "data-on": strength > 0 ? "1" : null,
              title: strength > 0 ? L.number(values[i]) : null,
              style: strength > 0 ? { "background-color": "rgb(255 " + Math.round(226 - 116 * strength) + " " + Math.round(190 - 120 * strength) + ")" } : null,
            },
            piece
          );
        })
      )
    );
  };

  /* A choice that stands in the address: a labelled select, or nothing where there is only one. */
  L.choice = function (label, key, options, value) {
    if (options.length < 2) {
      return null;
    }
    var select = el(
      "select",
      {},
      options.map(function (option) {
        return el("option", { value: option.value, selected: String(option.value) === String(value) }, option.label);
      })
    );
    select.addEventListener("change", function () {
      var here = L.where();
      var changes = {};
      changes[key] = select.value;
      location.hash = L.href(here.name, Object.assign({}, here.query, changes));
    });
    return el("label", {}, label, select);
  };

  /* Which SAE an address means: {key, features, layer, sae, ...}; the first one with explanations that is no control where it says none. */
  L.saeOf = function (site, query) {
    var named = site.saes.find(function (one) {
      return one.key === query.sae;
    });
    return (
      named ||
      site.saes.find(function (one) {
        return one.explained && !one.control;
      }) ||
      site.saes.find(function (one) {
        return !one.control;
      }) ||
      site.saes[0] ||
      null
    );
  };

  L.saeName = function (one) {
    return one.sae + ", layer " + one.layer + (one.control ? " (random directions)" : "");
  };

  L.saeChoice = function (site, sae) {
    return L.choice(
      "SAE",
      "sae",
      site.saes.map(function (one) {
        return { value: one.key, label: L.saeName(one) + " · " + one.features };
      }),
      sae.key
    );
  };

  /* Names and values, side by side: [[name, value or element]]. */
  L.facts = function (rows) {
    return el(
      "dl",
      { class: "facts" },
      rows
        .filter(function (row) {
          return row[1] !== null && row[1] !== undefined && row[1] !== "";
        })
        .map(function (row) {
          return [el("dt", {}, row[0]), el("dd", {}, row[1])];
        })
    );
  };

  /* A small table: heads [{label, n}], rows of texts or elements. */
  L.table = function (caption, heads, rows) {
    return L.scrolling(
      typeof caption === "string" && caption ? caption : "table",
      el(
        "table",
        {},
        caption ? el("caption", {}, caption) : null,
        el("thead", {}, el("tr", {}, heads.map(function (head) { return el("th", { scope: "col", class: head.n ? "n" : null }, head.label); }))),
        el("tbody", {}, rows.map(function (row) {
          return el("tr", {}, row.map(function (cell, i) { return el("td", { class: heads[i].n ? "n" : null }, cell); }));
        }))
      )
    );
  };

  /* The results of a stage, newest last: those whose key is named in the address first. */
  L.results = function (site, stage) {
    return site.artefacts.filter(function (one) {
      return one.stage === stage;
    });
  };

  L.resultOf = function (site, stage, query, key) {
    var all = L.results(site, stage);
    return (
      all.find(function (one) {
        return one.key === query[key || "of"];
      }) || all[0] || null
    );
  };

  /* The figures that a stage's job drew, with their names. */
  L.figures = function (artefact, wanted) {
    var own = artefact.figures.filter(function (figure) {
      return !wanted || wanted(figure.name);
    });
    return own.map(function (figure) {
      var label = figure.name.replace(/_/g, " ");
      return el("figure", {}, el("img", { class: "plot", src: figure.file, alt: label, loading: "lazy" }), el("figcaption", {}, label));
    });
  };

  /* Where numbers come from: one line under a page, and the whole of it one click away. */
  L.provenance = function (artefact) {
    return el(
      "p",
      { class: "quiet" },
      "From ",
      el("a", { href: L.href("provenance", { of: artefact.key }) }, el("bdi", {}, artefact.key)),
      ", digest " + artefact.digest + ", made " + (artefact.finished || artefact.created || "").slice(0, 16).replace("T", " ") + " UTC."
    );
  };

  L.absent = function (container, title, what) {
    L.append(container, [el("h1", {}, title), el("p", {}, what)]);
  };
})();
