// The search box: "t" goes there, and so does "/" unless a list has a box of its own for it.
// Of a pasted API key only what may be shown is sent.
"use strict";
{
  const KEY = /sk-airi-[A-Za-z0-9]{12}(?=[A-Za-z0-9])[A-Za-z0-9]*/;
  const form = document.querySelector("[data-console-search]");
  const box = form.querySelector("input");
  const WRITING = "input, textarea, select, [contenteditable]";

  document.addEventListener("keydown", (event) => {
    const isOurs = event.key === "/" && !document.querySelector("#changelist-search");
    const isShortcut = event.key === "t" || isOurs;
    if (!isShortcut || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest && event.target.closest(WRITING)) return;
    event.preventDefault();
    box.focus();
    box.select();
  });

  form.addEventListener("submit", () => {
    box.value = box.value.replace(KEY, (key) => key.slice(0, 20));
  });
}
