/* Two SAEs side by side: what they leave unexplained, how their latents are spread, and the best latent of each for every label. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;
  var MODALITIES = ["image", "text", "both"];

  function label(one) {
    return one.name + ", layer " + one.layer;
  }

  /* The SAE in a sentence, from its numbers. */
  function sentence(one, table) {
    var by = new Map();
    for (var i = 0; i < table.n; i++) {
      by.set(table.curve(i), table.cell(i));
    }
    function said(name, words) {
      var cell = by.get(name);
      return cell && cell.value === cell.value ? words + " " + L.interval(cell.value, cell.low === cell.low ? cell.low : null, cell.high === cell.high ? cell.high : null) + (cell.control === cell.control && name !== "l0, both" ? " (random directions " + L.number(cell.control) + ")" : "") : null;
    }
    var parts = [said("fvu, image", "FVU of image rows"), said("fvu, text", "of text rows"), said("l0, both", "L0"), said("kl_spliced, both", "KL in nats a token with it in the place of the stream"), said("features: alive", "share of latents that fire")].filter(Boolean);
    return parts.length ? parts.join("; ") + "." : "Nothing is measured of it.";
  }

  function firing(names, both, modality) {
    var rows = both.map(function (one) { return one.firing.filter(function (row) { return row.modality === modality; }); });
    if (!rows[0].length || !rows[1].length) {
      return null;
    }
    var groups = Array.from(new Set(rows[0].concat(rows[1]).map(function (row) { return row.low; }))).sort(function (a, b) { return (a === null ? -99 : a) - (b === null ? -99 : b); });
    return L.bars({
      title: "How often latents fire on " + modality + " rows: share of the latents by log10 of their firing rate; the first bar never fires",
      xLabel: "log10 of the firing rate, from", yLabel: "share of latents",
      groups: groups.map(function (low) { return low === null ? "never" : String(low); }),
      series: rows.map(function (own, side) {
        var total = own.reduce(function (sum, row) { return sum + row.latents; }, 0);
        return { label: names[side], colour: side, values: groups.map(function (low) { var row = own.find(function (r) { return r.low === low; }); return row && total ? row.latents / total : 0; }) };
      }),
    });
  }

  function training(rows, names, saes, measure) {
    var series = [];
    rows.forEach(function (own, side) {
      (own || []).forEach(function (one) {
        if (one.sae === saes[side] && one.measure === measure) {
          series.push({ label: names[side], x: one.x, y: one.y, colour: side });
        }
      });
    });
    return series.length ? L.chart({ title: "Training: " + L.spoken(measure) + " over steps", xLabel: "steps", yLabel: L.spoken(measure), series: series }) : null;
  }

  function distributions(names, both) {
    var found = new Map();
    both.forEach(function (one, side) {
      one.latents.distributions.forEach(function (own) {
        found.set(own.name, (found.get(own.name) || [null, null]));
        found.get(own.name)[side] = own;
      });
    });
    return Array.from(found.keys()).map(function (name) {
      var sides = found.get(name);
      var bins = (sides[0] || sides[1]).shares.length;
      var groups = [];
      for (var i = 0; i < bins; i++) {
        groups.push(String(Number((i / bins).toFixed(3))));
      }
      return L.bars({
        title: name + ": share of the latents that fire and have one (" + sides.map(function (own, side) { return (side ? "right " : "left ") + (own ? L.number(own.n) : "none"); }).join(", ") + ")",
        xLabel: name + ", from", yLabel: "share of latents", groups: groups,
        series: sides.map(function (own, side) { return { label: names[side], colour: side, values: own ? own.shares : [] }; }),
      });
    });
  }

  function labels(container, pair, both) {
    var found = new Map();
    both.forEach(function (one, side) {
      one.latents.labels.forEach(function (own) {
        var key = [own.modality, own.attribute, own.value].join("\n");
        found.set(key, found.get(key) || { own: own, sides: [null, null] });
        found.get(key).sides[side] = own;
      });
    });
    var rows = Array.from(found.values());
    function column(side, name) {
      return Float32Array.from(rows, function (row) { var own = row.sides[side]; return own && own[name] !== null ? own[name] : NaN; });
    }
    function link(side) {
      return function (i) {
        var own = rows[i].sides[side];
        return own ? el("a", { href: L.href("latent", { sae: pair[side].latents, latent: own.latent }) }, String(own.latent)) : "–";
      };
    }
    function text(name) {
      return function (i) { return rows[i].own[name]; };
    }
    function said(side) {
      return function (i) { return (rows[i].sides[side] || {}).explanation || ""; };
    }
    var box = el("div", { class: "wide" });
    L.append(container, [box]);
    var grid = L.grid(box, {
      label: "The best latents for each label",
      n: rows.length,
      sort: "value",
      columns: [
        { name: "attribute", label: "attribute", width: "7rem", text: text("attribute") },
        { name: "value", label: "value", width: "8rem", text: text("value") },
        { name: "modality", label: "samples", width: "6rem", text: text("modality") },
        { name: "left", label: "left: latent", width: "7rem", number: column(0, "latent"), show: link(0) },
        { name: "left_f1", label: "left: F1", width: "6rem", number: column(0, "f1") },
        { name: "left_says", label: "left: explanation", width: "13rem", text: said(0) },
        { name: "right", label: "right: latent", width: "7rem", number: column(1, "latent"), show: link(1) },
        { name: "right_f1", label: "right: F1", width: "6rem", number: column(1, "f1") },
        { name: "right_says", label: "right: explanation", width: "13rem", text: said(1) },
      ],
    });
    container.addEventListener("placed", grid.draw);
  }

  L.compareSaes = function (container, index, query, tools) {
    if (!index.saes.length) {
      L.append(container, [el("p", {}, "This workspace has no SAE yet. jobs/train_sae.py trains some.")]);
      return null;
    }
    var options = index.saes.map(function (one) { return { value: one.key, label: label(one) + " · " + one.key.split("/").slice(0, 2).join("/") }; });
    var first = index.saes.findIndex(function (one) { return one.latents && !/\/random$/.test(one.name); });
    var left = index.saes.find(function (one) { return one.key === query.left; }) || index.saes[Math.max(0, first)];
    var right =
      index.saes.find(function (one) { return one.key === query.right; }) ||
      index.saes.find(function (one) { return one.layer === left.layer && one.saes === left.saes && one !== left; }) ||
      index.saes.find(function (one) { return one !== left; }) ||
      left;
    var pair = [left, right];
    var saes = pair.map(function (one) { return one.name; });
    var names = left.name === right.name ? pair.map(function (one) { return "layer " + one.layer; }) : saes;
    if (names[0] === names[1]) {
      names = ["left", "right"];
    }
    return Promise.all(
      pair
        .map(function (one) { return L.load("compare/sae-" + index.saes.indexOf(one)); })
        .concat(pair.map(function (one) { return one.training ? L.load(one.training) : null; }))
    ).then(function (all) {
      var both = all.slice(0, 2);
      var view = { what: "sae", names: pair.map(label), left: tools.read(both[0].numbers), right: tools.read(both[1].numbers), withLayer: false };
      var rows = tools.aligned(view.left, view.right, function () { return true; }, function () { return true; }, function (table, i) { return table.curve(i); });
      var measures = [];
      all.slice(2).forEach(function (own, side) {
        (own || []).forEach(function (one) {
          if (one.sae === saes[side] && measures.indexOf(one.measure) < 0) {
            measures.push(one.measure);
          }
        });
      });
      var measure = measures.indexOf(query.training) >= 0 ? query.training : measures.indexOf("fvu/image") >= 0 ? "fvu/image" : measures[0];
      var looked = both[0].latents && both[1].latents;
      L.append(container, [
        el("div", { class: "controls" }, tools.pick("Left", "left", options, left.key), tools.pick("Right", "right", options, right.key)),
        index.saes.length < 2 ? el("p", {}, "This workspace has one SAE: there is nothing to compare it with yet.") : el("p", {}, tools.swap(query, left.key, right.key)),
        el("div", { class: "pair" }, pair.map(function (one, side) {
          return el(
            "section",
            { class: "card" },
            el("h2", {}, (side ? "Right: " : "Left: "), L.text(label(one))),
            el("p", {}, sentence(one, side ? view.right : view.left)),
            el("p", {}, one.latents ? el("a", { href: L.href("latents", { sae: one.latents }) }, "its latents") : "Nobody looked into its latents.", " ", one.saes ? el("a", { href: L.href("saes", { of: one.saes, layer: one.layer, sae: one.name }) }, "its page") : null)
          );
        })),
        el("h2", {}, "Curves of both"),
        measures.length ? el("div", { class: "controls" }, tools.pick("Training measure", "training", measures.map(function (one) { return { value: one, label: L.spoken(one) }; }), measure)) : null,
        el("div", { class: "pair" }, measures.length ? training(all.slice(2), names, saes, measure) : null, MODALITIES.map(function (modality) { return firing(names, both, modality); })),
        measures.length || both[0].firing.length ? null : el("p", { class: "quiet" }, "Neither training nor firing rates of both are known."),
        el("h2", {}, "Numbers side by side"),
      ]);
      if (rows.length) {
        tools.sideBySide(container, view, rows, null);
      } else {
        L.append(container, [el("p", {}, "Nothing is measured of these.")]);
      }
      L.append(container, [el("h2", {}, "Their latents")]);
      if (!looked) {
        L.append(container, [el("p", { class: "quiet" }, "The latents of both must have been looked into (jobs/features.py) to compare them: " + pair.filter(function (one, side) { return !both[side].latents; }).map(label).join(" and ") + " was not.")]);
        return;
      }
      L.append(container, [
        el("div", { class: "pair" }, distributions(names, both)),
        el("h3", {}, "The best latent for each label"),
        el("p", { class: "quiet" }, "Of each SAE the latent with the highest F1 on one half of the samples; the F1 shown is from the other half, and has no interval."),
      ]);
      labels(container, pair, both);
    });
  };
})();
