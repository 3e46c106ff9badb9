"use strict";
(function () {
  var live = document.getElementById("live"), trouble = document.getElementById("trouble");
  if (!window.EventSource) return;
  var source = new EventSource(live.dataset.events), last = Date.now();
  source.onmessage = function (event) {
    last = Date.now();
    // Not while somebody selects text in it, or goes through it by keyboard.
    var selection = String(window.getSelection && window.getSelection());
    if (selection !== "" || live.contains(document.activeElement)) return;
    live.innerHTML = event.data;
    document.getElementById("sentence").textContent = document.getElementById("news").dataset.sentence;
    document.getElementById("when").textContent = new Date().toISOString().replace(/\.\d+Z$/, "Z");
  };
  // A process that stands still closes no connection, and a browser that finds none tries again without a word.
  setInterval(function () {
    var words = "";
    if (source.readyState === EventSource.CLOSED) words = "Updates have stopped. Reload the page.";
    else if (Date.now() - last > 5000) words = "No update since " + new Date(last).toISOString().slice(11, 19) + "Z.";
    // A screen reader reads it out whenever it is written.
    if (words !== trouble.textContent) trouble.textContent = words;
  }, 1000);
})();
