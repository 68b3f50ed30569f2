"use strict";
// Everything here is a comfort: each page works without it. Nothing of an agent's is ever made into markup here: what is
// put into a page was escaped by the server.

const main = document.getElementById("main");

// Times in the reader's own zone; UTC stays in the title.
function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    if (!time.textContent.endsWith(" UTC")) continue;
    time.textContent = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
  }
}

// Take the parts of this page as the server has them now. A part that somebody works in stays as it is.
async function renew() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-part]")) {
    const next = page.getElementById(part.id);
    if (!next || next.innerHTML === part.innerHTML) continue;
    const active = part.contains(document.activeElement) ? document.activeElement : null;
    if (active && active.matches("input, select, textarea")) continue;
    const before = new Set([...part.querySelectorAll("[data-row] a")].map((link) => link.getAttribute("href")));
    const focused = active && active.getAttribute("href");
    const linked = (href) => [...next.querySelectorAll("a")].find((link) => link.getAttribute("href") === href);
    const at = part.querySelector("[data-row].at a");
    const chosen = [...part.querySelectorAll("input[data-chosen]:checked")];
    part.replaceWith(next);
    if (at) linked(at.getAttribute("href"))?.closest("[data-row]").classList.add("at");
    for (const { name, value } of chosen) {
      const same = [...next.querySelectorAll("input")].find((input) => input.name === name && input.value === value);
      if (same) { same.checked = true; same.dataset.chosen = ""; }
    }
    for (const row of next.querySelectorAll("[data-row]")) {
      const link = row.querySelector("a");
      if (before.size && link && !before.has(link.getAttribute("href"))) row.classList.add("new");
    }
    localTimes(next);
    if (focused) linked(focused)?.focus();
  }
}

function live() {
  const source = new EventSource(main.dataset.live);
  let waiting = null;
  const look = () => {
    // Postgres has a command before its result is out; one look for many results is enough.
    waiting ??= setTimeout(() => { waiting = null; renew().catch(() => {}); }, 150);
  };
  source.addEventListener("changed", look);
  // What happened between the page and the stream, or while the stream was broken, is announced by nobody.
  source.addEventListener("open", look);
  addEventListener("pagehide", () => source.close());
}

const MOST_ROWS = 200;

function tail(body) {
  const button = document.getElementById("pause"), said = document.getElementById("live");
  let source = null, last = body.dataset.last || "";
  const open = () => {
    const joint = body.dataset.stream.includes("?") ? "&" : "?";
    source = new EventSource(body.dataset.stream + (last ? joint + "last=" + encodeURIComponent(last) : ""));
    source.addEventListener("rows", (event) => {
      last = event.lastEventId;
      body.insertAdjacentHTML("afterbegin", event.data);
      while (body.rows.length > MOST_ROWS) body.deleteRow(-1);
    });
    said.textContent = "New results appear at the top.";
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const pause = source !== null;
    if (pause) { source.close(); source = null; said.textContent = "Paused."; } else open();
    button.textContent = pause ? "Continue" : "Pause";
    button.setAttribute("aria-pressed", String(pause));
  });
  addEventListener("pagehide", () => source?.close());
  open();
}

// Keys: / search, j k rows, Enter opens, a b choose, d compares, ? help.
function move(step) {
  const rows = [...document.querySelectorAll("[data-row]")];
  if (!rows.length) return;
  const at = rows.findIndex((row) => row.classList.contains("at"));
  const next = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
  rows[at]?.classList.remove("at");
  next.classList.add("at");
  next.scrollIntoView({ block: "nearest" });
  next.querySelector("a")?.focus({ preventScroll: true });
}

function choose(side) {
  document.querySelector(`[data-row].at input[name=${side}]`)?.click();
}

const KEYS = {
  "/": () => document.querySelector("input[type=search]")?.focus(),
  j: () => move(1),
  k: () => move(-1),
  a: () => choose("a"),
  b: () => choose("b"),
  d: () => document.querySelector("[data-compare]")?.click(),
  "?": () => { location.href = "/help"; },
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=radio]):not([type=checkbox]), select, textarea")) return;
  const does = KEYS[event.key];
  if (!does) return;
  event.preventDefault();
  does();
});

// What somebody chose outlasts a renewal; what the page itself chose follows the newest.
main.addEventListener("click", (event) => {
  if (event.target.matches("input[type=radio]")) event.target.dataset.chosen = "";
});

localTimes(document);
if (main.dataset.live) live();
const rows = document.getElementById("tail");
if (rows) tail(rows);
