// Event content reaches the page as text only (textContent, never markup) and unchanged (never through JSON.parse).

const byId = (id) => document.getElementById(id);
const list = byId("list");
const detail = byId("detail");
const stacked = matchMedia("(max-width: 900px)");
const webhooks = new Map();
const REMEMBERED = 1000; // as many as the sandbox remembers
let chosen = null;
let awaited = null;

const LABELS = { forwarded: "Forwarded", ignored: "Ignored", rejected: "Rejected", failed: "Failed" };
const SIGNS = { added: ["+", "added by the filter: "], left_out: ["−", "left out: "] };

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function badge(place, webhook) {
  place.textContent = LABELS[webhook.outcome];
  place.className = `badge ${webhook.outcome}`;
}

const statusLine = (answer) => [answer.status || "", answer.status_text].join(" ").trim();
const typeOf = (webhook) => webhook.event_type ?? "type not read";
const reasonOf = (webhook) => (webhook.outcome === "forwarded" ? "" : webhook.reason);

// The list.

function learn(webhook) {
  let option = webhooks.get(webhook.id)?.option;
  if (!option) {
    option = byId("option").content.firstElementChild.cloneNode(true);
    option.id = `webhook-${webhook.id}`;
    option.addEventListener("click", async () => {
      await choose(webhook.id);
      if (stacked.matches) detail.scrollIntoView();
    });
    list.prepend(option);
    if (webhooks.size === REMEMBERED) forgetOldest();
  }
  webhooks.set(webhook.id, { ...webhook, option });
  option.setAttribute("aria-selected", webhook.id === chosen);
  const type = option.querySelector(".type");
  type.textContent = typeOf(webhook);
  type.classList.toggle("unknown", webhook.event_type === null);
  badge(option.querySelector(".badge"), webhook);
  const more = [webhook.status || "no answer", reasonOf(webhook), webhook.environment];
  option.querySelector(".more").textContent = more.filter(Boolean).join(" · ");
  const time = option.querySelector("time");
  time.dateTime = webhook.time;
  time.textContent = clock.format(new Date(webhook.time));
  byId("count").textContent = webhooks.size === 1 ? "1" : `${webhooks.size}, newest first`;

  if (webhook.id === awaited) {
    awaited = null;
    choose(webhook.id);
  } else if (webhook.id === chosen) {
    show(webhook.id);
  }
}

function forgetOldest() {
  const [id, { option }] = webhooks.entries().next().value;
  option.remove();
  webhooks.delete(id);
}

function choose(id) {
  webhooks.get(chosen)?.option.setAttribute("aria-selected", "false");
  chosen = id;
  const { option } = webhooks.get(id);
  option.setAttribute("aria-selected", "true");
  option.scrollIntoView({ block: "nearest" });
  list.setAttribute("aria-activedescendant", option.id);
  return show(id);
}

