/* The page of an asking: LineOfSight.asked(data), see linrep/explorer/asked.py for the shape.
   From disk, data.js calls it. From `jobs/ask.py --serve`, LineOfSight.serve() asks for questions and calls it with answers. */
(function () {
  "use strict";
  window.LineOfSight = window.LineOfSight || {};
  function make(tag, className, text) {
    var made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined && text !== null) made.textContent = text;
    return made;
  }

  function data_text(tag, text, className) {
    var made = make(tag, className);
    made.append(make("bdi", null, text));
    return made;
  }

  function percent(share) {
    if (share === null || share === undefined) return "";
    if (share > 0 && share < 0.0005) return "<0.1%";
    return (100 * share).toFixed(share > 0.0995 || share === 0 ? 0 : 1) + "%";
  }

  function answer_cell(answer) {
    var cell = make("td");
    cell.append(data_text("b", answer.text || "(nothing)"));
    var first = make("small");
    first.append("first word: ");
    answer.first.slice(0, 3).forEach(function (one, i) {
      first.append(i ? ", " : "", make("bdi", null, one[0].trim() || "\u2423"), " " + percent(one[1]));
    });
    cell.append(first);
    return cell;
  }

  function edits(data) {
    var section = make("section", "changed"), table = make("table"), head = make("tr"), wrap = make("div", "scroll");
    section.append(make("h2", null, "Under edits"));
    table.append(make("caption", null, "Answers under each edit, and under another direction of the same norm"));
    ["Edit", "Answer", "Answer under the control"].forEach(function (title) {
      var cell = make("th", null, title);
      cell.scope = "col";
      head.append(cell);
    });
    table.append(head);
    var plain = make("tr"), first = make("th", null, "none");
    first.scope = "row";
    plain.append(first, answer_cell(data.answer), make("td"));
    table.append(plain);
    data.changed.forEach(function (one) {
      var line = make("tr"), which = data_text("th", one.label), control = answer_cell(one.control);
      which.scope = "row";
      if (one.about && one.about.explanation) which.append(data_text("small", one.about.explanation));
      which.append(make("small", null, one.n_positions + (one.n_positions === 1 ? " position" : " positions") + (one.n_high_norm ? ", " + one.n_high_norm + " of high norm left alone" : "")));
      control.append(data_text("small", one.control_label));
      line.append(which, answer_cell(one.answer), control);
      table.append(line);
    });
    wrap.append(table);
    wrap.tabIndex = 0;
    wrap.setAttribute("role", "region");
    wrap.setAttribute("aria-label", "Answers under edits");
    section.append(wrap);
    return section;
  }

  function signed(value) {
    return value === null ? "\u2013" : (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(2);
  }

  function speaking(data) {
    var section = make("section", "speaking"), title = make("h2");
    title.append("What speaks for ", make("bdi", null, data.answer.trim() || "\u2423"), " and not for ", make("bdi", null, data.against.trim() || "\u2423"));
    section.append(title);
    section.append(make("p", null, "Their logits are " + data.difference.toFixed(2) + " nats apart. Attribution is how much of that each latent gives, to first order. Beside it: what the difference really loses without the latent, and without another one that writes as much."));
    data.saes.forEach(function (one) {
      var table = make("table"), head = make("tr"), wrap = make("div", "scroll"), all = make("tr"), which = make("th", null, "all of these");
      table.append(data_text("caption", one.sae + ", layer " + one.layer + ": " + one.latents.length + " of " + one.n_active + " latents that fire"));
      ["Latent", "Attribution", "Lost without it", "Lost without another", "Activation, summed", "Tokens"].forEach(function (text) {
        var cell = make("th", null, text);
        cell.scope = "col";
        head.append(cell);
      });
      table.append(head);
      one.latents.forEach(function (latent, i) {
        var line = make("tr"), name = make("th", null, String(latent)), about = one.about[i];
        name.scope = "row";
        if (about) name.append(data_text("small", about.explanation || about.label || (about.words.length ? "raises " + about.words.slice(0, 3).join(", ") : "")));
        line.append(name, make("td", null, signed(one.attribution[i])), make("td", null, signed(one.loss[i])), make("td", null, signed(one.control[i])),
          make("td", null, one.activation[i].toFixed(2)), make("td", null, String(one.n_tokens[i])));
        table.append(line);
      });
      which.scope = "row";
      all.append(which, make("td"), make("td", null, signed(one.together)), make("td", null, signed(one.together_control)), make("td"), make("td"));
      table.append(all);
      wrap.append(table);
      wrap.tabIndex = 0;
      wrap.setAttribute("role", "region");
      wrap.setAttribute("aria-label", "Latents that speak for the answer, layer " + one.layer);
      section.append(wrap);
    });
    return section;
  }

  function list(title, lines) {
    var section = make("section", "notes"), items = make("ul");
    section.append(make("h2", null, title));
    lines.forEach(function (line) { items.append(data_text("li", line)); });
    section.append(items);
    return section;
  }

  function provenance(data) {
    var details = make("details"), table = make("table");
    details.append(make("summary", null, "Made from"));
    Object.keys(data.made_from).forEach(function (stage) {
      var line = make("tr"), head = make("th", null, stage);
      head.scope = "row";
      line.append(head, data_text("td", data.made_from[stage]));
      table.append(line);
    });
    details.append(table);
    return details;
  }

  LineOfSight.show = function (into, data, links) {
    into.replaceChildren();
    var head = make("div", "said");
    head.append(data_text("p", data.prompt, "prompt"), data_text("h1", data.answer.text || "(no answer)"));
    var sure = make("p", "sure");
    sure.append("first word: ");
    data.answer.first.forEach(function (one, i) {
      sure.append(i ? ", " : "", make("bdi", null, one[0].trim() || "\u2423"), " " + percent(one[1]));
    });
    head.append(sure);
    into.append(head);
    if (data.changed.length) into.append(edits(data));
    var section = make("section");
    section.append(make("h2", null, data.picture.image ? "What is read in the image" : "What is read in the text"));
    into.append(section);
    LineOfSight.picture(section, data.picture, links);
    if (data.speaking && data.speaking.saes.length) into.append(speaking(data.speaking));
    if (data.notes.length) into.append(list("To keep in mind", data.notes));
    if (data.missing.length) into.append(list("Left out", data.missing));
    into.append(provenance(data));
  };

  LineOfSight.asked = function (data) {
    document.title = (data.answer.text || "no answer") + (data.name ? ": " + data.name : "");
    LineOfSight.show(document.getElementById("asked"), data, {});
  };
})();
