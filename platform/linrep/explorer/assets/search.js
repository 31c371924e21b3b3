/* Search over all SAEs: latents by the words of their explanations, labels and logit-lens words. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;
  var FIELD = { explanation: "explanation says", label: "best label is", words: "raises the word" };

  function bucket(word) {
    return /^[a-z0-9]{2}/.test(word) ? word.slice(0, 2) : "other";
  }

  /* Hits of words that begin like the text, by SAE and field. */
  function look(text, list) {
    var word = (text.toLowerCase().match(/[\p{L}\p{N}]+/u) || [""])[0];
    if (word.length < 2 || list.buckets.indexOf(bucket(word)) < 0) {
      return Promise.resolve([]);
    }
    return L.load("search/" + bucket(word)).then(function (own) {
      var found = [];
      Object.keys(own).forEach(function (known) {
        if (known.startsWith(word)) {
          own[known].forEach(function (hit) {
            found.push({ word: known, sae: hit[0], field: list.fields[hit[1]], n: hit[2], latents: hit[3] });
          });
        }
      });
      found.sort(function (a, b) { return (b.word === word) - (a.word === word) || a.sae - b.sae; });
      return found;
    });
  }

  function result(site, hit) {
    var sae = site.saes[hit.sae];
    return el(
      "section",
      { class: "card" },
      el("h2", {}, L.saeName(sae) + ": " + FIELD[hit.field] + " ", L.text(hit.word)),
      el(
        "p",
        {},
        hit.latents.slice(0, 24).map(function (one) {
          return [el("a", { href: L.href("latent", { sae: sae.key, latent: one[0] }) }, String(one[0])), el("span", { class: "quiet" }, one[1] < 0 ? " " : " " + L.number(one[1]) + " "), " "];
        })
      ),
      el("p", {}, el("a", { href: L.href("latents", { sae: sae.key, q: hit.word }) }, "all " + hit.n + " in the table"))
    );
  }

  L.page("search", {
    title: "Search",
    show: function (container, query, site) {
      return L.load("search").then(function (list) {
        var input = el("input", { type: "search", value: query.q || "", autocomplete: "off" });
        var place = el("div", { class: "cards", "aria-live": "polite" });
        var turn = 0;
        function again() {
          var mine = ++turn;
          L.remember({ q: input.value });
          return look(input.value, list).then(function (hits) {
            if (mine !== turn) {
              return;
            }
            var parts = hits.slice(0, 60).map(function (hit) { return result(site, hit); });
            if (!parts.length) {
              parts.push(el("p", { class: "quiet" }, input.value.trim().length < 2 ? "Type two letters or more." : "No latent is explained, labelled or worded so."));
            }
            place.replaceChildren.apply(place, parts);
          });
        }
        input.addEventListener("input", again);
        L.append(container, [
          el("h1", {}, "Search"),
          el("form", { class: "controls", role: "search", onsubmit: function (event) { event.preventDefault(); } }, el("label", {}, "A word, or its beginning", input)),
          el("p", { class: "quiet" }, "Beside a latent: the detection score of its explanation, the F1 of its label, or how far it raises the word."),
          place,
        ]);
        return again();
      });
    },
  });
})();
