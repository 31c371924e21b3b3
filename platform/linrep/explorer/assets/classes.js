/* The list of all values of all attributes, and the page of each: how it is read, what separates it, what steering does, how it looks. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;

  function provenance(site, key) {
    var own = site.artefacts.find(function (one) { return one.key === key; });
    return own ? L.provenance(own) : null;
  }

  L.page("classes", {
    title: "Classes",
    show: function (container, query, site) {
      return L.load("classes").then(function (raw) {
        if (!raw.n) {
          L.absent(container, "Classes", "The samples of this workspace have no classes and no attributes.");
          return;
        }
        var table = L.columns(raw);
        var attributes = table.distinct("attribute");
        var search = el("input", { type: "search", value: query.q || "", autocomplete: "off" });
        var which = el("select", {}, el("option", { value: "" }, "all"), attributes.map(function (one) { return el("option", { value: one, selected: one === query.attribute }, one); }));
        var count = el("p", { class: "quiet", role: "status" });
        function test() {
          var wanted = search.value.toLowerCase();
          return function (row) {
            return (!which.value || table.value(row, "attribute") === which.value) && (!wanted || table.value(row, "value").toLowerCase().includes(wanted));
          };
        }
        function say(n) {
          count.textContent = n.toLocaleString("en") + " of " + table.n.toLocaleString("en") + " values";
        }
        function again() {
          L.remember({ q: search.value, attribute: which.value });
          say(grid.refresh(test()));
        }
        search.addEventListener("input", again);
        which.addEventListener("change", again);
        L.append(container, [
          el("h1", {}, "Classes and attributes"),
          el(
            "form",
            { class: "controls", role: "search", onsubmit: function (event) { event.preventDefault(); } },
            el("label", {}, "Find a value", search),
            attributes.length > 1 ? el("label", {}, "Attribute", which) : null
          ),
          count,
        ]);
        var grid = L.gridOf(container, table, {
          label: "Values",
          names: ["value", "attribute", "n_image", "n_text", "accuracy_image", "chance_image", "accuracy_text", "chance_text", "f1"],
          labels: {
            n_image: "images", n_text: "texts", accuracy_image: "read, images", chance_image: "chance, images", accuracy_text: "read, texts",
            chance_text: "chance, texts", f1: "best latent, F1",
          },
          titles: {
            accuracy_image: "Share of its test images that a probe reads right, at the layer that validation chose",
            chance_image: "How often that probe says this value, of all test images",
            accuracy_text: "Share of its test texts that a probe reads right, at the layer that validation chose",
            chance_text: "How often that probe says this value, of all test texts",
            f1: "F1 of the latent that separates it best, on the half of the samples that it was not chosen on",
          },
          widths: { value: "14rem", attribute: "8rem", n_image: "6rem", n_text: "6rem" },
          whole: ["n_image", "n_text"],
          show: { value: function (row) { return L.classLink(table.value(row, "attribute"), table.value(row, "value")); } },
          sort: query.sort || "attribute",
          descending: query.descending === "1",
          filter: test(),
          changed: function (state) { L.remember({ sort: state.sort, descending: state.descending ? "1" : "" }); },
        });
        say(grid.rows().length);
        container.addEventListener("placed", grid.draw);
        L.append(container, [el("p", { class: "quiet" }, "Chance: how often the probe says the value, of all test rows; a probe whose answers had nothing to do with the rows would be right that often.")]);
      });
    },
  });

  /* ---- the page of a value ---- */

  function read(site, page, query) {
    if (!page.probes.length) {
      return Promise.resolve([el("h2", {}, "How well it is read"), el("p", { class: "quiet" }, "No probe of this workspace reads it. jobs/probe.py fits probes.")]);
    }
    return Promise.all(page.probes.map(function (own, i) { return one(site, page, own, query, i); }));
  }

  function one(site, page, own, query, number) {
    var body = el("div", {});
    var first = own.first.image || own.first.text || Object.values(own.first)[0] || {};
    var prefix = number ? "p" + number + "-" : "";
    function distinct(curves, name) {
      return Array.from(new Set(curves.map(function (curve) { return curve[name]; }))).map(function (value) {
        return { value: value, label: String(value).replace(/_/g, " ") };
      });
    }
    var choices = L.choices(
      query,
      [
        { key: prefix + "view", label: "Rows", options: function () { return distinct(own.curves, "view"); }, first: function () { return first.view; } },
        {
          key: prefix + "kind",
          label: "Kind of probe",
          options: function (state) { return distinct(own.curves.filter(function (curve) { return curve.view === state[prefix + "view"]; }), "kind"); },
          first: function () { return first.kind; },
        },
      ],
      function (state) {
        var curves = own.curves.filter(function (curve) { return curve.view === state[prefix + "view"] && curve.kind === state[prefix + "kind"]; });
        var series = [];
        curves.forEach(function (curve, i) {
          series.push({ label: curve.modality + " rows", x: curve.layers, y: curve.accuracy, low: curve.accuracy_low, high: curve.accuracy_high, colour: i });
          series.push({ label: "chance, " + curve.modality, x: curve.layers, y: curve.chance, control: true });
        });
        body.replaceChildren();
        L.append(body, [
          el(
            "div",
            { class: "charts" },
            L.chart({ title: "Share of its test rows that are read right, 95% intervals", xLabel: "layer", yLabel: "read right", yRange: [0, 1], series: series }),
            L.chart({
              title: "Area under the ROC curve, this value against the rest",
              xLabel: "layer",
              yLabel: "AUROC",
              yRange: [0, 1],
              series: curves.map(function (curve, i) { return { label: curve.modality + " rows", x: curve.layers, y: curve.auroc, colour: i }; }),
              reference: { y: 0.5, label: "chance" },
            })
          ),
          el("p", { class: "quiet" }, "Chance: how often the probe says this value, of all test rows; a probe whose answers had nothing to do with the rows would be right that often."),
          curves.map(function (curve) { return confused(page, own, curve); }),
        ]);
      }
    );
    return choices.ready.then(function () {
      return [el("h2", {}, "How well it is read", number ? [": ", el("bdi", {}, own.name)] : null), choices.form, body, provenance(site, own.key)];
    });
  }

  function confused(page, own, curve) {
    if (curve.layer === null || (!curve.as.length && !curve.of.length)) {
      return el("p", {}, "At layer " + curve.layer + " no test row of " + curve.modality + " samples is confused with it, either way.");
    }
    function list(cells, what) {
      return cells.length
        ? el("ul", { class: "chips" }, cells.map(function (cell) {
            return el("li", {}, L.classLink(page.attribute, cell[0]), " ", el("span", { class: "quiet" }, cell[1] + (cell[1] === 1 ? " row, " : " rows, ") + L.percent(cell[2]) + "% " + what));
          }))
        : el("p", { class: "quiet" }, "nothing");
    }
    var n = curve.n[curve.layers.indexOf(curve.layer)];
    return [
      el("h3", {}, "Confusions of " + curve.modality + " rows at layer " + curve.layer + ", which validation chose"),
      el("p", {}, "Of its " + L.number(n) + " test rows, read as:"),
      list(curve.as, "of its rows"),
      el("p", {}, "Read as it:"),
      list(curve.of, "of theirs"),
      el("p", {}, el("a", { href: L.href("probes", { of: own.key, attribute: page.attribute, view: curve.view, on: curve.modality, kind: curve.kind, layer: curve.layer }) }, "the whole matrix, at every layer")),
    ];
  }

  function latents(site, page) {
    if (!page.latents.length) {
      var none = site.saes.length ? "Of no latent it is the value that separates best." : "No SAE of this workspace was looked into. jobs/features.py does that.";
      return [el("h2", {}, "Latents that separate it"), el("p", { class: "quiet" }, none)];
    }
    /* An SAE whose harvest is gone has no pages. */
    function linked(key, name, query, text) {
      var paged = site.saes.some(function (one) { return one.key === key; });
      return paged ? el("a", { href: L.href(name, Object.assign({ sae: key }, query)) }, L.text(text)) : L.text(text);
    }
    function link(key, latent) {
      return linked(key, "latent", { latent: latent }, latent);
    }
    var rows = [];
    page.latents.forEach(function (own) {
      own.parts.forEach(function (part) {
        var best = part.best[0];
        rows.push([
          own.layer, el("span", { class: "whole" }, linked(own.key, "latents", { q: page.value }, own.sae)), part.modality, link(own.key, best.latent), L.share(best.f1), L.share(best.auroc), L.number(best.n),
          best.explanation ? L.text(best.explanation, 120) : "–",
          part.best.slice(1).map(function (other) { return [el("span", { class: "whole" }, link(own.key, other.latent), " " + L.share(other.f1)), " "]; }),
          part.random ? [own.control ? link(own.control, part.random.latent) : String(part.random.latent), " " + L.share(part.random.f1)] : "none",
        ]);
      });
    });
    var names = Array.from(new Set(page.latents.map(function (own) { return own.sae; })));
    var layers = new Set(page.latents.map(function (own) { return own.layer; }));
    function curve(name, which) {
      var own = page.latents.filter(function (one) { return one.sae === name; }).sort(function (a, b) { return a.layer - b.layer; });
      return {
        x: own.map(function (one) { return one.layer; }),
        y: own.map(function (one) {
          var part = one.parts.find(function (part) { return part.modality === "image"; });
          var latent = part ? (which ? part.random : part.best[0]) : null;
          return latent ? latent.f1 : null;
        }),
      };
    }
    return [
      el("h2", {}, "Latents that separate it"),
      el("p", {}, "Latents whose value of this attribute it is, ranked by F1 on the half of the samples that value and threshold are chosen on; all numbers are of the other half. Beside them the best of as many random directions."),
      layers.size > 1
        ? L.chart({
            title: "F1 of the best latent on images, by layer",
            xLabel: "layer",
            yLabel: "F1",
            yRange: [0, 1],
            series: [].concat.apply([], names.map(function (name, i) {
              return [
                Object.assign({ label: name, colour: i }, curve(name, false)),
                Object.assign({ label: "random" + (names.length > 1 ? ", " + name : ""), control: true }, curve(name, true)),
              ];
            })),
          })
        : null,
      L.wide("Latents that separate it", L.table(
        null,
        [
          { label: "layer", n: true }, { label: "SAE" }, { label: "samples" }, { label: "best latent" }, { label: "F1", n: true }, { label: "AUROC", n: true }, { label: "samples of it", n: true },
          { label: "said to be" }, { label: "next, with F1" }, { label: "best random direction, with F1" },
        ],
        rows
      )),
    ];
  }

  function steering(site, page) {
    if (!page.steering.length) {
      return page.attribute === "class" && L.results(site, "steer").length
        ? [el("h2", {}, "Steering"), el("p", { class: "quiet" }, "It is in no pair of the steering results that have verdicts.")]
        : null;
    }
    function mean(found) {
      return found ? L.share(found[0], found[1], found[2]) + " (" + found[3] + ")" : "–";
    }
    return [
      el("h2", {}, "Steering from it and to it"),
      page.steering.map(function (own) {
        var edit = own.edit;
        var halves = own.pairs.some(function (pair) { return pair.chosen !== null; });
        return [
          el("p", {}, "The edit with the best trade: ", L.text(edit.direction.replace(/_/g, " ")), " x" + L.number(edit.strength) + " at layer " + edit.layer + ", site " + edit.site + ". ",
            halves ? "It was chosen by the pairs marked so: their numbers are too high by what the choice gained; the others' are not." : "Too few source classes to choose and report on different ones."),
          el("p", {}, "p: probability of the target in the forced choice; turned: share of the answers that were turned to the target, by the judge ", L.text(own.judge), ". Each is a mean [95% interval] (images)."),
          L.wide("Steering by pair", L.table(
            null,
            [{ label: "from" }, { label: "to" }, { label: "p, unedited" }, { label: "p, edited" }, { label: "p, random direction" }, { label: "turned" }, { label: "turned, random direction" }, { label: "an answer" }, { label: "the edit" }],
            own.pairs.map(function (pair) {
              return [
                L.classLink("class", pair.source), L.classLink("class", pair.target), mean(pair.before), mean(pair.edit.p), mean(pair.random.p), mean(pair.edit.turned), mean(pair.random.turned),
                pair.plain === null ? "–" : ["“", L.text(pair.plain.trim(), 120), "” became “", L.text(pair.text.trim(), 120), "”"],
                pair.chosen === null ? "–" : pair.chosen ? "chosen by this" : "chosen elsewhere",
              ];
            })
          )),
          el("p", {}, el("a", { href: L.href("steering", { of: own.key }) }, "all edits, strengths and layers")),
          provenance(site, own.key),
        ];
      }),
    ];
  }

  function samples(page) {
    return [
      page.images.length
        ? [
            el("h2", {}, "Images of it"),
            el("p", { class: "quiet" }, "A fair draw of " + page.images.length + " of " + L.number(page.n.image) + "."),
            el("ul", { class: "pictures" }, page.images.map(function (image) {
              var small = Math.max(image.width, image.height) <= 160;
              return el(
                "li",
                {},
                el(
                  image.page ? "a" : "span",
                  image.page ? { href: L.href("image", { sample: image.name }) } : {},
                  image.file
                    ? el("span", { class: "picture" }, el("img", { src: image.file, alt: image.label || image.name, loading: "lazy", width: image.width, height: image.height, class: small ? "small" : null }))
                    : L.text(image.name, 60)
                )
              );
            })),
          ]
        : null,
      page.texts.length
        ? [
            el("h2", {}, "Texts of it"),
            el("p", { class: "quiet" }, "A fair draw of " + page.texts.length + " of " + L.number(page.n.text) + "."),
            el("ul", { class: "samples" }, page.texts.map(function (text) { return el("li", {}, L.text(text.text || text.sample, 300)); })),
          ]
        : null,
    ];
  }

  L.page("class", {
    under: "classes",
    title: function (query) {
      return query.value || "Class";
    },
    show: function (container, query, site) {
      return L.load("classes").then(function (raw) {
        var table = L.columns(raw);
        var row = table.rows(function (at) { return table.value(at, "attribute") === query.attribute && table.value(at, "value") === query.value; })[0];
        if (row === undefined) {
          L.absent(container, "No such value", "The address names no value of an attribute of this workspace.");
          return null;
        }
        return L.load("classes/" + row).then(function (page) {
          return read(site, page, query).then(function (reads) {
            L.append(container, [
              el("p", { class: "quiet" }, el("a", { href: L.href("classes", { attribute: page.attribute }) }, "All values of ", L.text(page.attribute))),
              el("h1", {}, L.text(page.value, 200), el("span", { class: "quiet" }, " (", L.text(page.attribute, 80), ")")),
              el("p", {}, ["image", "text"].filter(function (one) { return page.n[one]; }).map(function (one) { return L.number(page.n[one]) + " " + one + "s"; }).join(", ")),
              samples(page),
              reads,
              latents(site, page),
              steering(site, page),
            ]);
          });
        });
      });
    },
  });
})();
