/* The form of `jobs/ask.py --serve`: an image, a question, a latent with its strength, a pair of classes with layer and strength.
   It sends the same words that the command line takes, and shows what comes back with LineOfSight.show. */
(function () {
  "use strict";
  var main = document.getElementById("asked"), about = null, image = null, name = "", busy = false, again = false;

  function make(tag, className, text) {
    var made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined && text !== null) made.textContent = text;
    return made;
  }

  function field(title, input) {
    var label = make("label", "field");
    label.append(make("span", null, title), input);
    return label;
  }

  function select(values, words) {
    var made = make("select");
    values.forEach(function (value, i) {
      var option = make("option", null, words ? words[i] : value);
      option.value = value;
      made.append(option);
    });
    return made;
  }

  function slider(title, least, most, step, value) {
    // A slider and a number that follow each other.
    var group = make("div", "slider"), range = make("input"), number = make("input");
    range.type = "range";
    number.type = "number";
    [range, number].forEach(function (one) {
      one.min = least;
      one.max = most;
      one.step = step;
      one.value = value;
    });
    range.setAttribute("aria-label", title);
    range.addEventListener("input", function () { number.value = range.value; });
    range.addEventListener("change", changed);
    number.addEventListener("change", function () { range.value = number.value; changed(); });
    group.append(field(title, number), range);
    return { element: group, input: number, bound: function (max) { [range, number].forEach(function (one) { one.max = max; }); } };
  }

  function toggle(title) {
    var input = make("input"), set = make("fieldset"), legend = make("legend"), label = make("label");
    input.type = "checkbox";
    input.addEventListener("change", changed);
    label.append(input, " " + title);
    legend.append(label);
    set.append(legend);
    return { element: set, input: input };
  }

  function changed() {
    if (result.hasChildNodes()) ask();
  }

  var form = make("form", "form"), result = make("div"), status = make("p", "status");
  var file = make("input"), text = make("input"), site = null, latent = null, classes = null;
  status.setAttribute("role", "status");

  function build() {
    file.type = "file";
    file.accept = "image/*";
    text.type = "text";
    text.maxLength = 4000;
    text.placeholder = about.question;
    site = select(about.sites);
    site.addEventListener("change", changed);
    form.append(field("Image", file), field("Question (without an image: a text)", text), field("Edits act at", site));
    if (about.saes.length) latent = latent_part();
    if (about.classes.length > 1) classes = classes_part();
    var send = make("button", "send", "Ask");
    send.type = "submit";
    var end = make("div", "end");
    end.append(send, status);
    form.append(end);
    form.addEventListener("submit", function (event) { event.preventDefault(); ask(); });
    file.addEventListener("change", take);
    main.replaceChildren(make("h1", null, "Ask about an image"), form, result);
  }

  function latent_part() {
    var part = toggle("Set a latent"), words = about.saes.map(function (s) { return s.name + ", layer " + s.layer; });
    var sae = select(about.saes.map(function (s) { return s.layer; }), words);
    var which = slider("Latent", 0, about.saes[0].latents - 1, 1, 0), value = slider("Strength", 0, 20, 0.1, 4);
    sae.addEventListener("change", function () { which.bound(about.saes[sae.selectedIndex].latents - 1); changed(); });
    part.element.append(field("SAE", sae), which.element, value.element);
    form.append(part.element);
    return function () { return part.input.checked ? [which.input.value + "@" + sae.value + "=" + value.input.value] : []; };
  }

  function classes_part() {
    var part = toggle("Turn a class into another"), from = select(about.classes), to = select(about.classes);
    to.selectedIndex = 1;
    [from, to].forEach(function (one) { one.addEventListener("change", changed); });
    var layer = slider("Layer", about.layers[0], about.layers[about.layers.length - 1], 1, about.layers[Math.floor(about.layers.length / 2)]);
    var strength = slider("Strength", 0, 8, 0.25, 1);
    part.element.append(field("From", from), field("To", to), layer.element, strength.element);
    form.append(part.element);
    return function () {
      return part.input.checked ? [from.value + ":" + to.value + "@" + layer.input.value + "=" + strength.input.value] : [];
    };
  }

  function take() {
    var chosen = file.files[0];
    image = null;
    name = "";
    if (!chosen) return;
    if (chosen.size > about.most_bytes) {
      status.textContent = "The image is larger than " + Math.round(about.most_bytes / 1048576) + " MiB.";
      file.value = "";
      return;
    }
    var reader = new FileReader();
    reader.addEventListener("load", function () {
      image = reader.result.slice(reader.result.indexOf(",") + 1);
      name = chosen.name;
      status.textContent = "";
    });
    reader.readAsDataURL(chosen);
  }

  function ask() {
    if (busy) { again = true; return; }
    busy = true;
    status.textContent = "Asking \u2026";
    var body = {
      image: image,
      name: name.slice(0, 255),
      text: text.value,
      latents: latent ? latent() : [],
      edits: classes ? classes() : [],
      site: site.value,
    };
    fetch("/ask", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })
      .then(function (response) { return response.json(); })
      .then(function (data) {
        status.textContent = data.error || "";
        if (!data.error) LineOfSight.show(result, data, {});
      })
      .catch(function () { status.textContent = "No answer: is the job still running?"; })
      .finally(function () {
        busy = false;
        if (again) { again = false; ask(); }
      });
  }

  fetch("/about")
    .then(function (response) { return response.json(); })
    .then(function (found) { about = found; build(); })
    .catch(function () { main.textContent = "No answer: is the job still running?"; });
})();
