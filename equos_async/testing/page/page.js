"use strict";

// What callers sent is written with textContent only: it is never read as HTML.

const byId = (id) => document.getElementById(id);

function cell(content, className = "") {
  const made = document.createElement("td");
  made.className = className;
  if (content instanceof Node) made.append(content);
  else {
    made.textContent = content;
    made.title = content;
  }
  return made;
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function row(...cells) {
  const made = document.createElement("tr");
  made.append(...cells);
  return made;
}

const whole = (number) => Math.floor(number).toLocaleString("en");
const clockTime = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);

function duration(session) {
  const made = document.createElement("span");
  const limit = session.max_duration;
  if (limit !== null) {
    const bar = document.createElement("progress");
    bar.max = limit;
    bar.value = session.seconds;
    made.append(bar);
  }
  made.append(`${whole(session.seconds)} s` + (limit === null ? "" : ` of ${whole(limit)}`));
  return made;
}

function sessionRow(session) {
  const name = cell(session.name);
  name.append(element("small", session.resource));
  name.append(element("small", `${session.status} ${session.id}`, "narrow"));
  const stop = element("button", "stop");
  stop.dataset.stop = session.id;
  const join = element("button", "join");
  join.dataset.join = session.id;
  const buttons = element("div", "", "buttons");
  buttons.append(session.joined_at === null ? join : "joined", stop);
  return row(
    name,
    cell(session.client ?? "–"),
    cell(element("span", session.status, `tag ${session.status === "running" ? "good" : "warn"}`)),
    cell(duration(session)),
    cell(session.id, "id"),
    cell(buttons),
  );
}

function requestRow(request) {
  const { status } = request;
  const kind = status === null || status >= 500 ? "bad" : status >= 400 ? "warn" : "good";
  return row(
    cell(clockTime(request.at)),
    cell(`${request.method} ${request.path}`),
    cell(status === null ? "no answer" : String(status), kind),
  );
}

function fill(id, parts) {
  const list = byId(id);
  (list.tBodies?.[0] ?? list).replaceChildren(...parts);
  list.hidden = parts.length === 0;
  byId(`no-${id}`).hidden = parts.length > 0;
}

function show(state) {
  byId("live-count").textContent = whole(state.live_count);
  byId("billed").textContent = whole(state.billed_seconds);
  byId("ended-count").textContent = whole(state.ended_count);
  byId("request-count").textContent = whole(state.request_count);
  byId("now").textContent = new Date(state.now * 1000).toISOString().replace("T", " ").slice(0, 19);
  fill("sessions", state.live.map(sessionRow));
  fill("requests", state.requests.map(requestRow));
  fill("faults", state.faults.map((fault) => element("li", fault)));
  if (byId("scenarios").childElementCount === 0) {
    byId("scenarios").append(...state.scenarios.map(scenarioButton));
  }
}

function scenarioButton(scenario) {
  const made = element("button", scenario.name);
  made.dataset.play = scenario.name;
  made.title = scenario.about;
  return made;
}

async function refresh() {
  if (document.querySelector("button:active")) return; // keep what is being clicked
  try {
    show(await (await fetch("/emulator/state")).json());
    pulse("live", "on");
  } catch {
    pulse("gone", "off");
  }
}

function pulse(text, className) {
  byId("pulse").textContent = text;
  byId("pulse").className = className;
}

async function act(action, argument) {
  const answer = await fetch(`/emulator/${action}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(argument),
  });
  const told = await answer.json();
  byId("error").textContent = told.error ?? "";
  if (answer.ok) show(told);
  return answer.ok;
}

document.addEventListener("click", ({ target }) => {
  for (const action of ["stop", "join", "fault", "play", "advance"]) {
    if (target.dataset[action] !== undefined) act(action, target.dataset[action]);
  }
});
byId("clear").addEventListener("click", () => act("clear", ""));
byId("fault").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await act("fault", event.target.elements.spec.value)) event.target.reset();
});

byId("endpoint").textContent = location.origin;
refresh();
setInterval(refresh, 1000);
