/* The page of a latent: what it is said to be, where it fires in images and texts, what it raises, and what is like it. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;
  var BLOCK = 8; // latents of a shard, as linrep.explorer.site.latents says

  function link(sae, latent, text) {
    return el("a", { href: L.href("latent", { sae: sae.key, latent: latent }) }, text === undefined ? String(latent) : text);
  }

  function most(examples) {
    return examples.reduce(function (top, one) { return Math.max(top, one.activation); }, 0);
  }

  function picture(block, example, top, view) {
    var own = block.pictures[example.picture];
    return el(
      "li",
      {},
      el("a", { href: L.href("image", { sample: own.name }) }, L.heatmap(own, example.patches, top, view)),
      el("span", { class: "under", title: own.label }, L.number(example.activation), " · ", L.text(own.label, 60)),
      example.held < example.tokens ? el("span", { class: "under" }, example.held + " of " + example.tokens + " patches stored") : null
    );
  }

  /* The strongest images at a glance: all of them, and where in them it fires, stand below. */
  function strip(block, latent) {
    var best = latent.images.filter(function (one) { return one.kind === "top"; }).slice(0, 8);
    var top = most(best);
    return el("ul", { class: "pictures strip", "aria-label": "Its strongest images" }, best.map(function (one) {
      var own = block.pictures[one.picture];
      return el("li", {}, el("a", { href: L.href("image", { sample: own.name }) }, L.heatmap(own, one.patches, top, "both")));
    }));
  }

  function pictures(block, latent, query) {
    var images = latent.images;
    if (!images.length) {
      return el("p", { class: "quiet" }, "It fires on no image of the harvest.");
    }
    var top = most(images);
    var view = query.view || "both";
    var best = images.filter(function (one) { return one.kind === "top"; });
    var quantiles = Array.from(new Set(images.filter(function (one) { return one.kind === "quantile"; }).map(function (one) { return one.quantile; })));
    quantiles.sort(function (a, b) { return b - a; });
    var shown = el("div", {});
    function fill() {
      shown.replaceChildren(
        el("h3", {}, "Strongest"),
        el("ul", { class: "pictures" }, best.map(function (one) { return picture(block, one, top, view); })),
        el("h3", {}, "A fair draw over the range of its activations"),
        el("div", {}, quantiles.map(function (quantile) {
          var own = images.filter(function (one) { return one.quantile === quantile && one.kind === "quantile"; });
          var low = Math.min.apply(null, own.map(function (one) { return one.activation; }));
          return el(
            "details",
            { open: quantile === quantiles[0] },
            el("summary", {}, "quantile " + (quantile + 1) + " of " + quantiles.length + ": activations " + L.number(low) + " to " + L.number(most(own))),
            el("ul", { class: "pictures" }, own.map(function (one) { return picture(block, one, top, view); }))
          );
        }))
      );
    }
    var buttons = [["both", "all patches"], ["base", "whole image"], ["crops", "crops"]].map(function (option) {
      var button = el("button", { type: "button", "aria-pressed": String(view === option[0]) }, option[1]);
      button.addEventListener("click", function () {
        view = option[0];
        L.remember({ view: view === "both" ? "" : view });
        buttons.forEach(function (other) { other.setAttribute("aria-pressed", String(other === button)); });
        fill();
      });
      return button;
    });
    fill();
    return [el("div", { class: "controls", role: "group", "aria-label": "Patches shown" }, buttons), shown];
  }

  function texts(latent) {
    if (!latent.texts.length) {
      return el("p", { class: "quiet" }, "It fires on no text of the harvest.");
    }
    var top = most(latent.texts);
    function lines(kind) {
      return latent.texts
        .filter(function (one) { return one.kind === kind; })
        .map(function (one) {
          return one.pieces.length ? L.tokens(one.pieces, one.values, top) : el("p", { class: "quiet" }, L.text(one.sample), ": " + L.number(one.activation));
        });
    }
    return [el("h3", {}, "Strongest"), lines("top"), el("details", {}, el("summary", {}, "A fair draw over the range of its activations"), lines("quantile"))];
  }

  function scores(told) {
    if (!told) {
      return el("p", { class: "quiet" }, "This latent was not chosen for explaining; jobs/interpret.py explains a draw.");
    }
    return [
      told.explanation ? el("p", { class: "headline" }, "“", L.text(told.explanation), "”") : el("p", { class: "trouble" }, "No explanation: ", L.text(told.error || "")),
      el("p", { class: "quiet" }, "said by ", L.text(told.source), told.before ? [", before: ", L.text(told.before)] : null),
      L.table(
        "How well the explanation tells where it fires. Balanced accuracy with 95% interval; overlap: intersection over union.",
        [{ label: "samples" }, { label: "task" }, { label: "explanation" }, { label: "score", n: true }],
        told.scores.map(function (one) {
          var whose = { own: "its own", shuffled: "another latent's (" + one.partner + ")", random: "as many patches at random" };
          return [one.modality, one.task, whose[one.control] || one.control, L.interval(one.value, one.low, one.high)];
        })
      ),
    ];
  }

  function labels(latent) {
    if (!latent.labels.length) {
      return null;
    }
    return L.table(
      "Labels that it separates best, of each attribute. Value and threshold are chosen on one half of the samples, F1 is of the other.",
      [{ label: "samples" }, { label: "attribute" }, { label: "value" }, { label: "F1", n: true }, { label: "AUROC", n: true }, { label: "entropy", n: true }, { label: "n", n: true }],
      latent.labels.map(function (one) {
        return [one.modality, L.text(one.attribute), L.text(one.value), L.number(one.f1), L.number(one.auroc), L.number(one.entropy), L.number(one.n)];
      })
    );
  }

  /* The regions of images whose patches it overlaps most. */
  function regions(latent) {
    if (!latent.regions.length) {
      return null;
    }
    return L.table(
      "Regions whose patches it fires on: intersection over union with 95% interval. Category and threshold are chosen on one half of the images, numbers are of the other; dealt: the same with regions of other images, at their places.",
      [{ label: "region" }, { label: "IoU", n: true }, { label: "dealt", n: true }, { label: "average precision", n: true }, { label: "by chance", n: true }, { label: "patches", n: true }],
      latent.regions.map(function (one) {
        return [L.text(one.category), L.interval(one.iou, one.iou_low, one.iou_high), L.number(one.iou_dealt), L.number(one.average_precision), L.number(one.share), L.number(one.n)];
      })
    );
  }

  function chips(pairs) {
    return el("ul", { class: "chips" }, pairs.map(function (pair) { return el("li", {}, L.text(pair[0]), " ", el("span", { class: "quiet" }, L.number(pair[1]))); }));
  }

  function histogram(latent) {
    var counts = latent.histogram;
    if (!counts) {
      return null;
    }
    return L.bars({
      title: "Activations by modality: share of the tokens on which it fires, in equal steps up to its largest activation",
      xLabel: "activation",
      yLabel: "share of firing tokens",
      groups: counts.edges.slice(0, -1).map(function (edge) { return L.number(edge); }),
      series: [{ label: "image", values: counts.image }, { label: "text", values: counts.text }],
    });
  }

  L.page("latent", {
    under: "latents",
    title: function (query) {
      return "Latent " + query.latent;
    },
    show: function (container, query, site) {
      var sae = L.saeOf(site, query);
      var number = Number(query.latent);
      if (!sae || !(number >= 0)) {
        L.absent(container, "No such latent", "The address names no latent of this workspace.");
        return null;
      }
      return L.load(sae.key + "/" + Math.floor(number / BLOCK)).then(function (block) {
        var latent = block.latents[number];
        L.pictures(block);
        if (!latent) {
          throw new Error("Latent " + number + " of this SAE has no page on this site.");
        }
        var facts = latent.facts;
        L.append(container, [
          el("p", { class: "quiet" }, el("a", { href: L.href("latents", { sae: sae.key }) }, "Latents of ", L.text(L.saeName(sae)))),
          el("h1", {}, "Latent " + number, facts.best_value ? [": ", L.text(facts.best_attribute + " " + facts.best_value)] : null),
          el("p", {}, number > 0 ? link(sae, number - 1, "← " + (number - 1)) : null, " ", number + 1 < sae.latents ? link(sae, number + 1, number + 1 + " →") : null),
          latent.images.length ? strip(block, latent) : null,
          el(
            "div",
            { class: "cards" },
            el("section", { class: "card" }, el("h2", {}, "What it is said to be"), scores(latent.told)),
            el(
              "section",
              { class: "card" },
              el("h2", {}, "In numbers"),
              L.facts([
                ["modality score", L.number(facts.modality_score) + " (1 image only, 0 text only)"],
                ["fires on", L.number(100 * facts.rate_image) + "% of image tokens, " + L.number(100 * facts.rate_text) + "% of text tokens"],
                ["largest activation", L.number(facts.max_image) + " on images, " + L.number(facts.max_text) + " on texts"],
                ["monosemanticity", facts.monosemanticity === null ? null : L.number(facts.monosemanticity)],
                ["uniqueness", facts.uniqueness === null ? null : [L.number(facts.uniqueness), facts.most_alike === null ? null : [", most alike: ", link(sae, facts.most_alike)]]],
              ]),
              labels(latent),
              regions(latent)
            ),
            el(
              "section",
              { class: "card" },
              el("h2", {}, "Words that its direction raises"),
              chips(latent.words),
              el("h3", {}, "Words that it lowers"),
              chips(latent.words_down),
              el("h3", {}, "Nearest latents"),
              el("ul", { class: "chips" }, latent.neighbours.map(function (pair) { return el("li", {}, link(sae, pair[0]), " ", el("span", { class: "quiet" }, L.number(pair[1]))); }))
            ),
            latent.histogram ? el("section", { class: "card" }, el("h2", {}, "How strongly it fires"), histogram(latent)) : null
          ),
          el("h2", {}, "Images"),
          pictures(block, latent, query),
          el("h2", {}, "Texts"),
          texts(latent),
          L.provenance(site.artefacts.find(function (one) { return one.key === "features/" + sae.features; })),
        ]);
      });
    },
  });
})();
