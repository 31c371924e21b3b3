/* What linear probes read, layer by layer: beside shuffled labels and chance, across the modalities, with few samples or coordinates. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;
  var UNEQUAL = 1.5; // the commonest class is that much commoner than the mean: top-1 alone says little
  var WHOLE = 4500; // rows up to which all parts are shown in one table: the page stays below 1 MB
  var VIEWS = { pooled: "pooled: mean over a sample's tokens", tokens: "tokens: each token for itself", last: "last: the prompt's last token" };
  var TABLE = [
    "layer", "kind", "tested_on", "fitted_on", "centred", "n_per_class", "k", "top1", "top1_low", "top1_high", "shuffled", "shuffled_low", "shuffled_high", "control_task", "control_task_low", "control_task_high", "chance",
    "selectivity", "selectivity_low", "selectivity_high", "balanced", "balanced_low", "balanced_high", "auroc", "auroc_low", "auroc_high",
    "top5", "top5_low", "top5_high", "validation", "setting", "setting_edge", "n_classes", "n_train", "n_test", "n_test_samples",
    "n_high_norm", "high_norm_positions", "gradient", "evaluations", "converged",
  ];
  var WHOLE_NUMBERS = ["layer", "n_per_class", "k", "evaluations", "n_train", "n_test", "n_test_samples", "n_high_norm", "n_classes"];
  var TITLES = {
    shuffled: "Top-1 of the same probe fitted on and scored against shuffled labels",
    control_task: "Top-1 of the same probe fitted on and scored against a random function of the type: the word, the place of the patch, the attributes, or halves of the classes",
    chance: "Share of the most frequent class among the test rows",
    selectivity: "Top-1 minus control task, on the same rows",
    balanced: "Mean over classes of the share of their rows that are right",
    validation: "Top-1 on validation rows, by which kinds and layers are chosen among",
    k: "Coordinates, or latents, that the probe sees of each class",
    n_per_class: "Training samples per class",
    n_high_norm: "Tokens of high norm that are kept apart from the row's numbers",
  };

  function options(values, name) {
    return values.map(function (value) { return { value: value, label: (name && name[value]) || String(value) }; });
  }

  function unique(values) {
    return Array.from(new Set(values));
  }

  /* Rows of probes that see all dimensions and all samples, of the modality that they are tested on. */
  function isMain(table) {
    return function (row) {
      return (
        table.value(row, "fitted_on") === table.value(row, "tested_on") &&
        table.value(row, "k") === null &&
        table.value(row, "n_per_class") === null
      );
    };
  }

  function of(table, state) {
    return function (row) {
      return table.value(row, "tested_on") === state.on && table.value(row, "kind") === state.kind;
    };
  }

  function both(one, other) {
    return function (row) { return one(row) && other(row); };
  }

  function mean(table, rows, name) {
    var known = rows.map(function (row) { return table.value(row, name); }).filter(function (value) { return value !== null; });
    return known.length ? known.reduce(function (a, b) { return a + b; }, 0) / known.length : null;
  }

  function chart(title, what, series, reference) {
    return L.chart({ title: title, xLabel: "layer", yLabel: what, yRange: [0, 1], series: series, reference: reference });
  }

  function main(table, state) {
    var rows = table.rows(both(isMain(table), of(table, state)));
    var chance = { y: mean(table, rows, "chance"), label: "commonest class" };
    var classes = table.value(rows[0], "n_classes");
    var charts = [
      chart(
        state.kind.replace(/_/g, " ") + ": top-1 on test rows, 95% intervals",
        "top-1",
        [L.curve(state.kind.replace(/_/g, " "), table, rows, "layer", "top1"), L.curve("shuffled labels", table, rows, "layer", "shuffled", { control: true }), L.curve("control task", table, rows, "layer", "control_task", { control: true })],
        chance
      ),
    ];
    if (chance.y * classes > UNEQUAL) {
      charts.push(
        chart(
          "Balanced accuracy: the commonest of " + classes + " classes is " + L.percent(chance.y) + "% of the test rows",
          "mean over classes",
          [L.curve(state.kind.replace(/_/g, " "), table, rows, "layer", "balanced")],
          { y: 1 / classes, label: "chance" }
        )
      );
    }
    /* Of patches, what places alone tell. */
    var places = table.rows(both(isMain(table), of(table, { on: state.on, kind: "position" })));
    if (places.length && state.kind !== "position") {
      charts.push(
        chart(
          "How well classes are told from the rest, beside what the places of patches alone tell",
          "mean AUROC",
          [L.curve(state.kind.replace(/_/g, " "), table, rows, "layer", "auroc"), L.curve("places alone", table, places, "layer", "auroc", { control: true })],
          { y: 0.5, label: "chance" }
        )
      );
    }
    charts.push(
      L.chart({
        title: "Selectivity: top-1 minus that of shuffled labels, on the same rows",
        xLabel: "layer",
        yLabel: "selectivity",
        series: [L.curve(state.kind.replace(/_/g, " "), table, rows, "layer", "selectivity")],
        reference: { y: 0, label: "nothing" },
      })
    );
    var kinds = unique(table.rows(isMain(table)).map(function (row) { return table.value(row, "kind"); }));
    if (kinds.length > 1) {
      charts.push(
        chart(
          "Every kind of probe",
          "top-1",
          kinds.map(function (kind) {
            return L.curve(kind.replace(/_/g, " "), table, table.rows(both(isMain(table), of(table, { on: state.on, kind: kind }))), "layer", ["top1"]);
          }),
          chance
        )
      );
    }
    return [el("h2", {}, "What it reads, layer by layer"), el("div", { class: "charts" }, charts)];
  }

  function transfer(table, state) {
    function moves(row) { return table.value(row, "fitted_on") !== table.value(row, "tested_on") && table.value(row, "kind") === state.kind; }
    var targets = unique(table.rows(moves).map(function (row) { return table.value(row, "tested_on"); }));
    if (!targets.length) {
      return null;
    }
    return [
      el("h2", {}, "Across the modalities"),
      el("p", {}, "A probe that is fitted on one modality reads rows of the other: as it is, and once both means are aligned."),
      el(
        "div",
        { class: "charts" },
        targets.map(function (target) {
          var there = { on: target, kind: state.kind };
          var home = table.rows(both(isMain(table), of(table, there)));
          var away = table.rows(both(moves, of(table, there)));
          function some(centred) { return away.filter(function (row) { return table.value(row, "centred") === centred; }); }
          var source = table.value(away[0], "fitted_on");
          return chart(
            source + " to " + target,
            "top-1 on " + target + " rows",
            [
              L.curve("as it is", table, some("no"), "layer", "top1", { colour: 0 }),
              L.curve("means aligned", table, some("yes"), "layer", "top1", { colour: 1 }),
              L.curve("fitted on " + target, table, home, "layer", ["top1"], { colour: 2 }),
              L.curve("shuffled labels", table, home, "layer", ["shuffled"], { control: true }),
            ],
            { y: mean(table, away, "chance"), label: "commonest class" }
          );
        })
      ),
    ];
  }

  /* A curve over layers for each number of samples, or of coordinates: `name`. */
  function family(table, rows, name, label, whole) {
    var sizes = unique(rows.map(function (row) { return table.value(row, name); })).sort(function (a, b) { return a - b; });
    var series = sizes.map(function (size) {
      return L.curve(label(size), table, rows.filter(function (row) { return table.value(row, name) === size; }), "layer", ["top1"]);
    });
    var last = rows.filter(function (row) { return table.value(row, name) === sizes[sizes.length - 1]; });
    if (whole && whole.length) {
      series.push(L.curve("all", table, whole, "layer", ["top1"]));
      last = whole;
    }
    series.push(L.curve("shuffled labels", table, last, "layer", ["shuffled"], { control: true }));
    return series;
  }

  function few(table, state) {
    function home(row) { return table.value(row, "tested_on") === state.on && table.value(row, "fitted_on") === state.on; }
    var charts = [];
    var samples = table.rows(both(home, function (row) { return table.value(row, "n_per_class") !== null; }));
    if (samples.length) {
      // Not every kind is fitted to few samples: the first that is stands for those that are not.
      var has = samples.some(of(table, state));
      var shown = { on: state.on, kind: has ? state.kind : table.value(samples[0], "kind") };
      var own = samples.filter(of(table, shown));
      charts.push(
        chart(
          shown.kind.replace(/_/g, " ") + (has ? "" : " (" + state.kind.replace(/_/g, " ") + " was not fitted to few)") + ", by training samples per class",
          "top-1",
          family(table, own, "n_per_class", function (n) { return n + " a class"; }, table.rows(both(isMain(table), of(table, shown)))),
          { y: mean(table, own, "chance"), label: "commonest class" }
        )
      );
    }
    var seen = table.rows(both(home, function (row) { return table.value(row, "k") !== null; }));
    unique(seen.map(function (row) { return table.value(row, "kind"); })).forEach(function (kind) {
      var rows = seen.filter(function (row) { return table.value(row, "kind") === kind; });
      var what = kind === "sparse" ? "coordinates" : "latents";
      charts.push(
        chart(
          "Few " + what + ": probes that see k of them for each class",
          "top-1",
          family(table, rows, "k", function (k) { return "k = " + k; }),
          { y: mean(table, rows, "chance"), label: "commonest class" }
        )
      );
    });
    return charts.length ? [el("h2", {}, "With few samples, and with few coordinates"), el("div", { class: "charts" }, charts)] : null;
  }

  function confused(table, part, state) {
    if (!part.confused.includes(Number(state.layer))) {
      return Promise.resolve(null);
    }
    return L.load(part.shard + "-" + state.layer).then(function (probes) {
      var own = probes.find(function (one) { return one.kind === state.kind && one.tested_on === state.on; });
      return own ? [el("h2", {}, "What it confuses at layer " + state.layer), L.confusions(own, part.attribute)] : null;
    });
  }

  function grid(container, head, part, table, state, query) {
    var total = head.parts.reduce(function (n, one) { return n + one.n; }, 0);
    var search = el("input", { type: "search", value: query.q || "", autocomplete: "off" });
    var all = el("input", { type: "checkbox", checked: query.all === "1" });
    var count = el("p", { class: "quiet", role: "status" });
    var place = el("div", {});
    var shown = null;
    var current = table;
    function test() {
      var words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      if (!words.length) {
        return null;
      }
      var texts = current.names.filter(function (name) { return current.isText(name); });
      return function (row) {
        return words.every(function (word) {
          return texts.some(function (name) { return String(current.value(row, name) || "").toLowerCase().includes(word); });
        });
      };
    }
    function say(n) {
      count.textContent = n.toLocaleString("en") + " of " + current.n.toLocaleString("en") + " probes" + (all.checked ? "" : " of this attribute and view");
    }
    function fill() {
      var wanted = all.checked && total <= WHOLE ? head.parts : null;
      return (wanted ? Promise.all(wanted.map(function (one) { return L.load(one.shard); })) : Promise.resolve(null)).then(function (raws) {
        current = raws
          ? L.stacked(raws.map(L.columns), wanted.map(function (one) { return { attribute: one.attribute, view: one.view }; }))
          : table;
        place.replaceChildren();
        var names = (wanted ? ["attribute", "view"] : []).concat(TABLE).filter(function (name) { return current.has(name); });
        shown = L.gridOf(place, current, {
          label: "Probes",
          names: names,
          whole: WHOLE_NUMBERS,
          titles: TITLES,
          sort: names.includes(query.sort) ? query.sort : "layer",
          descending: query.descending === "1",
          filter: test(),
          changed: function (sorted) {
            query.sort = sorted.sort;
            query.descending = sorted.descending ? "1" : "";
            L.remember({ sort: query.sort, descending: query.descending });
          },
        });
        say(shown.rows().length);
      });
    }
    search.addEventListener("input", function () {
      query.q = search.value;
      L.remember({ q: search.value });
      say(shown.refresh(test()));
    });
    all.addEventListener("change", function () {
      query.all = all.checked ? "1" : "";
      L.remember({ all: query.all });
      fill();
    });
    L.append(container, [
      el("h2", {}, "All probes"),
      el(
        "form",
        { class: "controls", role: "search", onsubmit: function (event) { event.preventDefault(); } },
        el("label", {}, "Rows that hold these words", search),
        total <= WHOLE && head.parts.length > 1 ? el("label", {}, "all attributes and views", all) : null
      ),
      count,
      place,
    ]);
    return fill();
  }

  L.page("probes", {
    title: "Probes",
    show: function (container, query, site) {
      var artefact = L.resultOf(site, "probe", query);
      if (!artefact) {
        L.absent(container, "Probes", "No probes were fitted in this workspace. jobs/probe.py does that.");
        return null;
      }
      return L.load("probes/" + artefact.name).then(function (head) {
        var body = el("div", {});
        var tables = {};
        function partOf(state) {
          return head.parts.find(function (one) { return one.attribute === state.attribute && one.view === state.view; });
        }
        function table(state) {
          return tables[partOf(state).shard] || null;
        }
        function column(state, name, test) {
          var own = table(state);
          return own ? unique(own.rows(both(isMain(own), test || function () { return true; })).map(function (row) { return own.value(row, name); })) : [];
        }
        /* Modality, kind and layer are chosen among what the part has, so the part is read first. */
        function read(state) {
          var part = partOf(state);
          return L.load(part.shard).then(function (raw) {
            tables[part.shard] = tables[part.shard] || L.columns(raw);
          });
        }
        var fields = [
          {
            key: "attribute",
            label: "What is read",
            options: function () { return options(unique(head.parts.map(function (one) { return one.attribute; }))); },
            first: function () { return head.first.attribute; },
          },
          {
            key: "view",
            label: "Rows",
            options: function (state) {
              return options(head.parts.filter(function (one) { return one.attribute === state.attribute; }).map(function (one) { return one.view; }), VIEWS);
            },
            first: function () { return head.first.view; },
          },
          {
            key: "on",
            label: "Tested on",
            options: function (state) { return options(column(state, "tested_on")); },
            first: function () { return head.first.tested_on; },
          },
          {
            key: "kind",
            label: "Kind of probe",
            options: function (state) {
              return column(state, "kind", function (row) { return table(state).value(row, "tested_on") === state.on; }).map(function (kind) {
                return { value: kind, label: kind.replace(/_/g, " ") };
              });
            },
            first: function () { return head.first.kind; },
          },
          {
            key: "layer",
            label: "Layer of the confusions",
            options: function (state) { return options(column(state, "layer", function (row) { return of(table(state), state)(row); })); },
            first: function (state) {
              var own = table(state);
              var rows = own ? own.rows(both(isMain(own), of(own, state))) : [];
              var best = rows.reduce(function (one, row) { return one === null || own.value(row, "validation") > own.value(one, "validation") ? row : one; }, null);
              return best === null ? undefined : own.value(best, "layer");
            },
          },
        ];
        function draw(state, isNow) {
          var part = partOf(state);
          var own = table(state);
          return confused(own, part, state).then(function (confusions) {
            var list = el("div", {});
            var first = own.rows(both(isMain(own), of(own, state)))[0];
            return grid(list, head, part, own, state, query).then(function () {
              if (!isNow()) {
                return;
              }
              body.replaceChildren();
              L.append(body, [
                el(
                  "p",
                  { class: "quiet" },
                  own.value(first, "n_classes") + " classes, " + L.number(own.value(first, "n_train")) + " rows to fit on, " + L.number(own.value(first, "n_test")) + " test rows of ",
                  L.number(own.value(first, "n_test_samples")) + " samples. The band is the 95% interval."
                ),
                main(own, state),
                transfer(own, state),
                few(own, state),
                confusions,
                list,
              ]);
            });
          });
        }
        var choices = L.choices(query, fields, draw, read);
        var left = Object.keys(head.left_out);
        L.append(container, [
          el("h1", {}, "What linear probes read"),
          artefact.headline.map(function (line) { return el("p", { class: "headline" }, L.text(line, 2000)); }),
          el("div", { class: "controls" }, L.choice("Probes", "of", L.results(site, "probe").map(function (one) { return { value: one.key, label: one.name }; }), artefact.key)),
          choices.form,
          body,
          left.length
            ? el("p", { class: "quiet" }, "Left out, too few samples: ", L.text(left.map(function (what) { return what + ": " + head.left_out[what].join(", "); }).join("; "), 600))
            : null,
          L.provenance(artefact),
        ]);
        return choices.ready;
      });
    },
  });
})();
