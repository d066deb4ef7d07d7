"use strict";
(function () {
  var root = document.documentElement;
  root.classList.add("on");
  document.getElementById("theme").addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme:dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  document.querySelectorAll("[data-copy]").forEach(function (button) {
    button.addEventListener("click", function () {
      var text = document.getElementById(button.dataset.copy).textContent;
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(function () { button.textContent = "copied"; });
    });
  });
  var find = document.getElementById("find");
  if (find) find.addEventListener("input", function () {
    var words = find.value.toLowerCase();
    document.querySelectorAll("#events li").forEach(function (li) {
      li.hidden = li.textContent.toLowerCase().indexOf(words) < 0;
    });
  });
  // The time under the pointer, in pictures that have a time axis.
  var cursor = document.getElementById("cursor");
  document.querySelectorAll("svg.timed").forEach(function (svg) {
    var width = svg.viewBox.baseVal.width, left = 150, right = 16;
    var from = Number(svg.dataset.from), to = Number(svg.dataset.to);
    svg.addEventListener("pointermove", function (event) {
      var box = svg.getBoundingClientRect();
      var x = (event.clientX - box.left) * width / box.width;
      var part = (x - left) / (width - left - right);
      if (part < 0 || part > 1) { cursor.style.display = "none"; return; }
      cursor.textContent = ((from + part * (to - from)) / 1e9).toFixed(4) + " s";
      cursor.style.display = "block";
      cursor.style.left = event.pageX + 12 + "px";
      cursor.style.top = event.pageY - 24 + "px";
    });
    svg.addEventListener("pointerleave", function () { cursor.style.display = "none"; });
  });
})();
