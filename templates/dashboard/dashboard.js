// Keeps the page as the node tells it, and asks for changes with the token that was typed in. The page is
// whole without this script.
"use strict";

const main = document.getElementById("main");
const cut = document.getElementById("cut");
const said = document.getElementById("said");
const outcome = document.getElementById("outcome");
const RECONNECT_MS = 2000;
const SILENT_MS = 4000;

let heard = Date.now();
let token = null; // Nowhere else: not in a cookie, not in storage.

// --- what is shown

// What has not changed stays, so that a reader's place, selection and focus stay, too.
function show(html) {
  heard = Date.now();
  cut.hidden = true;
  const next = new DOMParser().parseFromString(`<main>${html}</main>`, "text/html").querySelector("main");
  bring(main, next);
  const words = main.querySelector("[data-say]").textContent + ". " + main.querySelector("h1").textContent;
  if (said.dataset.last !== words) {
    if (said.dataset.last) said.textContent = words;
    said.dataset.last = words;
  }
  offer();
}

function bring(now, next) {
  const same = now.childNodes.length === next.childNodes.length
    && [...now.childNodes].every((child, at) => child.nodeName === next.childNodes[at].nodeName
      && child.id === next.childNodes[at].id);
  if (!same) {
    now.replaceChildren(...next.childNodes);
    return;
  }
  [...now.childNodes].forEach((child, at) => {
    const other = next.childNodes[at];
    if (child.isEqualNode(other)) return;
    if (child.nodeType !== Node.ELEMENT_NODE) {
      child.nodeValue = other.nodeValue;
      return;
    }
    for (const { name } of [...child.attributes]) if (!other.hasAttribute(name)) child.removeAttribute(name);
    for (const { name, value } of [...other.attributes]) {
      if (child.getAttribute(name) !== value) child.setAttribute(name, value);
    }
    bring(child, other);
  });
}

function listen() {
  const source = new EventSource("/dashboard/live");
  source.addEventListener("main", (event) => show(event.data));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, RECONNECT_MS);
  });
}

setInterval(() => {
  const silent = Date.now() - heard;
  if (silent < SILENT_MS) return;
  cut.hidden = false;
  cut.textContent = `This node has said nothing for ${Math.round(silent / 1000)} s: what stands here is as old as that.`;
}, 1000);

// --- what can be changed

const form = (id) => document.getElementById(id);
const select = form("to");

function offer() {
  const { standbys, paused } = form("summary").dataset;
  const names = standbys.split(" ").filter(Boolean);
  form("change").hidden = names.length === 0 && paused !== "true";
  if (select.dataset.names !== standbys) {
    select.dataset.names = standbys;
    const chosen = select.value;
    select.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
  }
  form("switch").disabled = names.length === 0;
  form("pause").textContent = paused === "true" ? "Resume" : "Pause";
}

// The header makes it ours: no other site can have a browser send it.
async function ask(method, path) {
  outcome.textContent = "…";
  try {
    const answer = await fetch(path, { method, headers: { Authorization: `Bearer ${token}` } });
    const words = (await answer.text()).trim();
    if (answer.status === 401) lock();
    outcome.textContent = words;
    return answer.ok ? words : null;
  } catch (error) {
    outcome.textContent = `This node does not answer: ${error.message}`;
    return null;
  }
}

function lock() {
  token = null;
  form("token").value = "";
  form("unlock").hidden = false;
  form("acts").hidden = true;
}

form("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  token = form("token").value.trim();
  form("token").value = "";
  form("unlock").hidden = true;
  form("acts").hidden = false;
  outcome.textContent = "";
  select.focus();
});

form("lock").addEventListener("click", () => {
  lock();
  outcome.textContent = "";
  form("token").focus();
});

form("acts").addEventListener("submit", async (event) => {
  event.preventDefault();
  const path = `/relay/switchover?to=${encodeURIComponent(select.value)}`;
  const would = await ask("POST", `${path}&dry_run=1`);
  if (would === null) return;
  outcome.textContent = "";
  const sure = form("sure");
  form("sure-words").textContent = `${would}.`;
  sure.returnValue = "no";
  sure.addEventListener("close", () => {
    if (sure.returnValue === "yes") ask("POST", path);
  }, { once: true });
  sure.showModal();
});

form("pause").addEventListener("click", () => {
  ask("PUT", `/pause?on=${form("summary").dataset.paused !== "true"}`);
});

offer();
listen();
