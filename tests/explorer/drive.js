/* What a person does on a page of an asking, and what is seen of it: written to the page's title, for a test to read. */
"use strict";
var errors = [];
window.addEventListener("error", function (event) { errors.push(String(event.message || event.target.src || event.target.href)); }, true);
document.addEventListener("securitypolicyviolation", function (event) { errors.push(event.violatedDirective + " " + event.blockedURI); });
window.addEventListener("load", function () {
  var seen = { errors: errors }, stage = document.querySelector(".stage");
  function all(selector) { return Array.from(document.querySelectorAll(selector)); }
  seen.heading = document.querySelector("h1").textContent;
  seen.scripts = all("main script, main img[onerror], main iframe").length;
  seen.patches = all(".stage .patch").length;
  seen.image = document.querySelector(".stage img").naturalWidth;
  seen.attacked = Boolean(window.attacked);
  var patches = Array.from(stage.querySelectorAll(".patch"));
  patches[0].focus();
  seen.tabbable = patches.filter(function (p) { return p.tabIndex === 0; }).length;
  patches[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true, cancelable: true }));
  seen.moved = patches.indexOf(document.activeElement);
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true, cancelable: true }));
  seen.down = patches.indexOf(document.activeElement);
  document.activeElement.click();
  seen.pressed = patches.filter(function (p) { return p.getAttribute("aria-pressed") === "true"; }).length;
  seen.panel = document.querySelector(".side").textContent;
  seen.latents = all(".side .latents td.strength").map(function (cell) { return cell.textContent; });
  var where = document.querySelector(".side button.where");
  where.click();
  seen.hot = all(".patch.hot").length;
  seen.shown = where.getAttribute("aria-pressed");
  all(".word")[1].click();
  seen.word = document.querySelector(".side h3").textContent;
  seen.probes = all(".readings table").map(function (table) { return table.rows.length; });
  seen.wide = document.documentElement.scrollWidth <= document.documentElement.clientWidth;
  document.title = "seen " + encodeURIComponent(JSON.stringify(seen));
});
