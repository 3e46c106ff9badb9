"use strict";
var watched = false, started = false;
(function start() {
  // The frame has no URL that could hold a state.
  history.replaceState = function () {};
  var get = function (id) { return document.getElementById(id); };
  var term = get("term"), found = get("found"), back = get("back"), about = get("about"), picture = get("picture");
  if (!get("frames")) return;
  // Behind another tab it has no width, and nothing can be laid out. Not every browser tells when it has one again.
  if (!watched) {
    watched = true;
    addEventListener("resize", function (event) { if (innerWidth === 0) event.stopImmediatePropagation(); }, true);
    new ResizeObserver(function () {
      if (innerWidth === 0) return;
      if (started) dispatchEvent(new Event("resize")); else start();
    }).observe(document.documentElement);
  }
  if (innerWidth === 0 || started) return;
  started = true;
  picture.className = "fluid";
  init();
  // What inferno lays out for: the frame may be hidden a moment later, and paper is narrower than a window.
  var printing = false;
  svg = { width: { baseVal: { get value() { return printing ? 700 : Math.max(picture.clientWidth, 100); } } } };
  ["beforeprint", "afterprint"].forEach(function (name) {
    addEventListener(name, function () { printing = name === "beforeprint"; dispatchEvent(new Event("resize")); });
  });
  get("bar").hidden = false;
  nametype = "";
  // What inferno tells of the box under the mouse.
  var hint = about.firstChild.nodeValue = "Click a box to zoom in. Arrow keys walk the boxes, Enter zooms, Esc goes back.";
  details = { set nodeValue(text) { about.firstChild.nodeValue = text.trim() || (at ? g_to_text(at) : hint); } };

  search_prompt = function () { term.focus(); term.select(); };
  var find = function () {
    if (searching) { reset_search(); searching = 0; }
    found.value = "";
    if (!term.value) return;
    // Names hold characters that mean something in an expression: what is typed is looked for as it is.
    var escaped = term.value.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    search(new RegExp(escaped, "i"));
    found.value = searching ? matchedtxt.firstChild.nodeValue : "Not found";
  };
  var later;
  term.addEventListener("input", function () { clearTimeout(later); later = setTimeout(find, 150); });

  // Zooms by whatever way come through here.
  var inner = zoom, outer = unzoom;
  zoom = function (node) { inner(node); back.disabled = unzoombtn.classList.contains("hide"); };
  unzoom = function () { outer(); back.disabled = true; };
  back.addEventListener("click", function () { unzoom(); });

  // The keyboard's box, and where the arrows lead from it.
  var at = null;
  var box = function (group) {
    var rect = group.querySelector("rect"), from = +rect.getAttribute("fg:x");
    return { group: group, y: +rect.getAttribute("y"), from: from, to: from + +rect.getAttribute("fg:w") };
  };
  var boxes = null;
  var all = function () {
    return (boxes = boxes || Array.prototype.map.call(get("frames").children, box));
  };
  var shown = function (b) { return !b.group.classList.contains("hide"); };
  var nearest = function (candidates, key) {
    return candidates.reduce(function (best, b) { return !best || key(b) < key(best) ? b : best; }, null);
  };
  var next = function (key, here) {
    var visible = all().filter(shown);
    if (!here) return nearest(visible, function (b) { return b.y; });
    switch (key) {
      case "ArrowDown":
        visible = visible.filter(function (b) { return b.y > here.y && b.from >= here.from && b.to <= here.to; });
        return nearest(visible, function (b) { return (b.y - here.y) * 1e15 + b.from; });
      case "ArrowUp":
        visible = visible.filter(function (b) { return b.y < here.y && b.from <= here.from && b.to >= here.to; });
        return nearest(visible, function (b) { return -b.y; });
      case "ArrowRight":
        visible = visible.filter(function (b) { return b.y === here.y && b.from >= here.to; });
        return nearest(visible, function (b) { return b.from; });
      case "ArrowLeft":
        visible = visible.filter(function (b) { return b.y === here.y && b.to <= here.from; });
        return nearest(visible, function (b) { return -b.from; });
    }
  };
  picture.addEventListener("keydown", function (event) {
    if (event.key === "Escape") { unzoom(); return; }
    if (event.key === "Enter" && at) {
      if (at.classList.contains("parent")) unzoom();
      zoom(at);
    } else if (/^Arrow/.test(event.key)) {
      var found = next(event.key, at && box(at));
      if (found) {
        if (at) at.classList.remove("at");
        at = found.group;
        at.classList.add("at");
        at.scrollIntoView({ block: "nearest" });
        about.firstChild.nodeValue = g_to_text(at);
      }
    } else return;
    event.preventDefault();
  });
  window.addEventListener("click", function (event) {
    var target = find_group(event.target);
    if (target) about.firstChild.nodeValue = g_to_text(target);
  });
})();
