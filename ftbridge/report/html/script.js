"use strict";
const items = [...document.querySelectorAll(".item")];
const buttons = [...document.querySelectorAll("[data-filter]")];
const find = document.getElementById("find");
const count = document.getElementById("count");
const grader = document.getElementById("by-grader");
const slice = document.getElementById("by-slice");
const by_grader = ["worse", "better", "same"];
let kind = "all";

function show() {
  const wanted = find.value.trim().toLowerCase();
  const named = grader !== null && by_grader.includes(kind) ? kind + grader.value : kind;
  const part = slice === null ? "" : slice.value;
  let shown = 0;
  for (const item of items) {
    const fits = kind === "all" || item.dataset.kinds.split(" ").includes(named);
    const inside = part === "" || (item.dataset.slices || "").split("\n").includes(part);
    const hit = fits && inside && (wanted === "" || item.textContent.toLowerCase().includes(wanted));
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
for (const choice of [grader, slice]) {
  if (choice !== null) {
    choice.addEventListener("change", show);
  }
}
if (find !== null) {
  find.addEventListener("input", show);
}
