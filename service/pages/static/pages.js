// What the pages need beside htmx: times in the reader's zone, questions before what cannot be undone, files by drop,
// single keys in the review queue.
"use strict";

const zone = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function localTimes(root) {
  for (const each of root.querySelectorAll("time[datetime]:not([data-local])")) {
    each.title = each.textContent;
    each.textContent = zone.format(new Date(each.dateTime));
    each.dataset.local = "";
  }
}

document.addEventListener("DOMContentLoaded", () => {
  localTimes(document);
  document.getElementById("keys-choice")?.removeAttribute("hidden");
});
document.addEventListener("htmx:afterSettle", () => localTimes(document));

document.addEventListener("submit", (event) => {
  const asked = event.submitter && event.submitter.dataset.confirm;
  if (asked && !window.confirm(asked)) event.preventDefault();
  else document.getElementById("message").replaceChildren();
});

for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    const place = event.target.closest && event.target.closest(".drop");
    if (!place) return;
    event.preventDefault();
    place.classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") place.querySelector("input[type=file]").files = event.dataTransfer.files;
  });
}

document.addEventListener("keydown", (event) => {
  const wanted = document.getElementById("keys");
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select");
  if (document.querySelector("#item .htmx-request")) return; // meant for the next item, which nobody has seen yet
  if (!wanted || !wanted.checked || typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const chosen = document.querySelector(`#item [data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!chosen) return;
  event.preventDefault();
  chosen.click();
});
