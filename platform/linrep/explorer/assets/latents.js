/* The table of all latents of an SAE: sorted, filtered, searched. What a person chose stands in the address. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;
  var COLUMNS = [
    ["modality_score", "modality", "Modality score: 1 image only, 0 text only", "7rem"],
    ["rate_image", "rate, image", "Share of the image tokens on which it fires", "7rem"],
    ["rate_text", "rate, text", "Share of the text tokens on which it fires", "7rem"],
    ["f1", "F1", "F1 for its best label, on the half of the samples that it was not chosen on", "5rem"],
    ["auroc", "AUROC", "Area under the ROC curve for that label, on the same half", "6rem"],
    ["region_iou", "IoU", "Intersection over union of its patches and those of the region that it overlaps most, on the other half of the images", "5rem"],
    ["monosemanticity", "monosem.", "Mean likeness, in an independent encoder, of pairs of images weighted by its activations", "7rem"],
    ["score", "explained", "Balanced accuracy of its explanation in detection, mean over modalities", "7rem"],
    ["score_shuffled", "control", "The same with another latent's explanation", "6rem"],
  ];
  var FILTERS = [
    ["min_f1", "f1", "F1 at least", 1],
    ["min_iou", "region_iou", "IoU at least", 1],
    ["min_score", "score", "explained at least", 1],
    ["min_modality", "modality_score", "modality at least", 1],
    ["max_modality", "modality_score", "modality at most", -1],
  ];

  function read(table) {
    var numbers = {};
    Object.keys(table.numbers).forEach(function (name) {
      numbers[name] = L.numbers(table.numbers[name]);
    });
    return {
      n: table.n,
      latent: L.numbers(table.latent),
      alive: L.numbers(table.alive),
      paged: L.numbers(table.paged),
      numbers: numbers,
      explanation: L.words(table.texts.explanation),
      best: L.words(table.texts.best),
      words: L.words(table.texts.words),
      region: L.words(table.texts.region),
    };
  }

  /* Which rows a search means: every word of it somewhere in explanation, label or words. Texts that repeat are looked at once. */
  function finder(table, text) {
    var wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
    if (!wanted.length) {
      return null;
    }
    var columns = [table.explanation, table.best, table.words, table.region].map(function (column) {
      var texts = column.texts.map(function (one) {
        return one.toLowerCase();
      });
      return {
        rows: column.rows,
        has: wanted.map(function (word) {
          return Uint8Array.from(texts, function (one) {
            return one.includes(word) ? 1 : 0;
          });
        }),
      };
    });
    var number = /^\d+$/.test(text.trim()) ? Number(text.trim()) : -1;
    return function (row) {
      return (
        table.latent[row] === number ||
        wanted.every(function (_, w) {
          return columns.some(function (column) {
            var at = column.rows[row];
            return at >= 0 && column.has[w][at] === 1;
          });
        })
      );
    };
  }

  L.page("latents", {
    title: "Latents",
    show: function (container, query, site) {
      var sae = L.saeOf(site, query);
      if (!sae) {
        L.absent(container, "Latents", "No SAE of this workspace was looked into. jobs/features.py does that.");
        return null;
      }
      return L.load(sae.key + "/table").then(function (raw) {
        var table = read(raw);
        var search = el("input", { type: "search", value: query.q || "", autocomplete: "off" });
        var inputs = FILTERS.map(function (filter) {
          return el("input", { type: "number", min: 0, max: 1, step: 0.05, value: query[filter[0]] || "" });
        });
        var alive = el("input", { type: "checkbox", checked: query.silent !== "1" });
        var count = el("p", { class: "quiet", role: "status" });

        function test() {
          var tests = [];
          var found = finder(table, search.value);
          if (found) {
            tests.push(found);
          }
          if (alive.checked) {
            tests.push(function (row) { return table.alive[row] === 1; });
          }
          inputs.forEach(function (input, i) {
            var bound = parseFloat(input.value);
            if (bound === bound) {
              var values = table.numbers[FILTERS[i][1]];
              var way = FILTERS[i][3];
              tests.push(function (row) { return way * (values[row] - bound) >= 0; });
            }
          });
          return function (row) {
            return tests.every(function (one) { return one(row); });
          };
        }

        function say(n) {
          count.textContent = n.toLocaleString("en") + " of " + table.n.toLocaleString("en") + " latents" + (alive.checked ? "; those that never fire are left out" : "");
        }

        function again() {
          var changes = { q: search.value, silent: alive.checked ? "" : "1" };
          inputs.forEach(function (input, i) { changes[FILTERS[i][0]] = input.value; });
          L.remember(changes);
          say(grid.refresh(test()));
        }

        search.addEventListener("input", again);
        alive.addEventListener("change", again);
        inputs.forEach(function (input) { input.addEventListener("input", again); });

        L.append(container, [
          el("h1", {}, "Latents of ", L.text(L.saeName(sae))),
          el(
            "form",
            { class: "controls", role: "search", onsubmit: function (event) { event.preventDefault(); } },
            L.saeChoice(site, sae),
            el("label", {}, "Search explanations, labels, words, or a number", search),
            FILTERS.map(function (filter, i) { return el("label", {}, filter[2], inputs[i]); }),
            el("label", {}, "only those that fire", alive)
          ),
          count,
        ]);
        function link(row) {
          return L.href("latent", { sae: sae.key, latent: table.latent[row] });
        }
        var grid = L.grid(container, {
          label: "Latents",
          n: table.n,
          sort: query.sort || (sae.explained ? "score" : "f1"),
          descending: query.sort ? query.descending === "1" : true,
          filter: test(),
          open: function (row) {
            if (table.paged[row]) {
              location.hash = link(row);
            }
          },
          changed: function (state) {
            L.remember({ sort: state.sort, descending: state.descending ? "1" : "" });
          },
          columns: [
            {
              name: "latent",
              label: "latent",
              width: "6rem",
              number: table.latent,
              show: function (row) {
                var text = String(table.latent[row]);
                return table.paged[row] ? el("a", { href: link(row) }, text) : text;
              },
            },
            { name: "explanation", label: "explanation", width: "22rem", text: function (row) { return table.explanation.at(row); } },
            { name: "best", label: "best label", width: "9rem", text: function (row) { return table.best.at(row); } },
            { name: "words", label: "words raised", width: "12rem", text: function (row) { return table.words.at(row); } },
          ].concat(
            COLUMNS.map(function (column) {
              return { name: column[0], label: column[1], title: column[2], width: column[3], number: table.numbers[column[0]] };
            })
          ),
        });
        say(grid.rows().length);
        container.addEventListener("placed", grid.draw);
        if (sae.pages < sae.latents) {
          L.append(container, [el("p", { class: "quiet" }, sae.pages.toLocaleString("en") + " of these latents have a page: the explained ones first, then those with the highest F1.")]);
        }
        L.append(container, [
          el("p", { class: "quiet" }, "F1 and its label: the label is chosen on one half of the samples, the number is from the other. Rows with no number come last. docs/features.md explains the columns."),
          L.provenance(site.artefacts.find(function (one) { return one.key === "features/" + sae.features; })),
        ]);
      });
    },
  });
})();
