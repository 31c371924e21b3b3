/* Charts as inline SVG: curves with intervals, controls grey and dashed, and bars. Each has its numbers in a table below it.

   LineOfSight.chart({title, xLabel, yLabel, series, yRange, xLog, yLog, reference, marks}) -> element
     series: [{label, x, y, low, high, control, colour}]; null leaves a gap. reference: {y, label}. marks: [{x, label}].
   LineOfSight.bars({title, yLabel, groups, series}) -> element
     groups: texts; series: [{label, values, control, colour}]. */
(function () {
  "use strict";
  var L = LineOfSight;
  var WIDTH = 620; // narrower on a narrow screen, where a chart of this width would shrink until nobody can read it
  var HEIGHT = 300;
  var LEFT = 54;
  var RIGHT = 140;
  var TOP = 12;
  var BOTTOM = 44;

  function fit() {
    var narrow = window.innerWidth <= 520;
    WIDTH = narrow ? 380 : 620;
    HEIGHT = narrow ? 260 : 300;
    RIGHT = narrow ? 124 : 140;
  }

  function isNumber(value) {
    return value !== null && value !== undefined && value === value && Math.abs(value) !== Infinity;
  }

  function extent(values) {
    var low = Infinity;
    var high = -Infinity;
    values.forEach(function (value) {
      if (isNumber(value)) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    });
    if (low > high) {
      return [0, 1];
    }
    return low === high ? [low - Math.abs(low || 1) * 0.1, high + Math.abs(high || 1) * 0.1] : [low, high];
  }

  /* About five round numbers that cover a range. */
  function ticks(low, high, most) {
    var raw = (high - low) / (most || 5);
    var power = Math.pow(10, Math.floor(Math.log10(raw)));
    var step = [1, 2, 5, 10].find(function (factor) {
      return factor * power >= raw;
    });
    step = step * power;
    var found = [];
    for (var i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
      found.push(Number((i * step).toPrecision(12)));
    }
    return found;
  }

  function short(value) {
    var size = Math.abs(value);
    if (value !== 0 && (size >= 10000 || size < 0.001)) {
      return value.toExponential(0);
    }
    return String(Number(value.toPrecision(3)));
  }

  function frame(spec, x, y, xTicks, yTicks, xText) {
    var el = L.el;
    return [
      yTicks.map(function (value) {
        return [
          el("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
          el("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)),
        ];
      }),
      xTicks.map(function (value) {
        return el("text", { x: x(value), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, xText(value));
      }),
      el("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, spec.xLabel || ""),
      el(
        "text",
        { x: 12, y: (TOP + HEIGHT - BOTTOM) / 2, "text-anchor": "middle", transform: "rotate(-90 12 " + (TOP + HEIGHT - BOTTOM) / 2 + ")" },
        spec.yLabel || ""
      ),
    ];
  }

  function put(spec, parts, rows, heads) {
    var el = L.el;
    var svg = el("svg", { class: "chart", viewBox: "0 0 " + WIDTH + " " + HEIGHT, role: "img", "aria-label": spec.title || spec.yLabel }, parts);
    var table = L.scrolling(
      (spec.title || spec.yLabel || "chart") + ": the numbers",
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, heads.map(function (head) { return el("th", { scope: "col" }, head); }))),
        el("tbody", {}, rows.map(function (row) {
          return el("tr", {}, row.map(function (cell, at) { return el(at ? "td" : "th", at ? { class: "n" } : { scope: "row" }, cell); }));
        }))
      )
    );
    return el(
      "figure",
      {},
      spec.title ? el("figcaption", {}, spec.title) : null,
      svg,
      el("details", {}, el("summary", {}, "the numbers"), table)
    );
  }

  L.chart = function (spec) {
    var el = L.el;
    fit();
    /* A logarithmic axis has no place for zero: such a point is left out. */
    var isPlaced = spec.yLog ? function (value) { return isNumber(value) && value > 0; } : isNumber;
    var toY = spec.yLog ? Math.log10 : function (value) { return value; };
    var series = spec.series.filter(function (one) {
      return one.y.some(isPlaced);
    });
    var all = [];
    var across = [];
    series.forEach(function (one) {
      all = all.concat(one.y, one.low || [], one.high || []);
      across = across.concat(one.x);
    });
    if (spec.reference) {
      all.push(spec.reference.y);
    }
    if (!series.length) {
      return el("p", { class: "quiet" }, "Nothing to draw.");
    }
    var log = spec.xLog && across.every(function (value) { return value > 0; });
    var toX = log ? Math.log10 : function (value) { return value; };
    var xr = extent(across.map(toX));
    var yr = spec.yRange || extent(all.filter(isPlaced).map(toY));
    if (!spec.yRange) {
      var pad = (yr[1] - yr[0]) * 0.06;
      yr = [yr[0] - pad, yr[1] + pad];
    }
    function x(value) {
      return LEFT + ((toX(value) - xr[0]) / (xr[1] - xr[0])) * (WIDTH - LEFT - RIGHT);
    }
    function y(value) {
      return HEIGHT - BOTTOM - ((toY(value) - yr[0]) / (yr[1] - yr[0])) * (HEIGHT - TOP - BOTTOM);
    }
    var yTicks = ticks(yr[0], yr[1]);
    if (spec.yLog) {
      yTicks = yTicks.map(function (power) { return Number(Math.pow(10, power).toPrecision(1)); });
    }
    var points = Array.from(new Set(across)).sort(function (a, b) { return a - b; });
    var xTicks = points.length <= 9 ? points : log ? points.filter(function (_, i) { return i % Math.ceil(points.length / 8) === 0; }) : ticks(xr[0], xr[1], 6);
    var parts = frame(spec, x, y, xTicks, yTicks, short);
    if (spec.reference) {
      parts.push(el("line", { class: "curve control", x1: LEFT, x2: WIDTH - RIGHT, y1: y(spec.reference.y), y2: y(spec.reference.y) }));
    }
    var ends = spec.reference ? [{ y: y(spec.reference.y), label: spec.reference.label, tint: "control-fill" }] : [];
    var colour = 0;
    series.forEach(function (one) {
      var tint = one.control ? "control" : "s" + ((one.colour === undefined ? colour++ : one.colour) % 8);
      if (one.low && one.high) {
        var up = [];
        var down = [];
        one.x.forEach(function (value, i) {
          if (isPlaced(one.low[i]) && isPlaced(one.high[i])) {
            up.push(x(value) + "," + y(one.high[i]));
            down.unshift(x(value) + "," + y(one.low[i]));
          }
        });
        if (up.length > 1) {
          parts.push(el("polygon", { class: "band", points: up.concat(down).join(" ") }));
        } else if (up.length) {
          var both = [up[0].split(","), down[0].split(",")];
          parts.push(el("line", { class: "curve " + tint, x1: both[0][0], x2: both[0][0], y1: both[0][1], y2: both[1][1] }));
        }
      }
      var run = [];
      var last = null;
      one.x.forEach(function (value, i) {
        if (!isPlaced(one.y[i])) {
          draw();
          return;
        }
        run.push(x(value) + "," + y(one.y[i]));
        last = [x(value), y(one.y[i])];
        var told = one.label + ", " + (spec.xLabel || "x") + " " + short(value) + ": " + L.interval(one.y[i], one.low && one.low[i], one.high && one.high[i]);
        parts.push(el("circle", { class: one.control ? "control-fill" : tint.replace("s", "f"), cx: x(value), cy: y(one.y[i]), r: 3.5 }, el("title", {}, told)));
      });
      draw();
      function draw() {
        if (run.length > 1) {
          parts.push(el("polyline", { class: "curve " + tint, points: run.join(" ") }));
        }
        run = [];
      }
      if (last) {
        ends.push({ y: last[1], label: one.label, tint: one.control ? "control-fill" : tint.replace("s", "f") });
      }
    });
    /* Labels at the ends of the curves, pushed apart where they would lie on each other. */
    ends.sort(function (a, b) { return a.y - b.y; });
    ends.forEach(function (end, i) {
      end.at = i ? Math.max(end.y, ends[i - 1].at + 14) : end.y;
    });
    var room = HEIGHT - BOTTOM + 4;
    ends.slice().reverse().forEach(function (end) {
      end.at = Math.min(end.at, room);
      room = end.at - 14;
    });
    var most = Math.floor((RIGHT - 18) / 6.9); // letters
    ends.forEach(function (end) {
      var at = end.at;
      parts.push(el("rect", { class: end.tint, x: WIDTH - RIGHT + 6, y: at - 4, width: 8, height: 8 }));
      parts.push(el("text", { x: WIDTH - RIGHT + 18, y: at + 4 }, end.label.length > most ? end.label.slice(0, most - 1) + "…" : end.label, el("title", {}, end.label)));
    });
    (spec.marks || []).forEach(function (mark) {
      parts.push(el("line", { class: "axis", x1: x(mark.x), x2: x(mark.x), y1: TOP, y2: HEIGHT - BOTTOM }, el("title", {}, mark.label)));
    });
    var rows = [];
    series.forEach(function (one) {
      one.x.forEach(function (value, i) {
        rows.push([one.label, short(value), L.interval(one.y[i], one.low && one.low[i], one.high && one.high[i])]);
      });
    });
    return put(spec, parts, rows, ["curve", spec.xLabel || "x", spec.yLabel || "y"]);
  };

  L.bars = function (spec) {
    var el = L.el;
    fit();
    var top = extent([0].concat.apply([0], spec.series.map(function (one) { return one.values; })));
    top = spec.yRange || [Math.min(0, top[0]), top[1]];
    function y(value) {
      return HEIGHT - BOTTOM - ((value - top[0]) / (top[1] - top[0] || 1)) * (HEIGHT - TOP - BOTTOM);
    }
    var room = (WIDTH - LEFT - RIGHT) / Math.max(1, spec.groups.length);
    var wide = Math.max(1, (room * 0.84) / spec.series.length);
    function x(group) {
      return LEFT + (group + 0.5) * room;
    }
    var every = Math.ceil(spec.groups.length / 10);
    var shown = spec.groups.map(function (_, i) { return i; }).filter(function (i) { return i % every === 0; });
    var parts = frame(spec, x, y, shown, ticks(top[0], top[1]), function (i) { return spec.groups[i]; });
    spec.series.forEach(function (one, s) {
      var tint = one.control ? "control-fill" : "f" + ((one.colour === undefined ? s : one.colour) % 8);
      one.values.forEach(function (value, i) {
        if (isNumber(value)) {
          var from = Math.min(y(value), y(0));
          parts.push(
            el(
              "rect",
              { class: tint, x: x(i) - room * 0.42 + s * wide, y: from, width: Math.max(0.5, wide - 0.5), height: Math.abs(y(value) - y(0)) },
              el("title", {}, one.label + ", " + spec.groups[i] + ": " + L.number(value))
            )
          );
        }
      });
      parts.push(el("rect", { class: tint, x: WIDTH - RIGHT + 8, y: TOP + 16 * s, width: 9, height: 9 }));
      parts.push(el("text", { x: WIDTH - RIGHT + 22, y: TOP + 16 * s + 9 }, one.label));
    });
    var rows = spec.groups.map(function (group, i) {
      return [group].concat(spec.series.map(function (one) { return L.number(one.values[i]); }));
    });
    return put(spec, parts, rows, [spec.xLabel || ""].concat(spec.series.map(function (one) { return one.label; })));
  };
})();
