/* Two SAEs, two layers or two recipes side by side: numbers with their differences, curves in one chart, and the best latents.

   The interval of a difference comes from both sides' own intervals, as linrep.stats.wilson.of_sum gives it (Zou & Donner, 2008). */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;
  var KINDS = { sae: "two SAEs", layer: "two layers", recipe: "two recipes" };

  /* ---- differences ---- */

  function isNumber(value) {
    return value !== null && value !== undefined && value === value;
  }

  /* Right minus left of {value, low, high}, with its interval where both have one, and what it says in words. */
  L.difference = function (left, right) {
    if (!isNumber(left.value) || !isNumber(right.value)) {
      return { value: NaN, low: NaN, high: NaN, words: "one side has no number" };
    }
    var d = right.value - left.value;
    if (![left.low, left.high, right.low, right.high].every(isNumber)) {
      return { value: d, low: NaN, high: NaN, words: d === 0 ? "equal" : "no interval: not decided" };
    }
    var low = d - Math.hypot(right.value - right.low, left.high - left.value);
    var high = d + Math.hypot(right.high - right.value, left.value - left.low);
    return { value: d, low: low, high: high, words: low > 0 ? "right is higher" : high < 0 ? "right is lower" : "no difference shown" };
  };

  function read(raw) {
    var table = L.columns(raw);
    return {
      n: table.n,
      curve: function (row) { return table.value(row, "curve"); },
      layer: table.number("layer"),
      at: table.number("at"),
      cell: function (row) {
        return row < 0 ? { value: null } : { value: table.number("value")[row], low: table.number("low")[row], high: table.number("high")[row], control: table.number("control")[row] };
      },
    };
  }

  /* Rows of two tables that have the same key: [{curve, layer, at, left, right}]; -1 where a side has none. */
  function aligned(left, right, leftTakes, rightTakes, key) {
    var found = new Map();
    function take(table, takes, side) {
      for (var i = 0; i < table.n; i++) {
        if (takes(i)) {
          var name = key(table, i);
          var one = found.get(name) || { curve: table.curve(i), layer: table.layer[i], at: table.at[i], left: -1, right: -1 };
          one[side] = i;
          found.set(name, one);
        }
      }
    }
    take(left, leftTakes, "left");
    take(right, rightTakes, "right");
    return Array.from(found.values());
  }

  /* ---- numbers side by side ---- */

  function sideBySide(container, view, rows, shown) {
    var n = rows.length;
    var columns = {};
    ["layer", "at", "left", "right", "difference", "low", "high", "controlLeft", "controlRight"].forEach(function (name) { columns[name] = new Float32Array(n); });
    var words = [];
    var decided = 0;
    var with_ = 0;
    rows.forEach(function (row, i) {
      var left = view.left.cell(row.left);
      var right = view.right.cell(row.right);
      var d = L.difference(left, right);
      columns.layer[i] = row.layer;
      columns.at[i] = row.at;
      columns.left[i] = isNumber(left.value) ? left.value : NaN;
      columns.right[i] = isNumber(right.value) ? right.value : NaN;
      columns.difference[i] = d.value;
      columns.low[i] = d.low;
      columns.high[i] = d.high;
      columns.controlLeft[i] = isNumber(left.control) ? left.control : NaN;
      columns.controlRight[i] = isNumber(right.control) ? right.control : NaN;
      words.push(d.words);
      with_ += isNumber(d.low) ? 1 : 0;
      decided += isNumber(d.low) && (d.low > 0 || d.high < 0) ? 1 : 0;
    });
    function has(name) {
      return columns[name].some(isNumber);
    }
    var count = el("p", { class: "quiet", role: "status" });
    var search = el("input", { type: "search", value: L.where().query.q || "", autocomplete: "off" });
    function test() {
      var wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      return function (row) {
        var text = (rows[row].curve + " " + words[row]).toLowerCase();
        return wanted.every(function (word) { return text.includes(word); });
      };
    }
    L.append(container, [
      el("p", {}, with_
        ? decided + " of " + with_ + " differences have an interval that leaves out 0; " + (n - with_) + " numbers have no interval on both sides, and nothing is said of those."
        : "No number here has an interval on both sides: nothing says whether any of these differences is more than chance."),
      el("p", { class: "quiet" }, "Intervals of differences take both sides as independent: of the same samples they are wider than they need be. Of twenty differences that are none, about one is shown as one."),
      el("form", { class: "controls", role: "search", onsubmit: function (event) { event.preventDefault(); } }, el("label", {}, "Only quantities with these words", search)),
      count,
    ]);
    var query = L.where().query;
    var side = function (name, which) {
      return { name: which, label: which, title: name, width: "9rem", number: columns[which], show: function (i) { var c = view[which].cell(rows[i][which]); return L.interval(c.value, known(c.low), known(c.high)); } };
    };
    var list = [{ name: "curve", label: "quantity", width: window.innerWidth <= 520 ? "12rem" : "25rem", text: function (i) { return rows[i].curve; } }];
    if (view.withLayer) {
      list.push({ name: "layer", label: "layer", width: "4.5rem", number: columns.layer });
    }
    if (has("at")) {
      list.push({ name: "at", label: "strength", width: "5.5rem", number: columns.at });
    }
    list.push(side(view.names[0], "left"), side(view.names[1], "right"));
    list.push({ name: "difference", label: "right − left", width: "10rem", number: columns.difference, show: function (i) { return L.interval(columns.difference[i], known(columns.low[i]), known(columns.high[i])); } });
    list.push({ name: "words", label: "in words", width: "13rem", text: function (i) { return words[i]; } });
    if (has("controlLeft")) {
      list.push({ name: "controlLeft", label: "control, left", width: "6.5rem", number: columns.controlLeft });
    }
    if (has("controlRight")) {
      list.push({ name: "controlRight", label: "control, right", width: "6.5rem", number: columns.controlRight });
    }
    var box = el("div", { class: "wide" });
    L.append(container, [box]);
    var grid = L.grid(box, {
      label: "Numbers side by side",
      n: n,
      sort: query.sort || "curve",
      descending: query.descending === "1",
      filter: test(),
      open: shown ? function (i) { shown(rows[i]); } : null,
      changed: function (state) { L.remember({ sort: state.sort, descending: state.descending ? "1" : "" }); },
      columns: list,
    });
    function say(shown) {
      count.textContent = shown.toLocaleString("en") + " of " + n.toLocaleString("en") + " rows";
    }
    say(grid.rows().length);
    search.addEventListener("input", function () {
      L.remember({ q: search.value });
      say(grid.refresh(test()));
    });
    container.addEventListener("placed", grid.draw);
  }

  function known(value) {
    return isNumber(value) ? value : null;
  }

  /* ---- curves of both ---- */

  function points(table, takes, along, label, colour) {
    var own = [];
    for (var i = 0; i < table.n; i++) {
      if (takes(i)) {
        own.push(Object.assign({ x: along(i) }, table.cell(i)));
      }
    }
    own.sort(function (a, b) { return a.x - b.x; });
    var take = function (name) { return own.map(function (one) { return known(one[name]); }); };
    var series = [{ label: label, x: take("x"), y: take("value"), low: take("low"), high: take("high"), colour: colour }];
    if (own.some(function (one) { return isNumber(one.control); })) {
      series.push({ label: label + ", control", x: take("x"), y: take("control"), control: true });
    }
    return series;
  }

  function same(a, b) {
    return a === b || (a !== a && b !== b);
  }

  /* The curve of a row: over layers of both recipes; of two layers over strengths, or over all layers with the two marked. */
  function curves(view, row) {
    function over(table) {
      return function (i) { return table.curve(i) === row.curve && same(table.at[i], row.at); };
    }
    if (view.what === "recipe") {
      return L.chart({
        title: row.curve + (isNumber(row.at) ? ", strength " + L.number(row.at) : ""),
        xLabel: "layer", yLabel: "value",
        series: points(view.left, over(view.left), function (i) { return view.left.layer[i]; }, view.names[0], 0).concat(points(view.right, over(view.right), function (i) { return view.right.layer[i]; }, view.names[1], 1)),
      });
    }
    if (isNumber(row.at)) {
      var at = function (layer) { return function (i) { return view.left.curve(i) === row.curve && view.left.layer[i] === layer; }; };
      var along = function (i) { return view.left.at[i]; };
      return L.chart({ title: row.curve, xLabel: "strength", yLabel: "value", series: points(view.left, at(view.layers[0]), along, view.names[0], 0).concat(points(view.left, at(view.layers[1]), along, view.names[1], 1)) });
    }
    return L.chart({
      title: row.curve + ", all layers; the two are marked",
      xLabel: "layer", yLabel: "value",
      series: points(view.left, over(view.left), function (i) { return view.left.layer[i]; }, "value", 0),
      marks: view.layers.map(function (layer) { return { x: layer, label: "layer " + layer }; }),
    });
  }

  /* A chart of the row that the address names or that a person opens in the table below it. */
  function withCurve(container, view, rows) {
    var query = L.where().query;
    var both = rows.filter(function (row) { return row.left >= 0 && row.right >= 0; });
    var first = both.find(function (row) { return row.curve === query.curve && (!query.at || String(row.at) === query.at); }) || both.find(function (row) { return isNumber(view.left.cell(row.left).low); }) || both[0];
    if (!first) {
      L.append(container, [el("p", {}, "Both have results of this stage, but no quantity in common.")]);
      return null;
    }
    var place = el("div", { "aria-live": "polite" }, curves(view, first));
    L.append(container, [place, el("p", { class: "quiet" }, "Click a row of the table, or press Enter on it, to draw its curve.")]);
    return function (row) {
      L.remember({ curve: row.curve, at: isNumber(row.at) ? row.at : "" });
      place.replaceChildren(curves(view, row));
      place.scrollIntoView({ block: "nearest" });
    };
  }

  /* ---- the three kinds ---- */

  function pick(label, key, options, value) {
    return L.choice(label, key, options, value);
  }

  function swap(query, left, right) {
    return el("a", { href: L.href("compare", Object.assign({}, query, { left: right, right: left })) }, "swap left and right");
  }

  function stages(index, left, right) {
    return left.stages
      .map(function (one) { return { left: one, right: right.stages.find(function (other) { return other.stage === one.stage; }) }; })
      .filter(function (pair) { return pair.right; });
  }

  function headlines(names, pairs) {
    return el("div", { class: "pair" }, [0, 1].map(function (side) {
      return el("section", { class: "card" }, el("h2", {}, (side ? "Right: " : "Left: "), L.text(names[side])), pairs.map(function (pair) {
        var one = side ? pair.right : pair.left;
        return el("p", {}, el("strong", {}, one.stage + ": "), L.text(one.headline.join(" ") || "no headline", 2000), " ", el("a", { href: L.href("provenance", { of: one.key }) }, "where it comes from"));
      }));
    }));
  }

  function stageTable(container, pair, view, leftTakes, rightTakes, key) {
    return Promise.all([L.load(pair.left.shard), L.load(pair.right.shard)]).then(function (raw) {
      view.left = read(raw[0]);
      view.right = raw[0] === raw[1] ? view.left : read(raw[1]);
      var rows = aligned(view.left, view.right, leftTakes(view.left), rightTakes(view.right), key);
      if (!rows.length) {
        L.append(container, [el("p", {}, "This stage has no number at what is compared.")]);
        return;
      }
      var shown = withCurve(container, view, rows);
      sideBySide(container, view, rows, shown);
    });
  }

  function recipes(container, index, query) {
    if (!index.recipes.length) {
      L.append(container, [el("p", {}, "This workspace has no recipe with results yet.")]);
      return null;
    }
    var options = index.recipes.map(function (one) { return { value: one.key, label: one.key }; });
    var at = function (key, otherwise) { return index.recipes.find(function (one) { return one.key === query[key]; }) || index.recipes[otherwise]; };
    var left = at("left", 0);
    var right = at("right", index.recipes.length > 1 ? 1 : 0);
    var pairs = stages(index, left, right);
    var pair = pairs.find(function (one) { return one.left.stage === query.stage; }) || pairs.find(function (one) { return one.left.stage === "sae"; }) || pairs[0];
    var lone = function (own, other) { return own.stages.filter(function (one) { return !other.stages.some(function (also) { return also.stage === one.stage; }); }).map(function (one) { return one.stage; }); };
    L.append(container, [
      el("div", { class: "controls" }, pick("Left", "left", options, left.key), pick("Right", "right", options, right.key), pair ? pick("Stage", "stage", pairs.map(function (one) { return { value: one.left.stage, label: one.left.stage }; }), pair.left.stage) : null),
      index.recipes.length < 2 ? el("p", {}, "This workspace has one recipe: there is nothing to compare it with yet.") : el("p", {}, swap(query, left.key, right.key)),
      headlines([left.key, right.key], pairs),
      L.table("What was harvested", [{ label: "of the harvest" }, { label: "left" }, { label: "right" }], [
        ["model", L.text(left.model || "–"), L.text(right.model || "–")],
        ["layers", left.layers.join(", "), right.layers.join(", ")],
      ].concat(Object.keys(left.counts || {}).map(function (name) { return [L.spoken(name), L.number(left.counts[name]), L.number((right.counts || {})[name])]; }))),
      [[lone(left, right), "left"], [lone(right, left), "right"]].map(function (one) { return one[0].length ? el("p", { class: "quiet" }, "Only the " + one[1] + " one has: " + one[0].join(", ") + ".") : null; }),
    ]);
    if (!pair) {
      L.append(container, [el("p", {}, "No stage has results of both.")]);
      return null;
    }
    L.append(container, [el("h2", {}, "Stage " + pair.left.stage + ": numbers side by side")]);
    var all = function () { return function () { return true; }; };
    var apart = left.name !== right.name;
    var view = { what: "recipe", names: apart ? [left.name, right.name] : ["left", "right"], withLayer: true };
    return stageTable(container, pair, view, all, all, function (table, i) { return [table.curve(i), table.layer[i], table.at[i]].join("\n"); });
  }

  function layers(container, index, query) {
    var usable = index.recipes.filter(function (one) { return one.stages.length; });
    var recipe = usable.find(function (one) { return one.key === query.of; }) || usable[0];
    if (!recipe) {
      L.append(container, [el("p", {}, "No stage has numbers of layers yet.")]);
      return null;
    }
    var stage = recipe.stages.find(function (one) { return one.stage === query.stage; }) || recipe.stages[0];
    return L.load(stage.shard).then(function (raw) {
      var table = read(raw);
      var known = Array.from(new Set(table.layer)).sort(function (a, b) { return a - b; });
      var at = function (key, otherwise) { var found = known.find(function (one) { return String(one) === query[key]; }); return found === undefined ? otherwise : found; };
      var left = at("left", known[0]);
      var right = at("right", known[known.length - 1]);
      var options = known.map(function (one) { return { value: one, label: "layer " + one }; });
      L.append(container, [
        el(
          "div",
          { class: "controls" },
          pick("Recipe", "of", usable.map(function (one) { return { value: one.key, label: one.key }; }), recipe.key),
          pick("Left", "left", options, left),
          pick("Right", "right", options, right),
          pick("Stage", "stage", recipe.stages.map(function (one) { return { value: one.stage, label: one.stage }; }), stage.stage)
        ),
        known.length < 2 ? el("p", {}, "This stage has " + (known.length ? "one layer, " + known[0] : "no numbers by layer") + ": there is nothing to compare it with.") : el("p", {}, swap(query, left, right)),
        stage.headline.length ? el("p", { class: "headline" }, L.text(stage.headline.join(" "), 2000)) : null,
        el("h2", {}, "Stage " + stage.stage + ": layer " + left + " and layer " + right),
      ]);
      if (!known.length) {
        return null;
      }
      var view = { what: "layer", names: ["layer " + left, "layer " + right], layers: [left, right], withLayer: false };
      var of = function (layer) { return function (own) { return function (i) { return own.layer[i] === layer; }; }; };
      return stageTable(container, { left: stage, right: stage }, view, of(left), of(right), function (own, i) { return own.curve(i) + "\n" + own.at[i]; });
    });
  }

  L.page("compare", {
    title: "Compare",
    show: function (container, query) {
      return L.load("compare").then(function (index) {
        var what = KINDS[query.what] ? query.what : index.saes.length > 1 ? "sae" : "layer";
        var choice = el("select", {}, Object.keys(KINDS).map(function (one) { return el("option", { value: one, selected: one === what }, KINDS[one]); }));
        choice.addEventListener("change", function () { location.hash = L.href("compare", { what: choice.value }); });
        L.append(container, [el("h1", {}, "Compare " + KINDS[what]), el("div", { class: "controls" }, el("label", {}, "What", choice))]);
        return { sae: L.compareSaes, layer: layers, recipe: recipes }[what](container, index, query, { aligned: aligned, read: read, sideBySide: sideBySide, pick: pick, swap: swap });
      });
    },
  });
})();
