"use strict";
(function () {
  var live = document.getElementById("live"), trouble = document.getElementById("trouble");
  if (!window.EventSource) return;
  var source = new EventSource(live.dataset.events);
  source.onmessage = function (event) {
    // Not while somebody selects text in it, or goes through it by keyboard.
    var selection = String(window.getSelection && window.getSelection());
    if (selection !== "" || live.contains(document.activeElement)) return;
    live.innerHTML = event.data;
    document.getElementById("sentence").textContent = document.getElementById("news").dataset.sentence;
    document.getElementById("when").textContent = new Date().toISOString().replace(/\.\d+Z$/, "Z");
    trouble.textContent = "";
  };
  source.onerror = function () {
    trouble.textContent = source.readyState === EventSource.CLOSED ? "Updates have stopped. Reload the page." : "";
  };
})();
