// A second click sends nothing: the form is on its way. The server does not rely on it.
"use strict";
{
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post") return;
    if (form.dataset.isSent) event.preventDefault();
    form.dataset.isSent = "1";
  });

  // Who comes back to the page may send it again.
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-is-sent]")) delete form.dataset.isSent;
  });
}
