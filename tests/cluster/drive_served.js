/* A person asks about a text, sets a latent and turns a class: what is seen then is written to the page's title. */
(function () {
  "use strict";
  var errors = [], seen = { errors: errors };
  window.addEventListener("error", function (event) { errors.push(String(event.message || event.target.src)); }, true);
  document.addEventListener("securitypolicyviolation", function (event) { errors.push(event.violatedDirective + " " + event.blockedURI); });

  function until(test, then) {
    var timer = setInterval(function () {
      var found = test();
      if (!found) return;
      clearInterval(timer);
      then(found);
    }, 50);
  }

  function one(selector) { return document.querySelector(selector); }

  function set(input, value) {
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  function labels() {
    return Array.from(document.querySelectorAll(".changed tr > th[scope=row]")).map(function (cell) { return cell.textContent; });
  }

  until(function () { return one(".form .send"); }, function (send) {
    var selects = document.querySelectorAll(".form select");
    seen.sites = Array.from(selects[0].options).map(function (option) { return option.value; });
    set(one("input[type=text]"), "a boat on the water");
    send.click();
    until(function () { return one("#asked h1 + form + div .reading"); }, function () {
      seen.first = labels().length;
      var boxes = document.querySelectorAll("input[type=checkbox]"), numbers = document.querySelectorAll("input[type=range]");
      numbers[0].value = 7;
      numbers[0].dispatchEvent(new Event("input"));
      numbers[1].value = 12.5;
      numbers[1].dispatchEvent(new Event("input"));
      boxes[0].checked = true;
      boxes[1].checked = true;
      set(numbers[2], 2);
      until(function () { return one(".status").textContent.indexOf("no image") >= 0; }, function () {
        seen.trouble = one(".status").textContent;
        set(selects[0], "last");
        until(function () { return labels().length === 3; }, function () {
          seen.then = labels();
          document.title = "seen " + encodeURIComponent(JSON.stringify(seen));
        });
      });
    });
  });
})();
