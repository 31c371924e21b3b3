/* Choices that stand in the address, and tables of columns.

   LineOfSight.choices(query, fields, draw, prepare) -> {form, ready}
     fields: [{key, label, options(state) -> [{value, label}], first(state) -> value}]. A field's options may depend on those before it.
     prepare(state), where it is given, promises what the options of later fields need. draw(state, isNow) fills the page and may give
     a promise; isNow() says whether it is still what is asked for. `ready` is kept once the page is filled for the first time.
   LineOfSight.columns(raw) -> {n, has(name), value(row, name), number(name), text(name)}, of what linrep.explorer.site.columns wrote. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;

  L.choices = function (query, fields, draw, prepare) {
    var state = {};
    var turn = 0;
    var trouble = el("p", { class: "trouble", role: "alert", hidden: true });
    var form = el("form", { class: "controls", onsubmit: function (event) { event.preventDefault(); } });
    var selects = fields.map(function (field) {
      var select = el("select", { name: field.key });
      select.addEventListener("change", function () {
        var wanted = Object.assign({}, state);
        wanted[field.key] = select.value;
        again(wanted, true);
      });
      return select;
    });
    var labels = fields.map(function (field, i) { return el("label", {}, field.label, selects[i]); });
    L.append(form, [labels]);

    /* Every choice is one that there is, in view of those before it. */
    function settle(wanted) {
      fields.forEach(function (field, i) {
        var options = field.options(state);
        var has = function (value) {
          return options.some(function (option) { return String(option.value) === String(value); });
        };
        var value = wanted[field.key];
        if (value === undefined || !has(value)) {
          value = field.first ? field.first(state) : undefined;
        }
        if (!has(value)) {
          value = options.length ? options[0].value : "";
        }
        state[field.key] = String(value);
        labels[i].hidden = options.length < 2;
        selects[i].replaceChildren.apply(
          selects[i],
          options.map(function (option) {
            return el("option", { value: option.value, selected: String(option.value) === String(value) }, option.label);
          })
        );
      });
    }

    function again(wanted, remembered) {
      var mine = ++turn;
      function isNow() {
        return mine === turn;
      }
      settle(wanted);
      trouble.hidden = true;
      return Promise.resolve(prepare ? prepare(state) : null)
        .then(function () {
          if (!isNow()) {
            return null;
          }
          settle(wanted); // now that all options are known
          if (remembered) {
            L.remember(state);
          }
          return draw(Object.assign({}, state), isNow);
        })
        .catch(function (error) {
          trouble.textContent = error.message;
          trouble.hidden = false;
        });
    }

    return { form: el("div", {}, form, trouble), ready: again(query, false) };
  };

  L.columns = function (raw) {
    var known = {};
    Object.keys(raw.columns).forEach(function (name) {
      var column = raw.columns[name];
      known[name] = column.texts ? L.words(column) : L.numbers(column);
    });
    return {
      n: raw.n,
      names: Object.keys(known),
      has: function (name) { return name in known; },
      isText: function (name) { return typeof known[name].at === "function" && Boolean(known[name].texts); },
      number: function (name) { return known[name]; },
      value: function (row, name) {
        var column = known[name];
        if (column === undefined) {
          return null;
        }
        if (column.texts) {
          return column.at(row);
        }
        return column[row] === column[row] ? column[row] : null;
      },
      rows: function (test) {
        var found = [];
        for (var row = 0; row < raw.n; row++) {
          if (test(row)) {
            found.push(row);
          }
        }
        return found;
      },
      distinct: function (name, rows) {
        var own = this;
        var all = rows || own.rows(function () { return true; });
        return Array.from(new Set(all.map(function (row) { return own.value(row, name); }))).filter(function (value) { return value !== null; });
      },
    };
  };

  /* Several tables of the same columns as one, with texts that are the same in a whole table added: extra[i] = {name: text}. */
  L.stacked = function (tables, extra) {
    var starts = [];
    var n = 0;
    tables.forEach(function (table) {
      starts.push(n);
      n += table.n;
    });
    var of = new Uint16Array(n);
    tables.forEach(function (table, i) { of.fill(i, starts[i], starts[i] + table.n); });
    var added = Object.keys(extra[0] || {});
    var arrays = {};
    return {
      n: n,
      names: added.concat(tables[0].names),
      has: function (name) { return added.includes(name) || tables[0].has(name); },
      isText: function (name) { return added.includes(name) || tables[0].isText(name); },
      value: function (row, name) {
        return added.includes(name) ? extra[of[row]][name] : tables[of[row]].value(row - starts[of[row]], name);
      },
      number: function (name) {
        if (!arrays[name]) {
          arrays[name] = new Float64Array(n);
          tables.forEach(function (table, i) { arrays[name].set(table.number(name), starts[i]); });
        }
        return arrays[name];
      },
    };
  };

  /* A curve of a table: x and y by row, with the ends of the interval `y`_low and `y`_high where there are any. */
  L.curve = function (label, table, rows, x, y, more) {
    var named = typeof y === "string" ? [y, y + "_low", y + "_high"] : y;
    function values(name) {
      return name && table.has(name) ? rows.map(function (row) { return table.value(row, name); }) : null;
    }
    return Object.assign({ label: label, x: values(x), y: values(named[0]) || [], low: values(named[1]), high: values(named[2]) }, more || {});
  };

  /* A number as its column shows it: of fractions whole ones have digits, too. */
  function shown(table, name, whole) {
    var fractions = !whole && !(table.number(name) instanceof Int32Array);
    return function (row) {
      var value = table.value(row, name);
      return L.number(value, fractions && Number.isInteger(value) ? 2 : undefined);
    };
  }

  /* A grid of all columns of a table. options: {label, names, whole, labels, titles, widths, show, sort, descending, filter, changed};
     `whole` names columns of whole numbers that lack some. */
  L.gridOf = function (container, table, options) {
    return L.grid(container, {
      label: options.label,
      n: table.n,
      sort: options.sort,
      descending: options.descending,
      filter: options.filter,
      changed: options.changed,
      columns: options.names.map(function (name) {
        var isText = table.isText(name);
        var label = (options.labels && options.labels[name]) || name.replace(/_/g, " ");
        return {
          name: name,
          label: label,
          title: (options.titles && options.titles[name]) || label,
          width: (options.widths && options.widths[name]) || (isText ? "8rem" : Math.max(5, 2.6 + label.length * 0.55) + "rem"),
          number: isText ? undefined : table.number(name),
          text: isText ? function (row) { return table.value(row, name) || ""; } : undefined,
          show: options.show && options.show[name] ? options.show[name] : isText ? undefined : shown(table, name, (options.whole || []).includes(name)),
        };
      }),
    });
  };

  L.classLink = function (attribute, value) {
    return attribute === "modality"
      ? L.text(value, 80)
      : el("a", { href: L.href("class", { attribute: attribute, value: value }) }, L.text(value, 80));
  };

  /* A share with two digits, and with its interval: .97 [.95, .99]. */
  L.share = function (value, low, high) {
    function two(number) {
      return number === null || number === undefined || number !== number ? "–" : number.toFixed(2);
    }
    return two(value) + (low === null || low === undefined ? "" : " [" + two(low) + ", " + two(high) + "]");
  };

  /* A table with many columns: it scrolls sideways on a narrow screen, by keyboard, too. */
  L.wide = function (label, table) {
    table.firstChild.classList.add("wide");
    ["role", "aria-label", "tabindex"].forEach(function (name, i) { table.setAttribute(name, ["region", label, "0"][i]); });
    return table;
  };

  /* A share in percent, as cells of a matrix say it. */
  L.percent = function (share) {
    var value = 100 * share;
    return value > 0 && value < 1 ? "<1" : String(Math.round(value));
  };
})();
