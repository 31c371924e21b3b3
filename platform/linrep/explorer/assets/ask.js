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
    if (data.notes.length) into.append(list("To keep in mind", data.notes));
    if (data.missing.length) into.append(list("Left out", data.missing));
    into.append(provenance(data));
  };

  LineOfSight.asked = function (data) {
    document.title = (data.answer.text || "no answer") + (data.name ? ": " + data.name : "");
    LineOfSight.show(document.getElementById("asked"), data, {});
  };
})();
