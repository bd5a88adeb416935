"use strict";
const items = [...document.querySelectorAll(".item")];
const buttons = [...document.querySelectorAll("[data-filter]")];
const find = document.getElementById("find");
const count = document.getElementById("count");
let kind = "all";

function show() {
  const wanted = find.value.trim().toLowerCase();
  let shown = 0;
  for (const item of items) {
    const fits = kind === "all" || item.dataset.kinds.split(" ").includes(kind);
    const hit = fits && (wanted === "" || item.textContent.toLowerCase().includes(wanted));
    item.hidden = !hit;
    shown += hit ? 1 : 0;
  }
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(button.dataset.filter === kind));
  }
  count.textContent = shown === items.length ? "" : `${shown} of ${items.length} items`;
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    kind = button.dataset.filter;
    show();
  });
}
if (find !== null) {
  find.addEventListener("input", show);
}
