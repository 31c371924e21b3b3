/* Steering: an image, what the model said of it and what it says under every edit that was run, beside the controls' answers; then what
   it comes to over all pairs. Two sliders step through what was computed. The figures are in steering-figures.js. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;
  var NONE = 255; // as linrep.explorer.site.steering says
  var SITES = { image: "image tokens", patches: "image patches", last: "the last token", everywhere: "all tokens" };

  /* The result that an address names; where it names none, one of the recipe that the site is called after. */
  L.ownResult = function (site, results, key) {
    var found = results.find(function (one) { return one.key === key; });
    return found || results.find(function (one) { return one.name === site.title + "-" + one.digest; }) || results[0] || null;
  };

  L.spoken = function (name) {
    return String(name).replace(/_/g, " ");
  };

  function short(strength) {
    return String(Number(Number(strength).toPrecision(4)));
  }

  /* ---- what the address means ---- */

  function oneOf(values, wanted, otherwise) {
    var at = values.findIndex(function (value) { return String(value) === String(wanted) || (typeof value === "number" && short(value) === String(wanted)); });
    return at >= 0 ? at : Math.max(0, values.indexOf(otherwise));
  }

  /* Numbers in the lists of `about`: judge (-1 for none), site, pair, question, direction, control (-1), layer, strength. */
  function chosen(about, query) {
    var judge = about.judges.length ? oneOf(about.judges.map(function (one) { return one.name; }), query.judge) : -1;
    var best = (judge >= 0 && about.judges[judge].best) || {};
    var example = judge >= 0 ? about.judges[judge].example : null;
    var names = about.directions.map(function (one) { return one.name; });
    var effect = about.directions.find(function (one) { return !one.control; });
    var control = about.directions.find(function (one) { return one.name === "random"; }) || about.directions.find(function (one) { return one.control; });
    var pair = about.pairs.findIndex(function (one) { return one.source === query.source && one.target === query.target; });
    var asked = about.questions.findIndex(function (one) { return one.about === "class"; });
    var question = /^\d+$/.test(query.question || "") && about.questions[query.question] ? Number(query.question) : Math.max(0, asked);
    return {
      judge: judge,
      site: about.sites[oneOf(about.sites, query.site, best.site)],
      pair: pair >= 0 ? pair : example ? example[0] : 0,
      example: example,
      question: question,
      direction: oneOf(names, query.direction, best.direction || (effect && effect.name)),
      control: control ? oneOf(names, query.control, control.name) : -1,
      layer: oneOf(about.layers, query.layer, best.layer === undefined ? about.layers[Math.floor(about.layers.length / 2)] : best.layer),
      strength: oneOf(about.strengths, query.strength, best.strength === undefined ? about.strengths[about.strengths.length - 1] : best.strength),
    };
  }

  /* ---- answers ---- */

  function read(shard) {
    var rows = {
      layer: L.numbers(shard.layer),
      edit: L.numbers(shard.edit),
      direction: L.numbers(shard.direction),
      strength: L.numbers(shard.strength),
      p: L.numbers(shard.p_target),
      leftAlone: L.numbers(shard.left_alone),
      text: L.words(shard.text),
      error: L.words(shard.error),
      judged: shard.judged.map(function (one) {
        return { score: L.numbers(one.score), coherence: L.numbers(one.coherence), kept: L.numbers(one.kept), error: L.words(one.error) };
      }),
      plain: shard.plain,
      at: new Map(),
    };
    for (var i = 0; i < shard.n; i++) {
      rows.at.set([rows.edit[i], rows.direction[i], rows.layer[i], rows.strength[i]].join(" "), i);
    }
    rows.find = function (edit, direction, layer, strength) {
      var found = rows.at.get([edit, direction, layer, strength].join(" "));
      return found === undefined ? -1 : found;
    };
    return rows;
  }

  /* A verdict in words: {word, sign, kind}. Score: -1 the source, 0 neither, 1 the target. */
  function inWords(score, coherence, kept, pair, isClass) {
    var found;
    if (!isClass) {
      found = kept === 1 ? { word: "kept", sign: "=", kind: "kept" } : kept === 0 ? { word: "changed", sign: "≠", kind: "changed" } : null;
    } else if (score === null || score !== score) {
      found = null;
    } else if (score === 1) {
      found = { word: "turned to " + pair.target, sign: "●", kind: "turned" };
    } else if (score === -1) {
      found = { word: "still " + pair.source, sign: "○", kind: "still" };
    } else if (score === 0) {
      found = { word: "neither", sign: "–", kind: "neither" };
    } else {
      found = { word: (score > 0 ? "partly turned" : "partly " + pair.source) + " (" + L.number(score) + ")", sign: "◐", kind: "neither" };
    }
    if (found && coherence !== null && coherence === coherence && coherence < 0.5) {
      found.word += ", hardly a sentence (coherence " + L.number(coherence) + ")";
    }
    return found;
  }

  function verdict(view, row) {
    var judged = view.c.judge >= 0 ? view.rows.judged[view.c.judge] : null;
    return judged && row >= 0 ? inWords(judged.score[row], judged.coherence[row], judged.kept[row], view.pair, view.isClass) : null;
  }

  function mark(found) {
    return found ? el("span", { class: "verdict " + found.kind }, el("span", { "aria-hidden": "true" }, found.sign + " "), found.word) : null;
  }

  function answer(view, row, short) {
    var error = row < 0 ? "not run" : view.rows.error.at(row) || "none";
    var text = row < 0 ? null : view.rows.text.at(row);
    if (text === null) {
      return short ? el("span", { class: "quiet", title: error.slice(0, 300) }, "no result") : el("span", { class: "quiet" }, "no result: ", L.text(error, 200));
    }
    return text.trim() ? L.text(text, 200) : el("span", { class: "quiet" }, "(empty)");
  }

  function add(view, direction, layer, strength) {
    return view.rows.find(view.about.edits.indexOf("add"), direction, view.about.layers[layer], strength);
  }

  /* ---- the cell that is looked at ---- */

  function strengthName(about, at) {
    return short(about.strengths[at]) + " × " + about.unit.replace(/^of /, "");
  }

  function beside(view) {
    var c = view.c;
    var order = view.about.directions
      .map(function (one, i) { return i; })
      .filter(function (i) { return add(view, i, c.layer, c.strength) >= 0; });
    order.sort(function (a, b) {
      var of = view.about.directions;
      return (b === c.direction) - (a === c.direction) || of[a].control - of[b].control || a - b;
    });
    var plain = view.rows.plain;
    var before = plain && c.judge >= 0 ? inWords(plain.judged[c.judge].score, plain.judged[c.judge].coherence, null, view.pair, view.isClass) : null;
    var lines = [["no edit", "", plain && plain.text !== null ? L.text(plain.text, 400) : el("span", { class: "quiet" }, "no answer"), mark(before) || "–", plain ? L.number(plain.p_target) : "–", ""]];
    order.forEach(function (i) {
      var row = add(view, i, c.layer, c.strength);
      lines.push([
        i === c.direction ? el("strong", {}, L.spoken(view.about.directions[i].name)) : L.spoken(view.about.directions[i].name),
        view.about.directions[i].control ? "control" : "",
        answer(view, row),
        mark(verdict(view, row)) || "–",
        L.number(view.rows.p[row]),
        view.rows.leftAlone[row] || "",
      ]);
    });
    return [
      L.table(
        "Layer " + view.about.layers[c.layer] + ", strength " + strengthName(view.about, c.strength) + ": all directions have the same norm there.",
        [{ label: "direction" }, { label: "kind" }, { label: "answer" }, { label: "verdict" }, { label: "p(target)", n: true }, { label: "sinks left alone", n: true }],
        lines
      ),
      order.length ? null : el("p", { class: "quiet" }, "Nothing was added at this layer and strength."),
    ];
  }

  function matrix(view, direction, name, choose) {
    var about = view.about;
    function press(layer, strength, focus) {
      choose({ layer: layer, strength: strength, direction: name === "effect" ? direction : view.c.direction });
      if (focus) {
        var place = view.place.querySelector('[data-cell="' + name + " " + layer + " " + strength + '"]');
        if (place) {
          place.focus();
        }
      }
    }
    function cell(layer, strength) {
      var row = add(view, direction, layer, strength);
      var here = layer === view.c.layer && strength === view.c.strength;
      var found = verdict(view, row);
      var button = el(
        "button",
        {
          type: "button",
          class: "cell " + (found ? found.kind : ""),
          "aria-pressed": String(here),
          tabindex: here ? 0 : -1,
          "data-cell": name + " " + layer + " " + strength,
        },
        answer(view, row, true),
        mark(found)
      );
      button.addEventListener("click", function () { press(layer, strength, true); });
      button.addEventListener("keydown", function (event) {
        var step = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key];
        if (step && about.layers[layer + step[0]] !== undefined && about.strengths[strength + step[1]] !== undefined) {
          event.preventDefault();
          press(layer + step[0], strength + step[1], true);
        }
      });
      return el("td", {}, button);
    }
    var caption = L.spoken(about.directions[direction].name) + (about.directions[direction].control ? " (control)" : "") + ": answers by layer (down) and strength (across)";
    return L.scrolling(
      caption,
      el(
        "table",
        { class: "answers" },
        el("caption", {}, caption),
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "layer"), about.strengths.map(function (one) { return el("th", { scope: "col" }, "× " + short(one)); }))),
        el("tbody", {}, about.layers.map(function (layer, i) {
          return el("tr", {}, el("th", { scope: "row" }, String(layer)), about.strengths.map(function (_, j) { return cell(i, j); }));
        }))
      )
    );
  }

  function others(view) {
    var about = view.about;
    var rows = [];
    about.edits.forEach(function (edit, e) {
      if (edit === "add" || edit === "none") {
        return;
      }
      [NONE].concat(about.directions.map(function (_, i) { return i; })).forEach(function (direction) {
        var row = view.rows.find(e, direction, about.layers[view.c.layer], NONE);
        if (row >= 0) {
          rows.push([edit, direction === NONE ? "" : (about.directions[direction].control ? "control: " : "") + L.spoken(about.directions[direction].name), answer(view, row), mark(verdict(view, row)) || "–", L.number(view.rows.p[row])]);
        }
      });
    });
    return rows.length
      ? L.table("Other edits at layer " + about.layers[view.c.layer] + ", each above its control", [{ label: "edit" }, { label: "kind" }, { label: "answer" }, { label: "verdict" }, { label: "p(target)", n: true }], rows)
      : el("p", { class: "quiet" }, "No other edit was run at this layer and site.");
  }

  /* ---- choices ---- */

  function slider(label, values, at, name, changed) {
    var output = el("output", {}, name(at));
    var input = el("input", { type: "range", min: 0, max: Math.max(0, values.length - 1), step: 1, value: at, disabled: values.length < 2, "aria-valuetext": name(at) });
    input.addEventListener("input", function () { changed(Number(input.value)); });
    return {
      element: el("label", { class: "slider" }, el("span", {}, label, " ", output), input),
      set: function (to) {
        input.value = to;
        input.setAttribute("aria-valuetext", name(to));
        output.textContent = name(to);
      },
    };
  }

  function directionChoice(label, about, at, changed) {
    var select = el("select", {}, about.directions.map(function (one, i) {
      return el("option", { value: i, selected: i === at }, L.spoken(one.name) + (one.control ? " (control)" : ""));
    }));
    select.addEventListener("change", function () { changed(Number(select.value)); });
    return { element: el("label", {}, label, select), set: function (to) { select.value = to; } };
  }

  function pairChoice(about, at) {
    var select = el("select", {}, about.pairs.map(function (one, i) { return el("option", { value: i, selected: i === at }, one.source + " → " + one.target); }));
    select.addEventListener("change", function () {
      var here = L.where();
      var one = about.pairs[select.value];
      location.hash = L.href(here.name, Object.assign({}, here.query, { source: one.source, target: one.target, sample: "" }));
    });
    return el("label", {}, "Pair: from → to", select);
  }

  function choices(site, artefact, about, c, samples, sample) {
    return el(
      "div",
      { class: "controls" },
      L.choice("Result", "of", L.results(site, "steer").map(function (one) { return { value: one.key, label: one.name }; }), artefact.key),
      L.choice("Judge", "judge", about.judges.map(function (one) { return { value: one.name, label: one.name }; }), c.judge >= 0 ? about.judges[c.judge].name : ""),
      L.choice("Where the edit acts", "site", about.sites.map(function (one) { return { value: one, label: SITES[one] || one }; }), c.site),
      pairChoice(about, c.pair),
      L.choice("Image", "sample", samples.map(function (one, i) { return { value: one.name, label: i + 1 + ": " + one.name }; }), samples[sample].name),
      L.choice("Question", "question", about.questions.map(function (one, i) { return { value: i, label: one.about + ": " + one.prompt.replace("<image>", "").trim() }; }), c.question)
    );
  }

  function subject(view, sample) {
    var about = view.about;
    var plain = view.rows.plain;
    var link = function (value) { return el("a", { href: L.href("class", { attribute: "class", value: value }) }, L.text(value)); };
    return el(
      "div",
      { class: "subject" },
      sample.picture ? el("a", { href: L.href("image", { sample: sample.name }), "aria-label": "the image " + sample.name }, L.heatmap(sample.picture, [], 0)) : null,
      L.facts([
        ["image", el("a", { href: L.href("image", { sample: sample.name }) }, L.text(sample.name, 80))],
        ["its class", link(view.pair.source)],
        ["edits lead to", link(view.pair.target)],
        ["question", L.text(about.questions[view.c.question].prompt.replace("<image>", "").trim())],
        ["answer without an edit", plain && plain.text !== null ? el("strong", {}, L.text(plain.text)) : "none"],
        ["p(target) without an edit", plain ? L.number(plain.p_target) : null],
      ])
    );
  }

  /* What the judge's verdicts come to, and the way to the cell that is the best trade. */
  function finding(artefact, about, c) {
    var judge = c.judge >= 0 ? about.judges[c.judge] : null;
    var best = judge && judge.best;
    var goes = best && { site: best.site, layer: best.layer, direction: best.direction, strength: short(best.strength) };
    var said = judge && judge.headline.length ? judge.headline : artefact.headline;
    return [
      said.length ? el("p", { class: "headline" }, L.text(said.join(" "), 2000)) : null,
      best
        ? el("p", {}, "Show the best trade: ", el("a", { href: L.href("steering", Object.assign({}, L.where().query, goes)) }, (SITES[best.site] || best.site) + ", layer " + best.layer + ", " + L.spoken(best.direction) + " × " + short(best.strength)))
        : null,
      about.counts.n_done === undefined ? null : el("p", { class: "quiet" }, L.number(about.counts.n_done) + " edited runs, " + L.number(about.counts.n_failed || 0) + " failed."),
    ];
  }

  L.page("steering", {
    title: "Steering",
    show: function (container, query, site) {
      var artefact = L.ownResult(site, L.results(site, "steer"), query.of);
      if (!artefact) {
        L.absent(container, "Steering", "Nothing was steered in this workspace. jobs/steer.py does that.");
        return null;
      }
      return L.load(artefact.key).then(function (about) {
        if (!about.pairs.length || !about.sites.length) {
          L.append(container, [el("h1", {}, "Steering"), el("p", {}, "No edited run is there."), L.provenance(artefact)]);
          return null;
        }
        var c = chosen(about, query);
        return L.load(artefact.key + "/pair-" + c.pair).then(function (pair) {
          var named = pair.samples.findIndex(function (one) { return one.name === query.sample; });
          var at = named >= 0 ? named : c.example && c.example[0] === c.pair ? c.example[1] : 0;
          return L.load([artefact.key, c.pair, at, c.site + "-" + c.question].join("/")).then(function (shard) {
            var place = el("div", {});
            var view = { about: about, c: c, pair: about.pairs[c.pair], rows: read(shard), isClass: about.questions[c.question].about === "class", place: place };
            var figures = L.steeringFigures(artefact.key, about, c, pair.samples[at], query);
            var layers = slider("Layer", about.layers, c.layer, function (i) { return String(about.layers[i]); }, function (i) { choose({ layer: i }); });
            var strengths = about.strengths.length
              ? slider("Strength", about.strengths, c.strength, function (i) { return strengthName(about, i); }, function (i) { choose({ strength: i }); })
              : null;
            var direction = directionChoice("Direction", about, c.direction, function (i) { choose({ direction: i }); });
            var control = c.control >= 0 ? directionChoice("Beside it", about, c.control, function (i) { choose({ control: i }); }) : null;

            function choose(changes) {
              Object.assign(c, changes);
              L.remember({
                site: c.site,
                source: view.pair.source,
                target: view.pair.target,
                sample: pair.samples[at].name,
                layer: about.layers[c.layer],
                strength: about.strengths.length ? short(about.strengths[c.strength]) : "",
                direction: about.directions.length ? about.directions[c.direction].name : "",
                control: c.control >= 0 ? about.directions[c.control].name : "",
              });
              fill();
              figures.draw();
            }
            function fill() {
              layers.set(c.layer);
              direction.set(c.direction);
              if (strengths) {
                strengths.set(c.strength);
              }
              place.replaceChildren();
              L.append(place, [
                strengths ? el("div", { "aria-live": "polite" }, beside(view)) : null,
                strengths
                  ? el("div", { class: "pair" }, matrix(view, c.direction, "effect", choose), c.control >= 0 && c.control !== c.direction ? matrix(view, c.control, "control", choose) : null)
                  : el("p", { class: "quiet" }, "No direction was added."),
                el("h3", {}, "Other edits"),
                others(view),
              ]);
            }
            fill();
            L.append(container, [
              el("h1", {}, "Steering"),
              finding(artefact, about, c),
              choices(site, artefact, about, c, pair.samples, at),
              el("h2", {}, "One image, before and after"),
              subject(view, pair.samples[at]),
              el("div", { class: "controls" }, direction.element, control ? control.element : null, layers.element, strengths ? strengths.element : null),
              c.judge < 0 ? el("p", { class: "quiet" }, "No judge has read these answers yet: run jobs/steer.py again.") : null,
              place,
              figures.element,
              L.provenance(artefact),
            ]);
            return figures.draw();
          });
        });
      });
    },
  });
})();
