/* What is seen of an image's page once it is there: written to the page's title, for a test to read. */
(function () {
  "use strict";
  var errors = [];
  window.addEventListener("error", function (event) { errors.push(String(event.message || event.target.src)); }, true);
  document.addEventListener("securitypolicyviolation", function (event) { errors.push(event.violatedDirective + " " + event.blockedURI); });
  var timer = setInterval(function () {
    if (!document.querySelector(".readings")) return;
    clearInterval(timer);
    document.title = "seen " + encodeURIComponent(JSON.stringify({
      errors: errors,
      pressed: document.querySelectorAll('.patch[aria-pressed="true"]').length,
      hot: document.querySelectorAll(".patch.hot").length,
      links: Array.from(document.querySelectorAll(".side .latents a")).map(function (link) { return link.getAttribute("href"); }),
      address: location.hash,
      stages: document.querySelectorAll(".stage").length,
      outlines: document.querySelectorAll(".regions:not([hidden]) polygon").length,
      names: Array.from(document.querySelectorAll(".regions:not([hidden]) .name")).map(function (name) { return name.textContent; }),
      checked: document.querySelector(".outlined input").checked,
    }));
  }, 50);
})();
