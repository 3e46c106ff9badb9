"use strict";
(function () {
  var get = function (id) { return document.getElementById(id); };
  var url = get("job").dataset.status, misses = 0, elapsed = null, since = 0, running = false;
  var set = function (id, text) {
    var element = get(id).querySelector("bdi") || get(id);
    if (element.textContent !== text) element.textContent = text;
  };
  var grouped = function (number) { return String(number).replace(/\B(?=(\d{3})+$)/g, ","); };
  var duration = function (ms) {
    if (ms < 1000) return Math.round(ms) + " ms";
    if (ms < 59950) return (ms / 1000).toFixed(1) + " s";
    var seconds = Math.round(ms / 1000);
    return Math.floor(seconds / 60) + " min " + String(seconds % 60).padStart(2, "0") + " s";
  };
  var state = function (phase) {
    if (phase === "running") return "Running";
    if (phase === "done") return "Done";
    if (phase && phase.queued) {
      var place = phase.queued.place;
      return place === 0 ? "Next in the queue" : "In the queue, " + place + (place === 1 ? " profile" : " profiles") + " before it";
    }
    if (phase && phase.sent) return phase.sent.again ? "Its worker is gone, waiting for another one" : "Waiting for a worker";
    return null;
  };
  var tick = function () { if (running && elapsed !== null) set("elapsed", duration(elapsed + performance.now() - since)); };
  var again = function (ms) { setTimeout(ask, ms); };
  var ask = function () {
    fetch(url, { cache: "no-store", credentials: "same-origin", redirect: "error" }).then(function (answer) {
      if (!answer.ok) throw new Error("the server answered " + answer.status);
      return answer.json();
    }).then(function (status) {
      misses = 0;
      set("trouble", "");
      var words = state(status.phase);
      // What is over has another page, at the same URL.
      if (words === null || status.phase === "done") { location.reload(); return; }
      running = status.phase === "running";
      if (get("state").textContent !== words) document.title = words + document.title.slice(document.title.indexOf(": "));
      set("state", words);
      elapsed = status.elapsed_ms;
      since = performance.now();
      set("polls", grouped(status.polls));
      set("samples", grouped(status.samples));
      set("place", status.place || "not known yet");
      tick();
      again(500);
    }).catch(function (error) {
      misses += 1;
      set("trouble", "No news: " + error.message + ". Asked again in a moment.");
      again(Math.min(500 * Math.pow(2, misses), 10000));
    });
  };
  setInterval(tick, 100);
  again(300);
})();
