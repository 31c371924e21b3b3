/* An image with its patches, and what is read in each: LineOfSight.picture(container, data, links).

   data: see linrep/explorer/picture.py for the shape.
   links: optional. latent(layer, sae, latent) gives the address of a latent's page, or null;
          changed({position, sae, latent, regions}) is called when a person chooses a patch, a word or a latent (null: none), or
          switches the outlines of regions on or off.
   Gives {choose(position), show(sae, latent), outline(on)}: what a person can do, for pages that keep their state in the address.

   Every text from the data is put on the page as text. Nothing here needs a network, or a script beside this one. */
window.LineOfSight = window.LineOfSight || {};

LineOfSight.picture = function (container, data, links) {
  "use strict";
  links = links || {};
  var chosen = null; // number of a token
  var heat = null; // {sae, latent}
  var buttons = new Map(); // number of a token -> its button
  var view = null;

  function make(tag, className, text) {
    var made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined && text !== null) made.textContent = text;
    return made;
  }

  function data_text(tag, text, className) {
    var made = make(tag, className);
    made.append(make("bdi", null, text)); // whatever direction it is written in, it turns nothing around it
    return made;
  }

  function percent(share) {
    if (share === null || share === undefined) return "";
    if (share > 0 && share < 0.0005) return "<0.1%";
    return (100 * share).toFixed(share > 0.0995 || share === 0 ? 0 : 1) + "%";
  }

  function visible(word) {
    return word.replace(/\n/g, "\u23ce").replace(/\t/g, "\u21e5").replace(/^ /, "");
  }

  function fires(sae, number) {
    var row = data.saes[sae].fires[number], found = [];
    for (var i = 0; i < row.length; i += 2) found.push({ latent: row[i], strength: row[i + 1] });
    return found;
  }

  function strength_at(sae, latent, number) {
    var row = data.saes[sae].fires[number];
    for (var i = 0; i < row.length; i += 2) if (row[i] === latent) return row[i + 1];
    return 0;
  }

  function strongest(numbers, most) {
    // The latents of all SAEs with the largest strength at some tokens.
    var best = new Map();
    data.saes.forEach(function (_, sae) {
      numbers.forEach(function (number) {
        fires(sae, number).forEach(function (one) {
          var key = sae + ":" + one.latent, held = best.get(key);
          if (!held) best.set(key, { sae: sae, latent: one.latent, strength: one.strength, count: 1 });
          else { held.count += 1; held.strength = Math.max(held.strength, one.strength); }
        });
      });
    });
    return Array.from(best.values()).sort(function (a, b) { return b.strength - a.strength; }).slice(0, most);
  }

  /* The image and its patches. */

  function patch_button(number) {
    var token = data.tokens[number], made = make("button", "patch");
    made.type = "button";
    made.tabIndex = -1;
    made.style.left = 100 * token.box[0] + "%";
    made.style.top = 100 * token.box[1] + "%";
    made.style.width = 100 * (token.box[2] - token.box[0]) + "%";
    made.style.height = 100 * (token.box[3] - token.box[1]) + "%";
    made.setAttribute("aria-pressed", "false");
    made.setAttribute("aria-label", "patch at " + percent(middle(token, 0)) + " from the left, " + percent(middle(token, 1)) + " from the top" + (token.high ? ", of high norm" : ""));
    if (token.high) made.classList.add("high");
    made.addEventListener("click", function () { choose(number, true); });
    buttons.set(number, made);
    return made;
  }

  function middle(token, axis) { return (token.box[axis] + token.box[axis + 2]) / 2; }

  function numbers_of(test) {
    var found = [];
    data.tokens.forEach(function (token, number) { if (test(token)) found.push(number); });
    return found;
  }

  function stage_of(name) {
    // Patches of one view over the image; those of no width or height are all padding.
    var stage = make("div", "stage");
    var image = make("img");
    image.src = data.image.src;
    image.alt = data.image.alt;
    stage.append(image);
    var drawn = outlines();
    if (drawn) stage.append(drawn);
    var own = numbers_of(function (t) { return t.kind === "patch" && t.view === name && t.box[2] > t.box[0] && t.box[3] > t.box[1]; });
    var grid = make("div", "patches");
    grid.setAttribute("role", "group");
    grid.setAttribute("aria-label", "Patches. Arrow keys move, Enter chooses.");
    own.forEach(function (number) { grid.append(patch_button(number)); });
    if (own.length) buttons.get(own[0]).tabIndex = 0;
    grid.addEventListener("keydown", function (event) { move(event, own); });
    stage.append(grid);
    return stage;
  }

  /* Regions that people drew: outlines over the image, which a box switches on. */

  var SVG = "http://www.w3.org/2000/svg", outlined = null;

  function outlines() {
    if (!(data.regions || []).length) return null;
    var made = make("div", "regions"), svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 1 1");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    data.regions.forEach(function (region) {
      region.outline.forEach(function (loop) {
        // A dark line under a light one: seen on any image.
        ["under", "over"].forEach(function (kind) {
          var line = document.createElementNS(SVG, "polygon");
          line.setAttribute("class", kind + (region.category === null ? " unknown" : ""));
          line.setAttribute("points", loop.join(" "));
          svg.append(line);
        });
      });
    });
    made.append(svg);
    data.regions.forEach(function (region) {
      var name = data_text("span", region.category === null ? "unknown" : region.category, "name");
      name.style.left = 100 * Math.min(Math.max(region.left, 0), 0.9) + "%";
      name.style.top = 100 * Math.min(Math.max(region.top, 0), 0.95) + "%";
      made.append(name);
    });
    made.hidden = true;
    return made;
  }

  function outline(on, said) {
    left.querySelectorAll(".regions").forEach(function (one) { one.hidden = !on; });
    if (outlined) outlined.checked = on;
    if (said) report();
  }

  function outline_choice() {
    var counts = new Map();
    data.regions.forEach(function (region) {
      var name = region.category === null ? "unknown" : region.category;
      counts.set(name, (counts.get(name) || 0) + 1);
    });
    var label = make("label", "outlined");
    outlined = make("input");
    outlined.type = "checkbox";
    outlined.addEventListener("change", function () { outline(outlined.checked, true); });
    var names = Array.from(counts).map(function (one) { return one[0] + (one[1] > 1 ? " (" + one[1] + ")" : ""); });
    label.append(outlined, " Regions: ", data_text("span", names.join(", ")));
    return label;
  }

  var WAYS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, -1], ArrowDown: [1, 1] };

  function move(event, own) {
    // To the nearest patch in a direction, also where only some are held.
    var way = WAYS[event.key], now = own.find(function (n) { return buttons.get(n) === document.activeElement; });
    if (!way || now === undefined) return;
    event.preventDefault();
    var at = data.tokens[now], axis = way[0], best = null, least = Infinity;
    own.forEach(function (number) {
      var ahead = way[1] * (middle(data.tokens[number], axis) - middle(at, axis));
      var aside = Math.abs(middle(data.tokens[number], 1 - axis) - middle(at, 1 - axis));
      if (ahead > 1e-3 && ahead + 3 * aside < least) { least = ahead + 3 * aside; best = number; }
    });
    if (best !== null) focus(best, own);
  }

  function focus(number, own) {
    own.forEach(function (n) { buttons.get(n).tabIndex = n === number ? 0 : -1; });
    buttons.get(number).focus();
  }

  function views() {
    var both = make("div", "views");
    var names = ["whole", "detail"].filter(function (name) { return numbers_of(function (t) { return t.view === name; }).length; });
    var stages = names.map(stage_of);
    if (names.length > 1) {
      var group = make("fieldset", "choice");
      group.append(make("legend", null, "The model sees the image twice"));
      names.forEach(function (name, i) {
        var label = make("label"), radio = make("input");
        radio.type = "radio";
        radio.name = "view-" + LineOfSight.picture.count;
        radio.checked = i === 0;
        radio.addEventListener("change", function () { turn(i); });
        label.append(radio, " " + (name === "whole" ? "as a whole" : "in detail"));
        group.append(label);
      });
      both.append(group);
    }
    both.append.apply(both, stages);
    function turn(i) {
      stages.forEach(function (stage, k) { stage.hidden = k !== i; });
      both.querySelectorAll("input[type=radio]").forEach(function (radio, k) { radio.checked = k === i; });
    }
    if (stages.length) turn(0);
    return { element: both, turn: function (name) { if (names.indexOf(name) >= 0) turn(names.indexOf(name)); } };
  }

  /* The words of text and prompt. */

  function sentence(kinds, title) {
    var own = numbers_of(function (t) { return kinds.indexOf(t.kind) >= 0; });
    if (!own.length) return null;
    var made = make("div", "sentence");
    made.append(make("h3", null, title));
    var line = make("p");
    own.forEach(function (number) {
      var token = data.tokens[number], button = data_text("button", visible(token.word) || "\u2423", "word");
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      if (token.high) { button.classList.add("high"); button.title = "attention sink: its norm is above the limit"; }
      button.addEventListener("click", function () { choose(number, true); });
      buttons.set(number, button);
      line.append(button, " ");
    });
    made.append(line);
    return made;
  }

  /* What is read: the panel beside the image. */

  var side = make("div", "side");
  side.setAttribute("role", "region");
  side.setAttribute("aria-label", "What is read there");
  side.setAttribute("aria-live", "polite");

  function note(sae, latent) { return (data.about[sae] || {})[latent] || {}; }

  function latent_cell(sae, latent) {
    var cell = make("th"), name = String(latent);
    cell.scope = "row";
    var href = links.latent ? links.latent(data.saes[sae].layer, data.saes[sae].name, latent) : null;
    if (href) {
      var anchor = make("a", null, name);
      anchor.href = href;
      anchor.setAttribute("aria-label", "latent " + name);
      cell.append(anchor);
    } else cell.textContent = name;
    return cell;
  }

  function latent_table(rows, caption) {
    var table = make("table", "latents"), largest = Math.max.apply(null, rows.map(function (r) { return r.strength; }).concat([1e-9]));
    table.append(make("caption", null, caption));
    var head = make("tr");
    ["Latent", "Strength", "What it is about", "Where"].forEach(function (title) {
      var cell = make("th", null, title);
      cell.scope = "col";
      head.append(cell);
    });
    table.append(head);
    rows.forEach(function (row) {
      var line = make("tr"), about = note(row.sae, row.latent);
      line.append(latent_cell(row.sae, row.latent));
      var strength = make("td", "strength", row.strength.toPrecision(3));
      var bar = make("span", "bar");
      bar.style.width = (100 * row.strength) / largest + "%";
      bar.setAttribute("aria-hidden", "true");
      strength.append(bar);
      line.append(strength);
      var what = make("td");
      if (about.explanation) what.append(data_text("span", about.explanation));
      if (about.label) what.append(data_text("small", about.label + (about.f1 === null ? "" : " (F1 " + about.f1.toFixed(2) + ")")));
      if (!about.explanation && about.words && about.words.length) what.append(data_text("small", "raises " + about.words.join(", ")));
      line.append(what);
      var where = make("td"), button = make("button", "where", "show");
      button.type = "button";
      button.setAttribute("aria-pressed", String(Boolean(heat && heat.sae === row.sae && heat.latent === row.latent)));
      button.setAttribute("aria-label", "show where latent " + row.latent + " fires");
      button.addEventListener("click", function () {
        var same = heat && heat.sae === row.sae && heat.latent === row.latent;
        show(same ? null : row.sae, same ? null : row.latent, true);
        side.querySelectorAll("button.where").forEach(function (other) { other.setAttribute("aria-pressed", String(other === button && !same)); });
      });
      where.append(button);
      line.append(where);
      table.append(line);
    });
    return table;
  }

  function words_table(number) {
    var table = make("table", "layers");
    table.append(make("caption", null, "Nearest words by layer"));
    data.layers.forEach(function (layer, at) {
      if (!data.words[at]) return;
      var row = data.words[at][number], line = make("tr"), head = make("th", null, "layer " + layer), cell = make("td");
      head.scope = "row";
      if (!row.length) cell.append(make("small", null, "high norm, kept apart"));
      for (var i = 0; i < row.length; i += 2) {
        cell.append(data_text("span", visible(data.vocabulary[row[i]]) || "\u2423", "near"), make("small", null, " " + percent(row[i + 1]) + " "));
      }
      line.append(head, cell);
      table.append(line);
    });
    return table;
  }

  function overview() {
    side.replaceChildren();
    var patches = numbers_of(function (t) { return t.kind === "patch"; });
    var texts = numbers_of(function (t) { return t.kind === "text"; });
    if (!data.saes.length) side.append(make("p", null, "Choose a patch or a word to see the words that the stream is nearest to."));
    else side.append(make("p", null, "Choose a patch or a word, or a latent to see where it fires."));
    if (data.saes.length && patches.length) side.append(latent_table(strongest(patches, 8), "Strongest in the image"));
    if (data.saes.length && texts.length) side.append(latent_table(strongest(texts, 8), "Strongest in the text"));
  }

  function panel() {
    if (chosen === null) return overview();
    var token = data.tokens[chosen];
    side.replaceChildren();
    var head = make("h3", null, token.kind === "patch" ? "Patch " : token.kind === "text" ? "Word " : "Word of the prompt ");
    if (token.kind !== "patch") head.append(make("bdi", null, visible(token.word)));
    head.append(make("small", null, " position " + token.position));
    side.append(head);
    if (token.high) side.append(make("p", "note", "Attention sink in layers " + token.high.join(", ") + ": its norm is above the limit, and it is kept apart there."));
    data.saes.forEach(function (sae, i) {
      var rows = fires(i, chosen).map(function (one) { return { sae: i, latent: one.latent, strength: one.strength }; });
      var title = "Latents of " + sae.name + ", layer " + sae.layer;
      if (rows.length) side.append(latent_table(rows, title + (sae.active[chosen] > rows.length ? ": the strongest " + rows.length + " of " + sae.active[chosen] : "")));
      else side.append(make("p", null, title + (sae.active[chosen] < 0 ? ": not read here; the features stage leaves the prompt and high norms out." : ": none fires here.")));
    });
    if (data.words) side.append(words_table(chosen));
    var back = make("button", "back", "All of the image and text");
    back.type = "button";
    back.addEventListener("click", function () {
      var from = buttons.get(chosen);
      choose(null, true);
      if (from) from.focus();
    });
    side.append(back);
  }

  function choose(number, said) {
    if (chosen !== null && buttons.get(chosen)) buttons.get(chosen).setAttribute("aria-pressed", "false");
    chosen = number;
    if (chosen !== null && buttons.get(chosen)) {
      buttons.get(chosen).setAttribute("aria-pressed", "true");
      if (view && data.tokens[chosen].view) view.turn(data.tokens[chosen].view);
    }
    panel();
    if (said) report();
  }

  function show(sae, latent, said) {
    heat = sae === null ? null : { sae: sae, latent: latent };
    var largest = 0;
    if (heat) buttons.forEach(function (_, number) { largest = Math.max(largest, strength_at(sae, latent, number)); });
    buttons.forEach(function (button, number) {
      var share = heat && largest ? strength_at(sae, latent, number) / largest : 0;
      button.classList.toggle("hot", share > 0);
      button.style.setProperty("--strength", share.toFixed(3));
    });
    if (said) report();
  }

  function report() {
    if (!links.changed) return;
    links.changed({
      position: chosen === null ? null : data.tokens[chosen].position,
      sae: heat ? heat.sae : null,
      latent: heat ? heat.latent : null,
      regions: Boolean(outlined && outlined.checked),
    });
  }

  /* What the probes read. */

  var READS = { pooled: "in the mean of its tokens", last: "in the last token, where the answer begins" };

  function probes(name) {
    var own = data.probes.filter(function (one) { return one.view === name; });
    if (!own.length) return null;
    var attributes = Array.from(new Set(own.map(function (one) { return one.attribute; })));
    var wrap = make("div", "scroll"), table = make("table", "probes");
    wrap.tabIndex = 0;
    wrap.setAttribute("role", "region");
    wrap.setAttribute("aria-label", "Probes read " + READS[name]);
    table.append(make("caption", null, "Read " + READS[name] + ": the likeliest value, its probability, and the next one"));
    var head = make("tr");
    ["Layer"].concat(attributes).forEach(function (title) {
      var cell = data_text("th", title);
      cell.scope = "col";
      head.append(cell);
    });
    table.append(head);
    data.layers.forEach(function (layer) {
      var here = own.filter(function (one) { return one.layer === layer; });
      if (!here.length) return;
      var line = make("tr"), first = make("th", null, layer);
      first.scope = "row";
      line.append(first);
      attributes.forEach(function (attribute) {
        var one = here.find(function (p) { return p.attribute === attribute; }), cell = make("td");
        if (one) {
          cell.append(data_text("b", one.value), " " + percent(one.p));
          var other = make("small");
          other.append(make("bdi", null, one.runner_up), " " + percent(one.p_runner_up));
          if (one.top1 !== null) other.append("; right " + percent(one.top1) + " of the time");
          cell.append(other);
        }
        line.append(cell);
      });
      table.append(line);
    });
    wrap.append(table);
    return wrap;
  }

  LineOfSight.picture.count = (LineOfSight.picture.count || 0) + 1;
  var root = make("div", "reading"), left = make("div", "left");
  if (data.image) {
    view = views();
    left.append(view.element);
    if ((data.regions || []).length) left.append(outline_choice());
    if (data.held.image < data.held.of_image) {
      left.append(make("p", "note", "The store holds " + data.held.image + " of the " + data.held.of_image + " image tokens: a draw."));
    }
  }
  [sentence(["text"], "Text"), sentence(["prompt"], "Prompt")].forEach(function (part) { if (part) left.append(part); });
  root.append(left, side);
  container.append(root);
  var read = [probes("pooled"), probes("last")].filter(Boolean);
  if (read.length) {
    var section = make("section", "readings");
    section.append(make("h2", null, "What the probes read"));
    section.append.apply(section, read);
    container.append(section);
  }
  panel();
  return {
    choose: function (position) {
      var number = data.tokens.findIndex(function (t) { return t.position === position; });
      choose(number < 0 ? null : number, false);
    },
    show: function (sae, latent) { if (data.saes[sae]) show(sae, latent, false); },
    outline: function (on) { outline(on, false); },
  };
};
