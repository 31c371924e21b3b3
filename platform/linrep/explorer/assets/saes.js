/* SAEs: the trade of sparsity against loss, quality over layers, how often latents fire, how training went, what is found of labels. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;

  function byKey(rows, key) {
    var found = new Map();
    rows.forEach(function (row) {
      var name = key(row);
      if (!found.has(name)) {
        found.set(name, []);
      }
      found.get(name).push(row);
    });
    return found;
  }

  /* ---- the front ---- */

  /* L0, FVU and the control's FVU of each SAE that was trained, on rows of a modality. */
  function trained(quality, modality) {
    var found = new Map();
    for (var i = 0; i < quality.n; i++) {
      var measure = quality.value(i, "measure");
      if (quality.value(i, "modality") === modality && (measure === "fvu" || measure === "l0")) {
        var sae = quality.value(i, "sae");
        var one = found.get(sae) || { name: sae };
        one[measure] = quality.value(i, "value");
        if (measure === "fvu") {
          one.control = quality.value(i, "control");
        }
        found.set(sae, one);
      }
    }
    return Array.from(found.values()).filter(function (one) { return one.fvu !== null && one.fvu !== undefined && one.l0 > 0; });
  }

  function points(label, rows, x, y, more) {
    var sorted = rows.slice().sort(function (a, b) { return a[x] - b[x]; });
    var take = function (name) { return sorted.map(function (row) { return row[name]; }); };
    return Object.assign({ label: label, x: take(x), y: take(y) }, more);
  }

  function front(modality, quality, tunes) {
    var series = [];
    var said = [];
    tunes.forEach(function (tune) {
      var rows = tune.front.filter(function (row) { return row.modality === modality; });
      byKey(rows, function (row) { return row.architecture + ", " + row.width; }).forEach(function (own) {
        // A curve over L0: of several learning rates or mixtures the best by the half that is not reported.
        var best = Array.from(byKey(own, function (row) { return row.sparsity; }).values()).map(function (same) {
          return same.reduce(function (a, b) { return b.fvu_choice < a.fvu_choice ? b : a; });
        });
        best.sort(function (a, b) { return a.l0 - b.l0; });
        var whole = best.every(function (row) { return row.fvu_low !== null; });
        var take = function (name) { return best.map(function (row) { return row[name]; }); };
        series.push(points("search: " + own[0].architecture + ", " + own[0].width, best, "l0", "fvu", whole ? { low: take("fvu_low"), high: take("fvu_high") } : {}));
      });
      var line = rows.filter(function (row) { return row.on_front; });
      series.push(points("front", line, "l0", "fvu", { control: true }));
      series.push(points("random directions", line.filter(function (row) { return row.control !== null; }), "l0", "control", { control: true }));
      rows.filter(function (row) { return row.recommended; }).forEach(function (row) {
        series.push({ label: "recommended", x: [row.l0], y: [row.fvu], colour: 7 });
        said.push("The search recommends " + row.candidate + ": FVU " + L.interval(row.fvu, row.fvu_low, row.fvu_high, 3) + " at L0 " + L.number(row.l0) + ", random directions " + L.number(row.control, 3) + ".");
      });
    });
    var own = quality ? trained(quality, modality) : [];
    if (own.length) {
      series.push(points("trained in full", own, "l0", "fvu", { colour: 6 }));
      series.push(points("random, as trained", own.filter(function (one) { return one.control !== null; }), "l0", "control", { control: true }));
    }
    if (!series.some(function (one) { return one.y.length; })) {
      return null;
    }
    return el(
      "div",
      {},
      L.chart({ title: "FVU against L0 on held-out rows of " + (modality === "mean" ? "both, mean" : modality) + ": lower and further to the left is better", xLabel: "L0", yLabel: "FVU", xLog: true, series: series }),
      said.map(function (line) { return el("p", {}, L.text(line)); })
    );
  }

  /* ---- over layers ---- */

  function overLayers(evaluation, measure, title, range, yLog) {
    return ["image", "text", "both"].map(function (modality) {
      var rows = evaluation.curves.filter(function (one) { return one.measure === measure && one.modality === modality; });
      if (!rows.length || (modality === "both" && measure === "fvu")) {
        return null;
      }
      var series = [];
      rows.forEach(function (one, i) {
        series.push({ label: one.sae, x: one.x, y: one.y, low: one.low, high: one.high, colour: i });
        series.push({ label: "random: " + one.sae, x: one.x, y: one.control, control: true });
      });
      return L.chart({ title: title + ", " + modality, xLabel: "layer", yLabel: L.spoken(measure), yRange: range, yLog: yLog, series: series });
    });
  }

  /* ---- one layer ---- */

  function firing(rows, sae, modality) {
    var own = rows.filter(function (row) { return row.sae === sae && row.modality === modality; });
    if (!own.length) {
      return null;
    }
    var series = [{ label: sae, values: own.map(function (row) { return row.latents; }) }];
    if (own.some(function (row) { return row.control !== null; })) {
      series.push({ label: "random directions", values: own.map(function (row) { return row.control; }), control: true });
    }
    return L.bars({
      title: "How often latents fire on " + modality + " rows: latents by log10 of their firing rate, a quarter of a decade a bar; the first bar never fires",
      xLabel: "log10 of the firing rate, from", yLabel: "latents",
      groups: own.map(function (row) { return row.low === null ? "never" : String(row.low); }),
      series: series,
    });
  }

  function history(rows, measure) {
    return L.chart({
      title: "Training: " + L.spoken(measure) + " over steps",
      xLabel: "steps", yLabel: L.spoken(measure),
      series: rows.filter(function (one) { return one.measure === measure; }).map(function (one) { return { label: one.sae, x: one.x, y: one.y }; }),
    });
  }

  function rebuilt(rows, sae) {
    var series = [];
    byKey(rows.filter(function (row) { return row.sae === sae; }), function (row) { return row.vectors; }).forEach(function (own, kind) {
      var take = function (name) { return own.map(function (row) { return row[name]; }); };
      series.push({ label: kind === "class" ? "class vectors" : kind + " vectors", x: take("n_latents"), y: take("cosine"), low: take("low"), high: take("high") });
      series.push({ label: kind + ", random SAE", x: take("n_latents"), y: take("control"), control: true });
    });
    return series.length
      ? L.chart({ title: "How few latents rebuild a direction: mean cosine over vectors, bands are quartiles", xLabel: "latents", yLabel: "cosine", yRange: [0, 1.02], xLog: true, series: series })
      : null;
  }

  function grid(container, label, table, spec, sort) {
    var made = L.grid(container, {
      label: label,
      n: table.n,
      sort: sort,
      descending: false,
      columns: spec.map(function (column) {
        return column.text
          ? { name: column.name, label: column.label, title: column.title, width: column.width, text: function (row) { return table.value(row, column.name); } }
          : { name: column.name, label: column.label, title: column.title, width: column.width, number: table.number(column.name), show: column.show };
      }),
    });
    container.addEventListener("placed", made.draw);
  }

  function truth(container, table, latents) {
    var shares = ["f1", "control", "auroc", "auroc_control", "probe_1", "probe_1_control", "probe_2", "probe_2_control", "probe_5", "probe_5_control"];
    grid(container, "Labels that latents separate", table, [
      { name: "attribute", label: "attribute", text: true, width: "7rem" },
      { name: "class_name", label: "value", text: true, width: "8rem" },
      {
        name: "latent", label: "latent", width: "5rem", title: "The latent that separates it best, chosen on one half of the samples",
        show: function (row) {
          var latent = table.number("latent")[row];
          return latents ? el("a", { href: L.href("latent", { sae: latents, latent: latent }) }, String(latent)) : String(latent);
        },
      },
    ].concat(
      shares.map(function (name) { return { name: name, label: L.spoken(name).replace("control", "random"), width: "6.5rem", title: L.spoken(name) + ", on the half of the samples that nothing was chosen on" }; }),
      [{ name: "threshold", label: "threshold", width: "6rem" }, { name: "n_test", label: "n", width: "5rem", title: "Samples of the value that it is scored on" }]
    ), "class_name");
  }

  function quality(container, table) {
    grid(container, "Quality on held-out rows", table, [
      { name: "sae", label: "SAE", text: true, width: "11rem" },
      { name: "modality", label: "modality", text: true, width: "6rem" },
      { name: "measure", label: "measure", text: true, width: "13rem" },
      { name: "value", label: "value", width: "7rem" },
      { name: "low", label: "low", width: "7rem", title: "Of losses and shares recovered: lower end of the 95% interval; of latents needed: lower quartile" },
      { name: "high", label: "high", width: "7rem", title: "Its upper end" },
      { name: "control", label: "random SAE", width: "7rem", title: "The same of random directions" },
      { name: "layer", label: "layer", width: "5rem" },
    ], "measure");
  }

  /* ---- the page ---- */

  function absent(error) {
    return /is missing/.test(error.message) ? null : Promise.reject(error);
  }

  function pick(label, key, values, value, name) {
    return L.choice(label, key, values.map(function (one) { return { value: one, label: name ? name(one) : one }; }), value);
  }

  function among(values, wanted, otherwise) {
    var found = values.find(function (one) { return String(one) === String(wanted); });
    return found === undefined ? otherwise : found;
  }

  L.page("saes", {
    title: "SAEs",
    show: function (container, query, site) {
      var keys = new Set(L.results(site, "sae").map(function (one) { return one.key; }));
      var results = L.results(site, "sae").concat(L.results(site, "evaluate").filter(function (one) {
        return !Array.from(keys).some(function (key) { return one.key.startsWith(key + "/"); });
      }));
      var searches = L.results(site, "tune");
      var named = searches.find(function (one) { return one.key === query.of; });
      var artefact = named
        ? results.find(function (one) { return one.parents.harvest === named.parents.harvest; })
        : L.ownResult(site, results, query.of);
      var harvest = (artefact || named || L.ownResult(site, searches) || { parents: {} }).parents.harvest;
      var own = searches.filter(function (one) { return one.parents.harvest === harvest; });
      if (!artefact && !own.length) {
        L.absent(container, "SAEs", "No SAE was trained or evaluated in this workspace. jobs/train_sae.py does that, jobs/tune_sae.py searches.");
        return null;
      }
      return Promise.all([artefact ? L.load(artefact.key) : null].concat(own.map(function (one) { return L.load(one.key); }))).then(function (heads) {
        var about = heads[0];
        var evaluation = about ? about.evaluations.find(function (one) { return one.name === query.evaluation; }) || about.evaluations[0] || null : null;
        var layers = about ? about.layers : [];
        heads.slice(1).forEach(function (head) { layers = layers.concat(head.layers); });
        layers = Array.from(new Set(layers)).sort(function (a, b) { return a - b; });
        var searched = heads[1] && heads[1].layers.length ? heads[1].layers[0] : undefined;
        var layer = among(layers, query.layer, named || searched !== undefined ? searched : layers[Math.floor(layers.length / 2)]);
        var saes = evaluation ? evaluation.names : about ? about.names : [];
        var sae = among(saes, query.sae, saes[0]);
        var modality = among(["image", "text", "both"], query.modality, "image");
        var at = Promise.all([
          evaluation && evaluation.layers.indexOf(layer) >= 0 ? L.load(evaluation.key + "/layer-" + layer) : null,
          evaluation && evaluation.truth && evaluation.layers.indexOf(layer) >= 0 ? L.load(evaluation.key + "/layer-" + layer + "-truth-" + saes.indexOf(sae)) : null,
          about && about.trained && about.layers.indexOf(layer) >= 0 ? L.load(artefact.key + "/training-" + layer).catch(absent) : null,
        ].concat(own.map(function (one, i) { return heads[i + 1].layers.indexOf(layer) >= 0 ? L.load(one.key + "/layer-" + layer) : null; })));
        return at.then(function (all) {
          var here = all[0];
          var tunes = all.slice(3).filter(Boolean);
          var table = here ? L.columns(here.quality) : null;
          var latents = about ? about.latents[layer + "/" + sae] : null;
          var measures = all[2] ? Array.from(new Set(all[2].map(function (one) { return one.measure; }))) : [];
          var measure = among(measures, query.training, among(measures, "fvu/image", measures[0]));
          var fronts = ["image", "text", "mean"].map(function (one) { return front(one, table, tunes); });
          L.append(container, [
            el("h1", {}, "SAEs"),
            (evaluation && evaluation.headline.length ? [evaluation] : artefact ? [artefact] : []).concat(own).map(function (one) { return one.headline.length ? el("p", { class: "headline" }, L.text(one.headline.join(" "), 2000)) : null; }),
            el(
              "div",
              { class: "controls" },
              L.choice("Result", "of", results.map(function (one) { return { value: one.key, label: one.key }; }), artefact ? artefact.key : ""),
              about ? L.choice("Evaluation", "evaluation", about.evaluations.map(function (one) { return { value: one.name, label: one.name }; }), evaluation ? evaluation.name : "") : null,
              pick("Layer", "layer", layers, layer, function (one) { return "layer " + one; }),
              pick("SAE", "sae", saes, sae),
              here ? pick("Rows", "modality", ["image", "text", "both"], modality) : null
            ),
            sae ? el(
              "p",
              {},
              latents ? el("a", { href: L.href("latents", { sae: latents }) }, "Latents of " + sae + ", layer " + layer) : el("span", { class: "quiet" }, "Nobody looked into the latents of this one: jobs/features.py does that."),
              " ",
              artefact ? el("a", { href: L.href("compare", { what: "sae", left: [artefact.key, "layer-" + String(layer).padStart(3, "0"), sae].join("/") }) }, "Compare it with another SAE") : null
            ) : null,
            about && !evaluation ? el("p", { class: "quiet" }, "These SAEs are not evaluated yet: run jobs/train_sae.py again.") : null,
            el("h2", {}, "Sparsity against loss, layer " + layer),
            tunes.map(function (tune) {
              return el("p", { class: "quiet" }, "Candidates of the search at this layer: " + Object.keys(tune.counts).map(function (name) { return tune.counts[name] + " " + name; }).join(", ") + ".");
            }),
            el("div", { class: "pair" }, fronts),
            fronts.every(function (one) { return !one; }) ? el("p", { class: "quiet" }, "Nothing was measured at this layer.") : null,
            evaluation
              ? [
                  el("h2", {}, "Over layers"),
                  el("p", { class: "quiet" }, "On held-out rows; grey and dashed: random directions. FVU has no interval here: the search gives one. KL is that from the untouched model to the one with the SAE in the place of its stream, in nats a token."),
                  el("div", { class: "pair" }, overLayers(evaluation, "fvu", "Fraction of variance unexplained", null), overLayers(evaluation, "kl_spliced", "KL with the SAE in the place of the stream, nats a token, 95% intervals", null, true), overLayers(evaluation, "alive", "Share of latents that fire", [0, 1.02]), overLayers(evaluation, "moved", "Cosine of decoder rows with their random start, quartiles of the latents; 1: never moved", [-0.05, 1.02]), overLayers(evaluation, "latents_of_energy_0.9", "Latents that write 90% of the energy", null)),
                ]
              : null,
            here ? [el("h2", {}, "How often latents fire"), firing(here.firing, sae, modality)] : null,
            measures.length ? [el("h2", {}, "Training"), el("div", { class: "controls" }, pick("Measure", "training", measures, measure, L.spoken)), history(all[2], measure)] : null,
            here && here.rebuilt.length ? [el("h2", {}, "Directions rebuilt"), rebuilt(here.rebuilt, sae)] : null,
          ]);
          if (all[1] && all[1].n) {
            L.append(container, [el("h2", {}, "Labels that latents separate: " + sae)]);
            truth(container, L.columns(all[1]), latents);
          }
          if (table) {
            L.append(container, [el("h2", {}, "Every number of layer " + layer)]);
            quality(container, table);
          }
          L.append(container, [(artefact ? [artefact] : []).concat(own).map(L.provenance)]);
        });
      });
    },
  });
})();
