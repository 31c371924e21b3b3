/* A table of very many rows: sorted by an index array, filtered by a test for each row, and only the rows in sight are elements.

   LineOfSight.grid(container, {label, n, columns, sort, descending, filter, open, changed}) -> {refresh(filter), sorted()}
   A column: {name, label, title, width, number (a typed array) or text (function(row) -> text), show (function(row) -> text or element)}.
   Numbers that are NaN come last, whichever way the rows are sorted. */
(function () {
  "use strict";
  var L = LineOfSight;
  var ROW = 34; // pixels, as the sheet says
  var MORE = 8; // rows above and below those in sight

  L.grid = function (container, table) {
    var el = L.el;
    var n = table.n;
    var order = new Uint32Array(n); // rows as they are shown
    var length = 0;
    var state = { column: table.sort || table.columns[0].name, descending: Boolean(table.descending), filter: table.filter || null };
    var ranks = new Map(); // column -> rank of each row, for texts
    var focused = 0; // row of the order that the keyboard stands on
    var byName = new Map(
      table.columns.map(function (column) {
        return [column.name, column];
      })
    );
    if (!byName.has(state.column)) {
      state.column = table.columns[0].name;
    }

    var heads = table.columns.map(function (column) {
      var button = el("button", { type: "button", title: column.title || column.label });
      button.addEventListener("click", function () {
        sortBy(column.name, state.column === column.name ? !state.descending : Boolean(column.number));
      });
      return el("th", { scope: "col", class: column.number ? "n" : null, style: { width: column.width || "auto" } }, button);
    });
    var body = el("tbody", {});
    var view = el("table", { "aria-rowcount": n + 1 }, el("caption", { hidden: true }, table.label), el("thead", {}, el("tr", {}, heads)), body);
    var box = el("div", { class: "grid", role: "region", "aria-label": table.label, tabindex: 0 }, view);
    container.appendChild(box);

    function keys(column) {
      if (column.number) {
        return column.number;
      }
      var known = ranks.get(column.name);
      if (!known) {
        var texts = new Array(n);
        var rows = new Uint32Array(n);
        for (var i = 0; i < n; i++) {
          texts[i] = column.text(i) || "";
          rows[i] = i;
        }
        // Ranks of the texts that differ, so that rows are compared as numbers; nothing comes last.
        var sorted = Array.from(new Set(texts)).sort(function (a, b) {
          return a < b ? -1 : a > b ? 1 : 0;
        });
        var rank = new Map(
          sorted.map(function (text, at) {
            return [text, text === "" ? NaN : at];
          })
        );
        known = Float64Array.from(texts, function (text) {
          return rank.get(text);
        });
        ranks.set(column.name, known);
      }
      return known;
    }

    /* Rows by the bits of their keys: the float32 (or rank) as an unsigned number that sorts alike, then two passes of counting. */
    function sorted(column, descending) {
      var values = keys(column);
      var bits = new Uint32Array(Float32Array.from(values).buffer);
      for (var i = 0; i < n; i++) {
        var b = bits[i];
        if (values[i] !== values[i]) {
          bits[i] = 0xffffffff;
          continue;
        }
        b = b & 0x80000000 ? ~b >>> 0 : (b | 0x80000000) >>> 0;
        bits[i] = descending ? Math.min(~b >>> 0, 0xfffffffe) : b;
      }
      var from = new Uint32Array(n);
      for (i = 0; i < n; i++) {
        from[i] = i;
      }
      [0, 16].forEach(function (shift) {
        var counts = new Uint32Array(65537);
        for (var j = 0; j < n; j++) {
          counts[((bits[j] >>> shift) & 0xffff) + 1]++;
        }
        for (j = 0; j < 65536; j++) {
          counts[j + 1] += counts[j];
        }
        var to = new Uint32Array(n);
        for (j = 0; j < n; j++) {
          to[counts[(bits[from[j]] >>> shift) & 0xffff]++] = from[j];
        }
        from = to;
      });
      return from;
    }

    function arrange() {
      var all = sorted(byName.get(state.column), state.descending);
      length = 0;
      for (var i = 0; i < n; i++) {
        if (!state.filter || state.filter(all[i])) {
          order[length++] = all[i];
        }
      }
      heads.forEach(function (head, at) {
        var column = table.columns[at];
        var here = column.name === state.column;
        head.setAttribute("aria-sort", here ? (state.descending ? "descending" : "ascending") : "none");
        head.firstChild.textContent = column.label + (here ? (state.descending ? " ▾" : " ▴") : "");
      });
      view.setAttribute("aria-rowcount", length + 1);
    }

    function sortBy(name, descending) {
      state.column = name;
      state.descending = descending;
      arrange();
      box.scrollTop = 0;
      focused = 0;
      draw();
      if (table.changed) {
        table.changed({ sort: name, descending: descending, n: length });
      }
    }

    function space(rows) {
      return el("tr", { class: "space", "aria-hidden": "true" }, el("td", { colspan: table.columns.length, style: { height: rows * ROW + "px" } }));
    }

    function draw() {
      var first = Math.max(0, Math.floor(box.scrollTop / ROW) - MORE);
      var last = Math.min(length, Math.ceil((box.scrollTop + (box.clientHeight || 700)) / ROW) + MORE);
      var parts = [space(first)];
      for (var i = first; i < last; i++) {
        parts.push(line(i));
      }
      parts.push(space(length - last));
      var had = body.contains(document.activeElement);
      body.replaceChildren.apply(body, parts);
      if (had) {
        var row = body.querySelector('tr[data-at="' + focused + '"]');
        if (row) {
          row.focus({ preventScroll: true });
        }
      }
    }

    function line(at) {
      var row = order[at];
      var cells = table.columns.map(function (column) {
        var shown = column.show ? column.show(row) : column.number ? L.number(column.number[row]) : L.text(column.text(row) || "", 200);
        return el("td", { class: column.number ? "n" : null, title: column.text ? (column.text(row) || "").slice(0, 300) : null }, shown);
      });
      return el("tr", { "data-at": at, "data-row": row, "aria-rowindex": at + 2, tabindex: at === focused ? 0 : -1 }, cells);
    }

    function stand(at) {
      focused = Math.max(0, Math.min(length - 1, at));
      var top = focused * ROW;
      if (top < box.scrollTop) {
        box.scrollTop = top;
      } else if (top + ROW > box.scrollTop + box.clientHeight - ROW) {
        box.scrollTop = top - box.clientHeight + 2 * ROW;
      }
      draw();
      var row = body.querySelector('tr[data-at="' + focused + '"]');
      if (row) {
        row.focus({ preventScroll: true });
      }
    }

    box.addEventListener("keydown", function (event) {
      if (event.target.tagName === "BUTTON" || event.target.tagName === "A") {
        return;
      }
      var page = Math.max(1, Math.floor(box.clientHeight / ROW) - 2);
      var steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -n, End: n };
      if (event.key in steps) {
        event.preventDefault();
        stand(body.contains(document.activeElement) ? focused + steps[event.key] : focused);
      } else if (event.key === "Enter" && table.open && length) {
        table.open(order[focused]);
      }
    });
    body.addEventListener("click", function (event) {
      var row = event.target.closest("tr[data-row]");
      if (row && table.open && !event.target.closest("a,button")) {
        table.open(Number(row.getAttribute("data-row")));
      }
    });
    var due = false;
    box.addEventListener("scroll", function () {
      if (!due) {
        due = true;
        requestAnimationFrame(function () {
          due = false;
          draw();
        });
      }
    });

    arrange();
    draw();
    return {
      refresh: function (filter) {
        state.filter = filter;
        arrange();
        box.scrollTop = 0;
        focused = 0;
        draw();
        return length;
      },
      rows: function () {
        return order.subarray(0, length);
      },
      draw: draw,
    };
  };
})();