list.addEventListener("keydown", (event) => {
  const current = webhooks.get(chosen)?.option;
  const next = {
    ArrowDown: current ? current.nextElementSibling : list.firstElementChild,
    ArrowUp: current ? current.previousElementSibling : list.firstElementChild,
    Home: list.firstElementChild,
    End: list.lastElementChild,
  };
  if (!(event.key in next) || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  if (next[event.key]) choose(next[event.key].id.replace("webhook-", ""));
});

// One webhook.

async function show(id) {
  const response = await fetch(`webhooks/${encodeURIComponent(id)}`);
  if (!response.ok || id !== chosen) return;
  const webhook = await response.json();
  if (id !== chosen) return;

  const shown = byId("shown").content.cloneNode(true);
  const find = (selector) => shown.querySelector(selector);
  find("h2").textContent = typeOf(webhook);
  badge(find(".badge"), webhook);
  facts(find(".facts"), webhook);
  find(".answer").classList.add(webhook.outcome);
  find(".status").textContent = statusLine(webhook);
  find(".body").textContent = webhook.answer;
  find(".summary").textContent = summary(webhook);
  const again = find(".again");
  again.hidden = webhook.rows === null;
  const name = `${typeOf(webhook)} again`;
  again.addEventListener("click", () => send(name, `webhooks/${encodeURIComponent(id)}/again`, again));
  if (webhook.rows) {
    find("tbody").append(...webhook.rows.map(row));
    find("table").classList.toggle("alone", webhook.properties === null);
    find(".hidden").textContent = webhook.hidden ? `… and ${webhook.hidden.toLocaleString()} more lines` : "";
  } else {
    find("table").remove();
  }
  detail.replaceChildren(shown);
}

function facts(place, webhook) {
  const shown = {
    received: new Date(webhook.time).toLocaleString(),
    ...(webhook.environment && { environment: webhook.environment }),
    outcome: webhook.reason,
    body: `${webhook.bytes.toLocaleString()} bytes`,
    took: `${webhook.duration_ms} ms`,
    ...(webhook.attempts > 1 && { attempts: webhook.attempts }),
    "request id": webhook.id.startsWith("none-") ? "none" : webhook.id,
  };
  for (const [name, value] of Object.entries(shown)) {
    const fact = element("div", "");
    fact.append(element("dt", name), element("dd", value));
    place.append(fact);
  }
}

function summary({ outcome, properties, path, sentence, rows }) {
  if (properties) {
    const what = properties === "unchanged" ? "the event is in properties, byte for byte."
      : properties === "missing" ? "the event is not in it."
      : properties.without.length === 0 ? "the event is in properties, byte for byte, without the white space around it."
      : `left out of properties: ${properties.without.join(", ")}.`;
    return `Sent to ${path}; ${what}`;
  }
  if (path) return `Sent to ${path}; ${rows ? "nested too deep to be compared here." : "Stigg's event itself was not seen."}`;
  if (outcome === "failed") return "Segment was not reached.";
  return ["Sent nothing.", sentence ?? "The answer above says why.", rows ? "" : "The body was not read."].join(" ");
}

function row({ mark, event, call, origin }) {
  const made = element("tr", "", mark);
  made.append(origin ? element("td", origin, "origin") : cell(event, mark), cell(call, mark));
  return made;
}

function cell(line, mark) {
  const made = document.createElement("td");
  if (!line) return made;
  const [sign, meaning] = SIGNS[mark] ?? [];
  if (sign) {
    const visible = element("span", sign, "sign");
    visible.ariaHidden = "true";
    made.append(visible, element("span", meaning, "unseen"));
  }
  const text = element("span", line.text, "text");
  text.style.setProperty("--depth", Math.min(line.depth, 24));
  made.append(text);
  return made;
}

// Sending.

async function send(name, url, button) {
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true"; // not `disabled`, which would remove the focus
  try {
    const response = await fetch(url, { method: "POST" });
    if (!response.ok) throw new Error(await response.text());
    const answer = await response.json();
    byId("sent").textContent = `${name}: ${statusLine(answer)}`;
    if (webhooks.has(answer.id)) choose(answer.id);
    else awaited = answer.id;
  } catch (error) {
    byId("sent").textContent = `${name} was not sent: ${error.message}`;
  } finally {
    button.ariaDisabled = "false";
  }
}

byId("search").addEventListener("input", ({ target }) => {
  const wanted = target.value.trim().toLowerCase();
  const buttons = [...byId("events").children];
  for (const button of buttons) button.hidden = !button.textContent.toLowerCase().includes(wanted);
  byId("no-match").hidden = buttons.some((button) => !button.hidden);
});

const about = await (await fetch("about")).json();
byId("file").textContent = about.file;
byId("configuration").textContent = about.configuration;
byId("warnings").append(...about.warnings.map((warning) => element("li", warning)));
byId("environment").append(...about.environments.map((path) => element("option", path)));
byId("to").hidden = about.environments.length === 1;

for (const name of await (await fetch("events")).json()) {
  const button = element("button", name);
  button.type = "button";
  const url = () => `events/${encodeURIComponent(byId("environment").value)}/${encodeURIComponent(name)}`;
  button.addEventListener("click", () => send(name, url(), button));
  byId("events").append(button);
}

// Live.

const source = new EventSource("webhooks");
const connection = byId("connection");
source.addEventListener("open", () => {
  // Each connection starts with all known webhooks; the sandbox may have been restarted.
  webhooks.clear();
  list.replaceChildren();
  connection.textContent = "live";
  connection.className = "live";
});
source.addEventListener("error", () => {
  connection.textContent = "not connected: is make run still running?";
  connection.className = "";
});
source.addEventListener("message", ({ data }) => learn(JSON.parse(data)));
