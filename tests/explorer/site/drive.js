/* Runs the body of a test, in the place of BODY, once the page is shown, and puts what it gives where --dump-dom finds it. */
(function () {
  var errors = [];
  window.addEventListener("error", function (event) { errors.push(String(event.message)); });
  window.addEventListener("unhandledrejection", function (event) { errors.push(String(event.reason)); });
  function wait(ms) { return new Promise(function (done) { setTimeout(done, ms); }); }
  function ready() {
    var main = document.getElementById("main");
    return main.getAttribute("aria-busy") === "false" ? Promise.resolve(main.firstChild) : wait(20).then(ready);
  }
  ready().then(wait.bind(null, 50)).then(function () {
    var page = document.getElementById("main").firstChild;
    return (async function (page, wait) { BODY })(page, wait);
  }).catch(function (error) { errors.push(String(error)); return null; }).then(function (value) {
    var text = JSON.stringify({ value: value, errors: errors, hash: location.hash });
    document.body.replaceChildren(document.createTextNode("FOUND" + btoa(unescape(encodeURIComponent(text))) + "END"));
  });
})();
