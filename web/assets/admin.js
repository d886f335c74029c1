// Conveniences of the back office: all but dropping files works without them.
"use strict";

// Files that are dropped on a form are chosen in it, and sent.
for (const form of document.querySelectorAll("[data-drop]")) {
  const files = form.querySelector("[type=file]");
  form.querySelector(".with-script").hidden = false;
  const over = (event, on) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    form.classList.toggle("over", on);
  };
  form.addEventListener("dragover", (event) => over(event, true));
  form.addEventListener("dragleave", (event) => over(event, false));
  form.addEventListener("drop", (event) => {
    over(event, false);
    if (!event.dataTransfer.files.length) return;
    files.files = event.dataTransfer.files;
    form.requestSubmit();
  });
}

// An import is sent here, so that the page can say meanwhile how far it is.
async function part(address, name) {
  const answer = await fetch(address, { headers: { accept: "text/html" } });
  if (!answer.ok) return null;
  return new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(name);
}
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("[data-import]") || event.defaultPrevented) return;
  event.preventDefault();
  const box = form.querySelector("[data-progress]"), button = form.querySelector("button");
  box.hidden = false;
  button.disabled = true;
  let running = true;
  const look = async () => {
    if (!running) return;
    try {
      const now = await part(form.dataset.import, "#progress");
      if (now && running) box.lastElementChild.replaceChildren(...now.childNodes);
    } catch { /* the next look */ }
    setTimeout(look, 1000);
  };
  setTimeout(look, 500);
  try {
    const answer = await fetch(form.action, { method: "POST", body: new FormData(form) });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const main = page.getElementById("main");
    local(main);
    document.getElementById("main").replaceChildren(...main.childNodes);
    (document.getElementById("report") ?? document.getElementById("problems"))?.focus();
  } catch {
    // No answer: the page about this import knows more.
    location.assign(form.dataset.import);
  } finally {
    running = false;
  }
});
