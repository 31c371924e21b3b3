/* What image and text share: three levels, layer by layer, beside nulls, the untrained model and random directions. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;
  var LEVELS = { geometry: "geometry: where rows lie", concept: "concept: directions of classes", latent: "latent: an SAE's code" };
  var WAYS = { high: "Sharing shows as a high value.", low: "Sharing shows as a low value.", "": "A level: high or low alone says nothing of sharing." };
  var FIRST = { geometry: "hub_centred", concept: "direction_cosine", latent: "cross_modal_weight_centred" };
  var RANDOM = "/random";
  var TOKENS = { mean: "all tokens (mean)", object: "patches of the object, its word", last: "last token under one question" };
  var TABLE = ["metric", "pooling", "attribute", "layer", "model", "sae", "value", "low", "high", "null", "null_low", "null_high", "half_one", "half_two", "n", "note", "n_high_norm_image", "high_norm_positions_image", "n_high_norm_text", "high_norm_positions_text", "parents"];

  function part(head, state) {
    return head.levels.find(function (one) {
      return one.level === state.level && (one.sae === null || one.sae === state.sae);
    });
  }

  function shown(head, own) {
    return head.measures.filter(function (one) {
      return own.metrics.includes(one.metric) && !one.metric.startsWith("modality_score_");
    });
  }

  /* Tokens and attributes of which a level has curves of a metric; those that are chosen, where it has them, else the first. */
  function choice(own, metric, name, state) {
    return own.curves
      .filter(function (one) { return one.metric === metric && (name === "pooling" || one.pooling === chosen(own, metric, "pooling", state)); })
      .map(function (one) { return one[name]; })
      .filter(function (value, i, all) { return all.indexOf(value) === i; });
  }

  function chosen(own, metric, name, state) {
    var all = choice(own, metric, name, state);
    return all.includes(state[name]) ? state[name] : all.includes(name === "pooling" ? "mean" : "class") ? (name === "pooling" ? "mean" : "class") : all[0];
  }

  function key(own, metric, state) {
    return [metric, chosen(own, metric, "pooling", state), chosen(own, metric, "attribute", state)].map(function (part) { return part || ""; }).join("|");
  }

  /* The curves of a metric: the trained model's, its control's of random directions, the untrained model's, and the null with its range. */
  function curves(table, own, metric, state, pooling) {
    var attribute = chosen(own, metric, "attribute", state);
    function rows(model, random) {
      return table.rows(function (row) {
        var sae = table.value(row, "sae");
        var which = table.value(row, "pooling") === pooling && table.value(row, "attribute") === attribute;
        return which && table.value(row, "metric") === metric && table.value(row, "model") === model && (sae !== null && sae.endsWith(RANDOM)) === random;
      });
    }
    var names = ["value", "low", "high"];
    var trained = rows("trained", false);
    var untrained = rows("untrained", false);
    var main = trained.length ? trained : untrained;
    return [
      L.curve(trained.length ? "trained" : "untrained", table, main, "layer", names, { colour: 0 }),
      trained.length ? L.curve("untrained", table, untrained, "layer", names, { colour: 1 }) : null,
      L.curve("random directions", table, rows(trained.length ? "trained" : "untrained", true), "layer", names, { colour: 4 }),
      L.curve("null", table, main, "layer", ["null", "null_low", "null_high"], { control: true }),
    ].filter(function (one) { return one !== null && one.x.length; });
  }

  function chart(table, own, measure, state) {
    var pooling = chosen(own, measure.metric, "pooling", state);
    var series = curves(table, own, measure.metric, state, pooling);
    /* The other choices of tokens stand beside it: what is shared depends on them. */
    choice(own, measure.metric, "pooling", {}).forEach(function (other, i) {
      var known = own.curves.some(function (one) { return one.metric === measure.metric && one.pooling === other && one.attribute === chosen(own, measure.metric, "attribute", state); });
      if (other !== pooling && known) {
        var beside = curves(table, own, measure.metric, state, other)[0];
        if (beside) {
          series.push(Object.assign(beside, { label: TOKENS[other] || other, colour: 2 + i }));
        }
      }
    });
    return L.chart({ title: measure.label, xLabel: "layer", yLabel: measure.label, series: series });
  }

  function reading(data, own, measure, state) {
    return [
      el("p", { class: "one-line" }, data.readings[key(own, measure.metric, state)]),
      el("p", {}, measure.meaning ? measure.meaning.charAt(0).toUpperCase() + measure.meaning.slice(1) + ". " : "", measure.meaning ? WAYS[measure.way] : ""),
    ];
  }

  function notes(table, metric) {
    var found = {};
    table.rows(function (row) { return table.value(row, "metric") === metric && table.value(row, "note"); }).forEach(function (row) {
      var note = table.value(row, "note");
      (found[note] = found[note] || []).push(table.value(row, "layer") + (table.value(row, "model") === "trained" ? "" : " (untrained)"));
    });
    var all = Object.keys(found);
    return all.length
      ? el("details", {}, el("summary", {}, "notes"), el("ul", {}, all.map(function (note) { return el("li", {}, "layer " + found[note].join(", ") + ": ", L.text(note)); })))
      : null;
  }

  function every(data, own, measures, state) {
    return [
      el("h2", {}, "All measures of this level"),
      L.scrolling(
        "All measures of this level",
        el(
          "table",
          { class: "plain wide" },
          el("caption", {}, "What each shows, from the first layer to the last"),
          el("thead", {}, el("tr", {}, ["measure", "what it shows", "what is counted"].map(function (head) { return el("th", { scope: "col" }, head); }))),
          el("tbody", {}, measures.map(function (one) {
            var link = el("a", { href: L.href("sharing", Object.assign({}, L.where().query, { level: state.level, metric: one.metric })) }, one.label);
            return el("tr", {}, el("th", { scope: "row" }, link), el("td", {}, data.readings[key(own, one.metric, state)]), el("td", {}, one.meaning));
          }))
        )
      ),
    ];
  }

  function grid(container, table, query) {
    var names = TABLE.filter(function (name) { return table.has(name); });
    L.append(container, [el("h2", {}, "All numbers of this level")]);
    L.gridOf(container, table, {
      label: "Numbers of this level",
      names: names,
      whole: ["layer", "n", "n_high_norm_image", "n_high_norm_text"],
      widths: { metric: "16rem", note: "18rem", sae: "11rem" },
      sort: names.includes(query.sort) ? query.sort : "metric",
      descending: query.descending === "1",
      changed: function (sorted) {
        query.sort = sorted.sort;
        query.descending = sorted.descending ? "1" : "";
        L.remember({ sort: query.sort, descending: query.descending });
      },
    });
  }

  /* ---- latents ---- */

  function share(spread, name, which, label, more) {
    return Object.assign(
      {
        label: label,
        x: spread.map(function (one) { return one.layer; }),
        y: spread.map(function (one) { return one[which] && one[which].alive ? one[which][name] : null; }),
      },
      more || {}
    );
  }

  function bars(title, xLabel, groups, one, name) {
    var series = [{ label: "latents", values: one.sae ? one.sae[name] : [], colour: 0 }];
    if (one.random) {
      series.push({ label: "random", values: one.random[name], control: true });
    }
    return L.bars({ title: title, xLabel: xLabel, yLabel: "share of those that fire", groups: groups, series: series });
  }

  function steps(n, from, to) {
    return Array.from({ length: n }, function (_, i) { return L.number(from + ((i + 0.5) * (to - from)) / n, 2); });
  }

  /* The SAE of the site's pages whose latents these are. */
  function studied(site, head, state, one) {
    return site.saes.find(function (own) {
      return own.sae === state.sae && own.layer === one.layer && own.harvest === head.harvests[one.model];
    });
  }

  function strongest(site, head, state, one) {
    var known = studied(site, head, state, one);
    function latent(number) {
      return number === null ? "–" : known ? el("a", { href: L.href("latent", { sae: known.key, latent: number }) }, String(number)) : String(number);
    }
    if (!one.strongest.length) {
      return el("p", { class: "quiet" }, "No latent of this layer bridges a pair: none fires on an image and on its caption.");
    }
    return [
      known ? null : el("p", { class: "quiet" }, "Its latents have no pages: jobs/features.py makes them for the SAEs that the recipe names."),
      el("h3", {}, "The strongest bridges of layer " + one.layer),
      el("p", {}, "Partner: the other latent with the largest bridge score, chosen on one half of the pairs; its score is of the other half."),
      L.wide("The strongest bridges", L.table(
        null,
        [
          { label: "latent" }, { label: "bridge score", n: true }, { label: "modality score", n: true }, { label: "fires on both of a pair", n: true },
          { label: "on other pairs (null)", n: true }, { label: "cross-modal weight, means removed", n: true }, { label: "partner" }, { label: "its score", n: true },
        ],
        one.strongest.map(function (row) {
          return [
            latent(row.latent), L.number(row.bridge, 3), L.number(row.modality_score), L.number(row.cofire, 3), L.number(row.cofire_null, 3),
            L.number(row.cross_modal_weight_centred), latent(row.bridge_partner), L.number(row.bridge_partner_score, 3),
          ];
        })
      )),
    ];
  }

  function latents(site, head, own, state, query) {
    if (!own.scores) {
      return Promise.resolve(null);
    }
    return L.load(own.scores).then(function (scores) {
      var models = Array.from(new Set(scores.spread.map(function (one) { return one.model; })));
      var body = el("div", {});
      function of(model) {
        return scores.spread.filter(function (one) { return one.model === model; });
      }
      var choices = L.choices(
        query,
        [
          {
            key: "model",
            label: "Model",
            options: function () { return models.map(function (model) { return { value: model, label: model }; }); },
            first: function () { return "trained"; },
          },
          {
            key: "layer",
            label: "Layer",
            options: function (chosen) { return of(chosen.model).map(function (one) { return { value: one.layer, label: one.layer }; }); },
            /* The deepest layer whose latents have pages, else the deepest. */
            first: function (chosen) {
              var layers = of(chosen.model).map(function (one) { return one.layer; });
              var paged = layers.filter(function (layer) { return studied(site, head, state, { model: chosen.model, layer: layer }); });
              return (paged.length ? paged : layers).pop();
            },
          },
        ],
        function (chosen) {
          var spread = of(chosen.model);
          var one = spread.find(function (own) { return String(own.layer) === chosen.layer; });
          var b = scores.bimodal;
          Object.assign(query, chosen);
          body.replaceChildren();
          L.append(body, [
            el("p", {}, one.sae ? one.sae.alive.toLocaleString("en") + " of " + one.sae.n.toLocaleString("en") + " latents fire at layer " + one.layer + "." : null),
            el(
              "div",
              { class: "charts" },
              L.chart({
                title: "Latents by modality score: image only (" + L.number(1 - b) + " and above), both, text only (" + L.number(b) + " and below)",
                xLabel: "layer",
                yLabel: "share of those that fire",
                yRange: [0, 1],
                series: [
                  share(spread, "image", "sae", "image only"), share(spread, "both", "sae", "both"), share(spread, "text", "sae", "text only"),
                  share(spread, "both", "random", "both, random", { control: true }),
                ],
              }),
              bars("Modality scores at layer " + one.layer, "0 text only, 1 image only", steps(one.sae ? one.sae.modality.length : 0, 0, 1), one, "modality"),
              bars("Bridge scores at layer " + one.layer, "log10 of the bridge score", steps(scores.edges.length - 1, scores.edges[0], scores.edges[scores.edges.length - 1]), one, "bridge")
            ),
            strongest(site, head, state, one),
          ]);
        }
      );
      return choices.ready.then(function () {
        return [el("h2", {}, "Single latents"), choices.form, body];
      });
    });
  }

  L.page("sharing", {
    title: "Sharing",
    show: function (container, query, site) {
      var artefact = L.resultOf(site, "sharing", query);
      if (!artefact) {
        L.absent(container, "Sharing", "What the modalities share was not measured in this workspace. jobs/sharing.py does that.");
        return null;
      }
      return L.load("sharing/" + artefact.name).then(function (head) {
        var body = el("div", {});
        var levels = Array.from(new Set(head.levels.map(function (one) { return one.level; })));
        var fields = [
          { key: "level", label: "Level", options: function () { return levels.map(function (level) { return { value: level, label: LEVELS[level] || level }; }); } },
          {
            key: "sae",
            label: "SAE",
            options: function (state) {
              return state.level === "latent"
                ? head.levels.filter(function (one) { return one.sae !== null; }).map(function (one) { return { value: one.sae, label: one.sae }; })
                : [];
            },
          },
          {
            key: "metric",
            label: "Measure",
            options: function (state) {
              var own = part(head, state);
              return own ? shown(head, own).map(function (one) { return { value: one.metric, label: one.label }; }) : [];
            },
            first: function (state) { return FIRST[state.level]; },
          },
          {
            key: "pooling",
            label: "Tokens",
            options: function (state) {
              var own = part(head, state);
              var all = own ? choice(own, state.metric, "pooling", {}) : [];
              return all.length > 1 ? all.map(function (one) { return { value: one, label: TOKENS[one] || one }; }) : [];
            },
            first: function () { return "mean"; },
          },
          {
            key: "attribute",
            label: "Attribute",
            options: function (state) {
              var own = part(head, state);
              var all = own ? choice(own, state.metric, "attribute", state) : [];
              return all.length > 1 ? all.map(function (one) { return { value: one, label: one }; }) : [];
            },
            first: function () { return "class"; },
          },
        ];
        function draw(state, isNow) {
          var own = part(head, state);
          return L.load(own.shard).then(function (data) {
            var table = L.columns(data.rows);
            var measures = shown(head, own);
            var measure = measures.find(function (one) { return one.metric === state.metric; });
            return latents(site, head, own, state, query).then(function (single) {
              if (!isNow()) {
                return;
              }
              var list = el("div", {});
              body.replaceChildren();
              L.append(body, [
                measure ? [el("h2", {}, measure.label), reading(data, own, measure, state), chart(table, own, measure, state), notes(table, measure.metric)] : null,
                single,
                every(data, own, measures, state),
                list,
              ]);
              grid(list, table, query);
            });
          });
        }
        var choices = L.choices(query, fields, draw);
        L.append(container, [
          el("h1", {}, "What image and text share"),
          artefact.headline.map(function (line) { return el("p", { class: "headline" }, L.text(line, 2000)); }),
          el("div", { class: "controls" }, L.choice("Results", "of", L.results(site, "sharing").map(function (one) { return { value: one.key, label: one.name }; }), artefact.key)),
          el(
            "p",
            { class: "quiet" },
            Object.keys(head.pairs).map(function (model) { return L.number(head.pairs[model]) + " pairs of the " + model + " model. "; }),
            "The band is the 95% interval; the null is what chance alone gives. docs/sharing.md explains the measures."
          ),
          head.pairs.untrained ? null : el("p", { class: "quiet" }, "No untrained model was compared: jobs/control.py makes one."),
          levels.includes("latent") ? null : el("p", { class: "quiet" }, "No SAE was compared, so the latent level is missing."),
          choices.form,
          body,
          L.provenance(artefact),
        ]);
        return choices.ready;
      });
    },
  });
})();
