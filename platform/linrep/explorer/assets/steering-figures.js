/* What steering comes to over all pairs: dose-response, layers, efficacy against damage, equal damage, other edits, the logit lens. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;
  var NONE = 255;
  var SHARES = /^(p_target|success|turned|left|coherence|kept_|answered)(?!.*(_gain|_over_[a-z]+)$)/;

  function read(shard) {
    var found = { plain: shard.plain, samples: L.numbers(shard.samples), n: shard.n };
    ["layer", "edit", "direction", "strength", "value", "low", "high"].forEach(function (name) { found[name] = L.numbers(shard[name]); });
    return found;
  }

  function known(value) {
    return value === value ? value : null;
  }

  /* Points of each direction: those rows that `where` takes, by `along`. */
  function series(about, effect, where, along, begin) {
    return about.directions.map(function (direction, d) {
      var points = [];
      if (begin) {
        points.push(begin);
      }
      for (var i = 0; i < effect.n; i++) {
        if (effect.direction[i] === d && where(i)) {
          points.push({ x: along(i), y: known(effect.value[i]), low: known(effect.low[i]), high: known(effect.high[i]) });
        }
      }
      points.sort(function (a, b) { return a.x - b.x; });
      return curve(L.spoken(direction.name), points.length > (begin ? 1 : 0) ? points : [], direction.control, d);
    });
  }

  function curve(label, points, control, colour) {
    var take = function (name) { return points.map(function (one) { return one[name]; }); };
    return { label: label, x: take("x"), y: take("y"), low: take("low"), high: take("high"), control: control, colour: colour };
  }

  function spanOf(measure) {
    return SHARES.test(measure) ? [0, 1.02] : null;
  }

  L.steeringFigures = function (key, about, c, sample, query) {
    var place = el("div", { class: "figures" });
    var judge = c.judge >= 0 ? about.judges[c.judge] : null;
    var measures = judge ? judge.measures : [];
    var measure = measures.indexOf(query.measure) >= 0 ? query.measure : ["success", "turned"].find(function (name) { return measures.indexOf(name) >= 0; }) || measures[0];
    var addition = about.edits.indexOf("add");
    var turn = 0;

    function effect(name) {
      var at = measures.indexOf(name);
      return at < 0 ? Promise.resolve(null) : L.load([key, "judge-" + c.judge, c.site + "-" + at].join("/")).then(read);
    }

    function layer() {
      return about.layers[c.layer];
    }

    function dose(found) {
      var plain = found.plain ? { x: 0, y: found.plain.value, low: found.plain.low, high: found.plain.high } : /damage|_gain|_over_/.test(measure) ? { x: 0, y: 0, low: null, high: null } : null;
      return L.chart({
        title: "Dose-response at layer " + layer() + ": " + L.spoken(measure) + " over strength, 95% intervals; controls grey and dashed; strength 0 is the unedited run",
        xLabel: "strength", yLabel: L.spoken(measure), yRange: spanOf(measure),
        series: series(about, found, function (i) { return found.edit[i] === addition && found.layer[i] === layer(); }, function (i) { return about.strengths[found.strength[i]]; }, plain),
      });
    }

    function layers(found) {
      return L.chart({
        title: "Over layers at strength " + Number(about.strengths[c.strength].toPrecision(4)) + ": " + L.spoken(measure),
        xLabel: "layer", yLabel: L.spoken(measure), yRange: spanOf(measure), marks: [{ x: layer(), label: "the layer chosen above" }],
        series: series(about, found, function (i) { return found.edit[i] === addition && found.strength[i] === c.strength; }, function (i) { return found.layer[i]; }, null),
      });
    }

    /* Efficacy against damage: a line a direction, a point a strength. */
    function trade(good, bad, name) {
      var harm = new Map();
      for (var i = 0; i < bad.n; i++) {
        harm.set([bad.edit[i], bad.layer[i], bad.direction[i], bad.strength[i]].join(" "), known(bad.value[i]));
      }
      var lines = about.directions.map(function (direction, d) {
        var points = good.plain ? [{ strength: -1, x: 0, y: good.plain.value }] : [];
        for (var i = 0; i < good.n; i++) {
          var x = harm.get([good.edit[i], good.layer[i], good.direction[i], good.strength[i]].join(" "));
          if (good.edit[i] === addition && good.layer[i] === layer() && good.direction[i] === d && x !== undefined && x !== null) {
            points.push({ strength: good.strength[i], x: x, y: known(good.value[i]) });
          }
        }
        points.sort(function (a, b) { return a.strength - b.strength; });
        var own = curve(L.spoken(direction.name), points.length > (good.plain ? 1 : 0) ? points : [], direction.control, d);
        own.low = own.high = null;
        return own;
      });
      return L.chart({
        title: "Effect against damage at layer " + layer() + ": further up and to the left is better; a line joins the strengths of a direction, controls grey",
        xLabel: "damage, nats a token", yLabel: L.spoken(name), yRange: spanOf(name), series: lines,
      });
    }

    function equal(matched) {
      var rows = (matched[c.site] || []).filter(function (row) { return row.layer === layer(); });
      if (!rows.length) {
        return null;
      }
      return L.table(
        "At equal damage (" + L.number(rows[0].damage) + " nats a token), layer " + layer() + ": probability of the target in the forced choice, 95% interval",
        [{ label: "direction" }, { label: "kind" }, { label: "p(target)", n: true }, { label: "strength there", n: true }, { label: "damage reached" }],
        rows.map(function (row) {
          return [L.spoken(row.direction), row.control ? "control" : "", L.interval(row.efficacy, row.low, row.high), L.number(row.strength), row.reached ? "yes" : "no: largest strength"];
        })
      );
    }

    function others(found, name) {
      var lines = [];
      about.edits.forEach(function (edit, e) {
        if (edit === "add" || edit === "none") {
          return;
        }
        [NONE].concat(about.directions.map(function (_, d) { return d; })).forEach(function (d) {
          var points = [];
          for (var i = 0; i < found.n; i++) {
            if (found.edit[i] === e && found.direction[i] === d) {
              points.push({ x: found.layer[i], y: known(found.value[i]), low: known(found.low[i]), high: known(found.high[i]) });
            }
          }
          if (points.length) {
            points.sort(function (a, b) { return a.x - b.x; });
            lines.push(curve(edit + (d === NONE ? "" : ", " + L.spoken(about.directions[d].name)), points, d !== NONE && about.directions[d].control, e));
          }
        });
      });
      return lines.length
        ? L.chart({ title: "Other edits over layers: " + L.spoken(name) + "; their controls grey", xLabel: "layer", yLabel: L.spoken(name), yRange: spanOf(name), series: lines })
        : null;
    }

    function lens() {
      if (!about.lens.length) {
        return null;
      }
      var own = sample.lens.filter(function (row) { return row.error === null; });
      var take = function (name) { return { x: own.map(function (row) { return row.layer; }), y: own.map(function (row) { return row[name]; }) }; };
      var names = about.lens.slice(0, 2).map(function (one) { return Object.assign({ colour: 0 }, one, { label: one.control ? "other classes" : "all images" }); });
      var share = [Object.assign({ colour: 0 }, about.lens[2], { label: "all images" })];
      if (own.length) {
        names.push(Object.assign({ label: "this image", colour: 1 }, take("p_class")));
        share.push(Object.assign({ label: "this image", colour: 1 }, take("top_class")));
      }
      return [
        el("h2", {}, "Logit lens on image tokens"),
        el("p", { class: "quiet" }, "What image tokens would say if each layer were the last: nothing is edited here."),
        el("div", { class: "pair" }, L.chart({ title: "Probability of the class's name, mean over the image tokens, 95% intervals", xLabel: "layer", yLabel: "probability", series: names }),
        L.chart({ title: "Share of the image tokens whose likeliest class is the right one", xLabel: "layer", yLabel: "share", yRange: [0, 1.02], reference: { y: 1 / Math.max(1, about.classes || 1), label: "chance" }, series: share })),
      ];
    }

    function choice() {
      var select = el("select", {}, measures.map(function (name) { return el("option", { value: name, selected: name === measure }, L.spoken(name)); }));
      select.addEventListener("change", function () {
        measure = select.value;
        L.remember({ measure: measure });
        draw();
      });
      return el("div", { class: "controls" }, el("label", {}, "Measure", select));
    }

    function draw() {
      var mine = ++turn;
      if (!judge) {
        L.append(place, turn === 1 ? lens() || [] : []);
        return Promise.resolve();
      }
      var efficacy = ["success", "turned"].find(function (name) { return measures.indexOf(name) >= 0; }) || "p_target";
      var rest = measures.indexOf("left") >= 0 ? "left" : "p_target";
      return Promise.all([effect(measure), effect(efficacy), effect("damage"), effect(rest), L.load(key + "/judge-" + c.judge + "/matched")]).then(function (all) {
        if (mine !== turn) {
          return;
        }
        shown.replaceChildren();
        L.append(shown, [
          all[0] && about.strengths.length ? [dose(all[0]), layers(all[0])] : null,
          all[1] && all[2] ? trade(all[1], all[2], efficacy) : el("p", { class: "quiet" }, "No damage was measured."),
          equal(all[4]),
          all[3] ? others(all[3], rest) : null,
        ]);
      });
    }

    var shown = el("div", { class: "pair" });
    if (judge) {
      L.append(place, [
        el("h2", {}, "Over all pairs and images"),
        el("p", { class: "quiet" }, "By " + judge.name + ". docs/steering.md says what the measures mean and what the intervals hold."),
        choice(),
        shown,
        Object.keys(judge.extra).map(function (name) {
          return el("p", { class: "quiet" }, L.text(name + ": " + JSON.stringify(judge.extra[name]), 400));
        }),
        lens(),
      ]);
    }
    return { element: place, draw: draw };
  };
})();
