// Keeps the page as it would be if it were loaded anew. Without it the page is as good, and as old as it is.
"use strict";

const content = () => document.getElementById("mvsched");

function notice(text) {
  let line = document.getElementById("mvsched-notice");
  if (!line) {
    line = document.createElement("p");
    line.id = "mvsched-notice";
    line.setAttribute("role", "status");
    content().before(line);
  }
  line.textContent = text;
  line.hidden = text === "";
}

// What the reader has opened, how far it is scrolled, and where the focus is, stays; all are known by their ids.
function replace(html) {
  const open = new Map(Array.from(content().querySelectorAll("details[id]"), (d) => [d.id, d.open]));
  const scrolled = new Map(Array.from(content().querySelectorAll(".scroll[id]"), (s) => [s.id, s.scrollLeft]));
  const focus = document.activeElement && document.activeElement.id;
  const [left, top] = [window.scrollX, window.scrollY];
  content().outerHTML = html;
  document.title = content().querySelector(".title").textContent + ": " + content().querySelector("h1").textContent;
  for (const details of content().querySelectorAll("details[id]")) {
    if (open.has(details.id)) details.open = open.get(details.id);
  }
  for (const box of content().querySelectorAll(".scroll[id]")) box.scrollLeft = scrolled.get(box.id) || 0;
  window.scrollTo({ left, top, behavior: "instant" });
  const focused = focus && document.getElementById(focus);
  if (focused && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

// Runs have ended whose end is all that is known yet. The next content, within about a second, has the rest; until then the row
// says nothing that is not true any more.
function ended(runs) {
  for (const run of runs) {
    const row = content().querySelector(`.status tr[data-view="${CSS.escape(run.view)}"]`);
    if (!row) continue;
    const [, state, , , last, took, rows] = row.cells;
    const word = document.createElement("b");
    word.textContent = run.status;
    state.className = "";
    state.replaceChildren(word);
    last.textContent = "just now";
    took.textContent = rows.textContent = "…";
  }
}

function follow() {
  const source = new EventSource("events");
  source.addEventListener("body", (event) => replace(event.data));
  source.addEventListener("ended", (event) => ended(JSON.parse(event.data)));
  source.addEventListener("notice", (event) => notice(event.data));
  source.onerror = () => {
    notice("mvsched does not answer. What stands here is old; it goes on by itself when mvsched is back.");
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 5000);
  };
}

follow();
