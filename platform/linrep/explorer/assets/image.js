/* The page of an image: its caption and truth, what fires at each patch, the nearest words by layer, what the probes read; without
   a name in the address, all images that have a page. */
(function () {
  "use strict";
  var L = LineOfSight;
  var el = L.el;
  var SHOWN = 120; // pictures at once

  /* Where the pages of a sample lie: {key, at}, from the lists of all harvests; null where it has none. */
  function find(site, sample) {
    return Promise.all((site.images || []).map(function (one) { return L.load(one.key); })).then(function (lists) {
      for (var i = 0; i < lists.length; i++) {
        var at = lists[i].pictures.findIndex(function (picture) { return picture.name === sample; });
        if (at >= 0) {
          return { own: site.images[i], list: lists[i], at: at };
        }
      }
      return null;
    });
  }

  function hrefs(site, harvest) {
    return {
      latent: function (layer, name, latent) {
        var sae = site.saes.find(function (one) { return one.harvest === harvest && one.layer === layer && one.sae === name; });
        return sae ? L.href("latent", { sae: sae.key, latent: latent }) : null;
      },
      changed: function (now) {
        L.remember({ at: now.position, by: now.sae, latent: now.latent, regions: now.regions ? "1" : "" });
      },
    };
  }

  function known(page) {
    var rows = Object.keys(page.truth).map(function (attribute) { return [attribute, L.text(page.truth[attribute])]; });
    if (!page.truth["class"] && page.facts["class"]) {
      rows.unshift(["class", L.text(page.facts["class"])]);
    }
    return L.facts(rows.concat([["split", page.facts.split], ["file", L.text(page.facts.file)], ["sample", L.text(page.facts.sample)]]));
  }

  function around(found) {
    var links = [];
    [[-1, "← previous"], [1, "next →"]].forEach(function (step) {
      for (var i = found.at + step[0]; i >= 0 && i < found.list.pictures.length; i += step[0]) {
        if (found.list.paged[i]) {
          links.push(el("a", { href: L.href("image", { sample: found.list.pictures[i].name }) }, step[1]), " ");
          return;
        }
      }
    });
    return el("p", {}, el("a", { href: L.href("image") }, "All images"), " ", links);
  }

  function one(container, query, site) {
    return find(site, query.sample).then(function (found) {
      if (!found || !found.list.paged[found.at]) {
        var n = (site.images || []).reduce(function (sum, own) { return sum + own.pages; }, 0);
        L.absent(container, "No page of this image", "This site has pages of the " + n + " images that the pages of latents show most. jobs/ask.py makes a page of any image.");
        L.append(container, [el("p", {}, el("a", { href: L.href("image") }, "Images with a page"))]);
        return null;
      }
      return L.load(found.own.key + "/" + found.at).then(function (page) {
        var label = page.truth["class"] || page.facts["class"];
        L.append(container, [
          around(found),
          el("h1", {}, "Image", label ? [": ", L.text(label)] : null),
          page.caption ? el("p", { class: "headline" }, "“", L.text(page.caption), "”") : null,
          known(page),
          el("h2", {}, "What is read in it"),
        ]);
        var shown = L.picture(container, page.data, hrefs(site, found.own.harvest));
        if (query.latent !== undefined) {
          shown.show(Number(query.by || 0), Number(query.latent));
        }
        if (query.regions === "1") {
          shown.outline(true);
        }
        if (query.at !== undefined) {
          shown.choose(Number(query.at));
        }
      });
    });
  }

  function all(container, query, site) {
    return Promise.all((site.images || []).map(function (own) { return L.load(own.key); })).then(function (lists) {
      L.append(container, [el("h1", {}, "Images")]);
      if (!lists.length) {
        L.append(container, [el("p", {}, "No image has a page: the workspace has no single tokens, or no latent was looked into.")]);
        return;
      }
      lists.forEach(function (list, i) {
        var own = site.images[i], classes = L.words(list.classes), most = SHOWN;
        var names = Array.from(new Set(list.classes.texts)).sort();
        var grid = el("ul", { class: "pictures" }), count = el("p", { class: "quiet", role: "status" });
        var more = el("button", { type: "button" }, "more");
        var select = el("select", {}, el("option", { value: "" }, "all classes"), names.map(function (name) {
          return el("option", { value: name, selected: query["class"] === name }, name);
        }));
        function fill() {
          var chosen = list.pictures.filter(function (picture, k) { return list.paged[k] && (!select.value || classes.at(k) === select.value); });
          count.textContent = chosen.length + " of " + own.images + " images of the harvest: those that the pages of latents show most.";
          grid.replaceChildren.apply(grid, chosen.slice(0, most).map(function (picture) {
            return el("li", {}, el("a", { href: L.href("image", { sample: picture.name }) }, L.heatmap(picture, [], 1)), el("span", { class: "under" }, L.text(picture.label, 60)));
          }));
          more.hidden = chosen.length <= most;
        }
        select.addEventListener("change", function () {
          most = SHOWN;
          L.remember({ "class": select.value });
          fill();
        });
        more.addEventListener("click", function () {
          most += SHOWN;
          fill();
        });
        L.pictures(list);
        L.append(container, [el("div", { class: "controls" }, el("label", {}, "Class", select)), count, grid, more]);
        fill();
      });
    });
  }

  L.page("image", {
    title: function (query) {
      return query.sample ? "Image" : "Images";
    },
    show: function (container, query, site) {
      return query.sample ? one(container, query, site) : all(container, query, site);
    },
  });
})();
