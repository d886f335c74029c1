// Small conveniences. Everything but live steps works without it.
"use strict";

// One click, one request; the server needs no such help.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("[data-once]")) return;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "yes";
  setTimeout(() => delete form.dataset.sent, 10000);
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("[data-sent]")) delete form.dataset.sent;
});

// What is wrong with a form is read first.
document.getElementById("problems")?.focus();

// Times in the visitor's own zone, countries in the page's language, filters open where there is room.
const lang = document.documentElement.lang === "en" ? "en-GB" : document.documentElement.lang;
function local(root) {
  const format = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "short" });
  const exact = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "medium" });
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.textContent = ("exact" in time.dataset ? exact : format).format(new Date(time.dateTime));
  }
}
local(document);

for (const select of document.querySelectorAll("[data-countries]")) {
  const names = new Intl.DisplayNames(lang, { type: "region" });
  const options = [...select.options].filter((option) => option.value);
  for (const option of options) option.textContent = names.of(option.value) ?? option.textContent;
  options.sort((a, b) => a.textContent.localeCompare(b.textContent, lang));
  select.append(...options);
}

const roomy = matchMedia("(min-width: 56rem)");
for (const details of document.querySelectorAll("[data-open-wide]")) {
  const fit = () => { details.open = roomy.matches; };
  fit();
  roomy.addEventListener("change", fit);
}

// An order that moves: each event fetches the page again and shows its part.
const live = document.getElementById("live");
if (live?.dataset.events) {
  let source = null, timer = 0, wait = 1500, busy = false, again = false, retry = 0, pause = 15000;
  const show = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(live.dataset.page, { headers: { accept: "text/html" } });
      if (!answer.ok || answer.redirected) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("live");
      if (!fresh) return;
      local(fresh);
      const focused = live.contains(document.activeElement);
      if (!focused && fresh.innerHTML !== live.innerHTML) live.replaceChildren(...fresh.childNodes);
      for (const name of ["events", "soon"]) {
        if (name in fresh.dataset) live.dataset[name] = fresh.dataset[name]; else delete live.dataset[name];
      }
      if (!live.dataset.events) source?.close();
    } catch { /* the next event, or the next look, shows it */ } finally {
      busy = false;
      if (again) { again = false; show(); }
    }
  };
  // No event tells that a bank asks for something: while it may, the page looks by itself, less and less often.
  const look = () => {
    if (document.hidden) return;
    clearTimeout(timer);
    if (!("soon" in live.dataset) || wait > 60000) return;
    timer = setTimeout(async () => { await show(); look(); }, wait);
    wait *= 1.4;
  };
  // A stream that was cut comes back by itself, one that was refused does not: the shop was full, or is away, or this
  // customer has too many. Then the page looks now and then, and its link to look again is shown.
  const listen = () => {
    if (document.hidden) return;
    source?.close();
    clearTimeout(retry);
    const stream = source = new EventSource(live.dataset.events);
    stream.addEventListener("open", () => { pause = 15000; live.classList.add("has-script"); });
    stream.addEventListener("status", () => { show(); look(); });
    stream.addEventListener("error", () => {
      if (stream.readyState !== EventSource.CLOSED) return;
      live.classList.remove("has-script");
      if (pause > 600000) return;
      retry = setTimeout(async () => { await show(); if (live.dataset.events) listen(); }, pause);
      pause *= 2;
    });
  };
  // A tab that nobody sees holds no connection: a browser has six for all of them.
  const rest = () => { source?.close(); clearTimeout(timer); clearTimeout(retry); };
  const wake = () => {
    if (document.hidden || !live.dataset.events) return;
    wait = 1500;
    pause = 15000;
    listen();
    look();
  };
  window.addEventListener("pagehide", rest);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return rest();
    show();
    wake();
  });
  // Back to a page that the browser has kept as it was.
  window.addEventListener("pageshow", (event) => { if (event.persisted) { show(); wake(); } });
  live.classList.add("has-script");
  wake();
}
