/* The explorer's core: data shards, elements, addresses and pages. Everything else in this folder builds on it.

   Shards are scripts that call LineOfSight.shard(name, value); LineOfSight.load(name) fetches one. Elements are built by
   LineOfSight.el, which takes texts as text: no data ever becomes markup. A page is registered by LineOfSight.page(name, {title,
   show}); its address is #/name?key=value. */
(function () {
  "use strict";

  var KEPT = 48; // shards kept in memory, the last ones used
  var ARRAYS = { f4: Float32Array, i4: Int32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array, i2: Int16Array };

  var waiting = new Map(); // name -> {promise, resolve, reject}
  var kept = new Map(); // name -> promise
  var pages = new Map();
  var LineOfSight = (window.LineOfSight = {});

  /* ---- data ---- */

  LineOfSight.shard = function (name, value) {
    var asked = waiting.get(name);
    if (asked) {
      asked.resolve(value);
    }
  };

  /* A promise of a shard's value. A shard that is missing rejects with a sentence. */
  LineOfSight.load = function (name) {
    var known = kept.get(name);
    if (known) {
      kept.delete(name); // to the end: it was used last
      kept.set(name, known);
      return known;
    }
    var promise = new Promise(function (resolve, reject) {
      waiting.set(name, { resolve: resolve, reject: reject });
      var script = document.createElement("script");
      script.src = "data/" + name.split("/").map(encodeURIComponent).join("/") + ".js";
      script.onload = function () {
        script.remove();
        if (waiting.delete(name)) {
          reject(new Error("The file data/" + name + ".js holds something else."));
        }
      };
      script.onerror = function () {
        script.remove();
        waiting.delete(name);
        kept.delete(name);
        reject(new Error("The file data/" + name + ".js is missing: make the site again."));
      };
      var settle = waiting.get(name);
      settle.resolve = function (value) {
        waiting.delete(name);
        resolve(value);
      };
      document.head.appendChild(script);
    });
    kept.set(name, promise);
    if (kept.size > KEPT) {
      kept.delete(kept.keys().next().value);
    }
    return promise;
  };

  /* A typed array from a column that linrep.explorer.site.shards.numbers wrote. */
  LineOfSight.numbers = function (column) {
    var raw = atob(column.data);
    var bytes = new Uint8Array(raw.length);
    for (var i = 0; i < raw.length; i++) {
      bytes[i] = raw.charCodeAt(i);
    }
    return new ARRAYS[column.kind](bytes.buffer);
  };

  /* Texts by row, from a column that linrep.explorer.site.shards.words wrote; null where there is none. */
  LineOfSight.words = function (column) {
    var rows = LineOfSight.numbers(column.rows);
    return {
      length: rows.length,
      texts: column.texts,
      rows: rows,
      at: function (i) {
        return rows[i] < 0 ? null : column.texts[rows[i]];
      },
    };
  };

  /* ---- elements ---- */

  var SVG = "http://www.w3.org/2000/svg";
  var SVG_TAGS = new Set(["svg", "g", "rect", "line", "path", "polyline", "polygon", "circle", "text", "title", "desc", "image"]);

  /* An element: el("a", {href: "#/x", class: "b", onclick: f}, "text", otherElement, [more], null). Texts become text nodes. */
  LineOfSight.el = function (tag, attributes) {
    var node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
    Object.keys(attributes || {}).forEach(function (name) {
      var value = attributes[name];
      if (value === null || value === undefined || value === false) {
        return;
      }
      if (name.startsWith("on")) {
        node.addEventListener(name.slice(2), value);
      } else if (name === "style") {
        Object.keys(value).forEach(function (key) {
          node.style.setProperty(key, value[key]);
        });
      } else {
        node.setAttribute(name, value === true ? "" : String(value));
      }
    });
    append(node, Array.prototype.slice.call(arguments, 2));
    return node;
  };

  /* What may be wider than a screen, in a box that scrolls: with a name, and reached by the keyboard. */
  LineOfSight.scrolling = function (label, content) {
    return LineOfSight.el("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label }, content);
  };

  function append(node, children) {
    children.forEach(function (child) {
      if (Array.isArray(child)) {
        append(node, child);
      } else if (child !== null && child !== undefined && child !== false) {
        node.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
      }
    });
  }
  LineOfSight.append = append;

  /* A text of the data: its writing direction ends where it ends; what is longer than `most` characters can be unfolded. */
  LineOfSight.text = function (value, most) {
    var el = LineOfSight.el;
    var text = String(value);
    most = most || 600;
    if (text.length <= most) {
      return el("bdi", {}, text);
    }
    var whole = el("bdi", {}, text.slice(0, most), "…");
    var more = el("button", { class: "more", type: "button" }, "all " + text.length.toLocaleString("en") + " characters");
    more.addEventListener("click", function () {
      whole.textContent = text.slice(0, 100000);
      more.remove();
    });
    return el("span", {}, whole, " ", more);
  };

  /* A number as people read it; a dash where there is none. */
  LineOfSight.number = function (value, digits) {
    if (value === null || value === undefined || value !== value) {
      return "–";
    }
    if (Number.isInteger(value) && digits === undefined) {
      return value.toLocaleString("en");
    }
    var size = Math.abs(value);
    if (size !== 0 && (size < 0.001 || size >= 1e6)) {
      return value.toExponential(1);
    }
    return value.toFixed(digits === undefined ? (size < 10 ? 2 : 1) : digits);
  };

  /* A number with its interval: .97 [.95, .99]. */
  LineOfSight.interval = function (value, low, high, digits) {
    var n = LineOfSight.number;
    var has = low !== null && low !== undefined && high !== null && high !== undefined;
    return n(value, digits) + (has ? " [" + n(low, digits) + ", " + n(high, digits) + "]" : "");
  };

  /* ---- addresses ---- */

  LineOfSight.href = function (name, query) {
    var parts = [];
    Object.keys(query || {}).forEach(function (key) {
      var value = query[key];
      if (value !== null && value !== undefined && value !== "" && value !== false) {
        parts.push(encodeURIComponent(key) + "=" + encodeURIComponent(value === true ? "1" : value));
      }
    });
    return "#/" + name + (parts.length ? "?" + parts.join("&") : "");
  };

  LineOfSight.where = function () {
    var match = /^#\/([a-z-]*)(?:\?(.*))?$/.exec(location.hash) || [];
    var query = {};
    (match[2] || "").split("&").forEach(function (part) {
      if (part) {
        var at = part.indexOf("=");
        try {
          query[decodeURIComponent(at < 0 ? part : part.slice(0, at))] = at < 0 ? "" : decodeURIComponent(part.slice(at + 1));
        } catch (error) {
          // half an escape: an address that was cut off
        }
      }
    });
    return { name: match[1] || "overview", query: query };
  };

  /* Change what a person chose in the address, without a new page: a copied address gives the same view. */
  LineOfSight.remember = function (changes) {
    var here = LineOfSight.where();
    var query = Object.assign({}, here.query, changes);
    history.replaceState(null, "", LineOfSight.href(here.name, query));
    shown = location.hash;
  };

  /* ---- pages ---- */

  /* show(container, query, site) fills a container, or gives a promise; title is a text or a function of the query. */
  LineOfSight.page = function (name, page) {
    pages.set(name, page);
  };

  var shown = null;
  var turn = 0;

  function show(site) {
    if (location.hash === shown) {
      return;
    }
    shown = location.hash;
    var here = LineOfSight.where();
    var page = pages.get(here.name);
    var main = document.getElementById("main");
    var container = LineOfSight.el("div", { class: "page page-" + here.name });
    var mine = ++turn;
    main.setAttribute("aria-busy", "true");
    document.querySelectorAll("nav a").forEach(function (link) {
      var isHere = link.getAttribute("data-page") === (page && page.under ? page.under : here.name);
      link.toggleAttribute("aria-current", isHere);
      if (isHere) {
        link.setAttribute("aria-current", "page");
      }
    });
    var title = page ? (typeof page.title === "function" ? page.title(here.query, site) : page.title) : "No such page";
    document.title = title + " · " + site.title;
    Promise.resolve()
      .then(function () {
        if (!page) {
          LineOfSight.append(container, [LineOfSight.el("h1", {}, "No such page"), LineOfSight.el("p", {}, "The address names a page that this site lacks.")]);
          return null;
        }
        return page.show(container, here.query, site);
      })
      .catch(function (error) {
        LineOfSight.append(container, [LineOfSight.el("p", { class: "trouble", role: "alert" }, error.message)]);
      })
      .then(function () {
        if (mine === turn) {
          main.replaceChildren(container);
          main.setAttribute("aria-busy", "false");
          window.scrollTo(0, 0);
          if (mine > 1) {
            main.focus({ preventScroll: true });
          }
          container.dispatchEvent(new Event("placed"));
        }
      });
  }

  /* Fill the frame of the page from the site's own shard, then show what the address names. */
  LineOfSight.start = function () {
    LineOfSight.load("site").then(
      function (site) {
        LineOfSight.site = site;
        var nav = document.querySelector("nav ul");
        site.nav.forEach(function (item) {
          nav.appendChild(
            LineOfSight.el("li", {}, LineOfSight.el("a", { href: LineOfSight.href(item.page), "data-page": item.page }, item.label))
          );
        });
        document.getElementById("name").textContent = site.title;
        window.addEventListener("hashchange", function () {
          show(site);
        });
        show(site);
      },
      function (error) {
        document.getElementById("main").textContent = error.message;
      }
    );
  };
})();
