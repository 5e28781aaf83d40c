// The router's pages: previews in a dialog, tests beside their button, order by dragging.
// Without this script the same buttons load the page again and show the same things on it.

const asked = new WeakSet();

document.addEventListener("submit", (event) => {
  const { target: form, submitter: button } = event;
  const show = { _preview: showPreview, _probe: showProbe }[button?.name];
  if (!show || asked.delete(form)) return;
  event.preventDefault();
  // Nothing is left behind: the page must go on warning before unsaved changes are.
  event.stopPropagation();
  ask(form, button, show);
}, { capture: true });

document.addEventListener("click", (event) => {
  event.target.closest?.("[data-close]")?.closest("dialog")?.close();
});

async function ask(form, button, show) {
  if (button.getAttribute("aria-busy")) return;
  button.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(location.pathname + location.search, {
      method: "POST",
      body: new FormData(form, button),
      headers: { "X-Requested-With": "fetch" },
    });
    if (response.ok && response.headers.has("X-Fragment")) {
      show(button, await response.text());
      return;
    }
  } catch {
    // The page below says what is wrong.
  } finally {
    button.removeAttribute("aria-busy");
  }
  // Faults at the fields, a login page or a refusal: the browser shows it.
  asked.add(form);
  form.requestSubmit(button);
}

function showPreview(_button, html) {
  const dialog = document.getElementById("preview");
  dialog.innerHTML = html;
  dialog.showModal();
}

function showProbe(button, html) {
  button.parentElement.querySelector(".probe-result").innerHTML = html;
}

// The list counts from 0 when it is dragged; positions are from 1.
document.addEventListener("end", (event) => {
  const list = event.target.closest?.("[data-ordering-field]");
  if (list) setTimeout(() => renumber(list));
});

function renumber(list) {
  const name = `-${list.dataset.orderingField}`;
  let position = 1;
  for (const row of list.querySelectorAll(".form-group:not(.empty-form)")) {
    const input = row.querySelector(`input[name$="${name}"]`);
    if (!input || (!input.value && !row.classList.contains("original"))) continue;
    input.value = position++;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }
}
