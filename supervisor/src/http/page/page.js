
"use strict";

// What comes from the model or the service becomes text, never markup: `textContent` and text nodes alone.

const KILL_AT_TOKEN = 10;
const DEMO_MESSAGE = "Write twenty haiku about winter";
// How often the state is asked for, ms.
const LOOK_MS = 2000, LOOK_WHILE_BUSY_MS = 400, LOOK_WHILE_HIDDEN_MS = 15000;
const FIGURES_MS = 250;
// So much of an answer is read out at its end, characters.
const READ_OUT = 600;
// A browser takes this many rows at once.
const MAX_ROWS = 4000;
const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty",
  "max_tokens", "seed"];

const byId = (id) => document.getElementById(id);
const demoToken = document.querySelector("meta[name=demo-token]")?.content;

let key = "";
let messages = [];
let answers = 0;
// The answer that is being made.
let running = null;

// ---- small helpers

function make(name, className, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function announce(text) {
  byId("announcer").textContent = text;
}

const milliseconds = (ms) => ms < 10 ? `${ms.toFixed(1)} ms` : ms < 10000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

const rate = (n) => n < 100 ? n.toFixed(1) : String(Math.round(n));
// Without a zero's sign.
const logprob = (of) => (Math.round(of.logprob * 1000) / 1000 + 0).toFixed(3);
const chance = (of) => `${(Math.exp(of.logprob) * 100).toFixed(1)} %`;
// With what can't be seen: spaces at its ends, line breaks.
const quoted = (of) => make("code", "", JSON.stringify(of.token));

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; n >= 1024 && unit < units.length - 1; unit++) n /= 1024;
  return `${n >= 100 || unit === 0 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

function duration(seconds) {
  const [h, m] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return h ? `${h} h ${m} min` : m ? `${m} min ${seconds % 60} s` : `${seconds} s`;
}

/** Keeps the end of the conversation in sight for whoever was there before `change`. */
function keepingTheEnd(change) {
  const page = document.documentElement;
  const wasAtEnd = page.scrollHeight - window.innerHeight - window.scrollY < 120;
  change();
  if (wasAtEnd) window.scrollTo(0, page.scrollHeight);
}

// ---- the service

/** A request to the service that this page came from, with the key if one was given. */
function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  return fetch(path, { cache: "no-store", ...options, headers });
}

/** What an answer that is an error says. */
async function refusal(response) {
  if (response.status === 401) askForKey();
  try {
    const { error } = await response.json();
    return `${error.code ?? response.status}: ${error.message}`;
  } catch {
    return `The service answered ${response.status} ${response.statusText}.`;
  }
}

function askForKey() {
  byId("key-reason").textContent = key
    ? "The service does not know this key. Give another one."
    : "This service asks for a key. It is kept in this page's memory, until the page is closed.";
  byId("key-form").hidden = false;
  byId("key").focus();
}

async function look() {
  let health = { status: "unreachable" };
  try {
    health = await (await ask("health")).json();
  } catch {
    // It is what `unreachable` says.
  }
  showHealth(health);
  setTimeout(look, document.hidden ? LOOK_WHILE_HIDDEN_MS : running ? LOOK_WHILE_BUSY_MS : LOOK_MS);
}

function showHealth(health) {
  const state = byId("state");
  const said = health.status === "starting" ? `starting, ${health.load_percent} %` : health.status;
  if (state.dataset.state !== health.status) state.dataset.state = health.status;
  if (byId("state-text").textContent !== said) byId("state-text").textContent = said;
  if (!health.worker) return;
  const { worker, jobs, kv } = health;
  byId("model").textContent = health.model ?? "";
  const rows = [
    ["Device", health.device_name ?? health.device],
    ["Format", health.quant_kind],
    ["Context", health.context_length && count(health.context_length.toLocaleString("en"), "token")],
    ["Memory", health.vram_bytes_used && bytes(health.vram_bytes_used)],
    ["Jobs", `${jobs.running} running, ${jobs.queued} waiting`],
    ["KV pages", `${kv.pages_used} of ${kv.pages} used`],
    ["Worker", `no. ${worker.generation}${worker.pid ? `, process ${worker.pid}` : ""}`],
    ["Standby", health.standby ? "ready" : health.standby_worker ? "starting" : "none"],
    ["Workers lost", worker.restarts],
    ["Last end", worker.last_exit],
    ["Up for", duration(health.uptime_seconds)],
    ["Version", health.version],
  ];
  const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  byId("service").replaceChildren(...shown.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", String(value))]));
}

/** The service's own defaults, as what an empty field stands for. */
async function showDefaults() {
  const response = await ask("props");
  if (response.status === 401) return askForKey();
  if (!response.ok) return;
  const defaults = (await response.json()).default_generation_settings;
  for (const name of NUMBERS) {
    // They are numbers of 32 bits: 0.7 comes as 0.699999988079071.
    if (name in defaults) byId(name).placeholder = String(Number(defaults[name].toPrecision(6)));
  }
}

// ---- one answer

/** An answer as it comes: its text, what is known of its tokens, and how fast they came. */
class Answer {
  constructor(asked) {
    answers += 1;
    this.number = answers;
    this.asked = asked;
    this.text = "";
    this.reasoning = "";
    this.ids = [];
    this.logprobs = [];
    this.first = this.last = null;
    this.usage = null;
    // Since a kill was asked for: the longest time between two tokens, and what is said of it.
    this.kill = null;
    this.abort = new AbortController();
    this.unshown = [];

    this.body = make("div", "text");
    this.figures = make("p", "figures");
    this.element = make("article", "turn", make("h3", "", "Answer"), this.body, this.figures);
    this.element.setAttribute("aria-label", `Answer ${this.number}`);
    this.element.setAttribute("aria-busy", "true");
    keepingTheEnd(() => byId("conversation").append(this.element));
    this.timer = setInterval(() => this.showFigures(), FIGURES_MS);
  }

  /** A chunk of the stream. */
  take(chunk, now) {
    if (chunk.usage) this.usage = chunk.usage;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    if (choice.token_ids) this.takeTokens(choice, now);
    const { content, reasoning_content: reasoning } = choice.delta ?? {};
    if (reasoning) this.add("reasoning", reasoning);
    if (content) this.add("text", content);
    if (choice.finish_reason) this.reason = choice.finish_reason;
  }

  takeTokens(choice, now) {
    const wait = now - (this.last ?? this.kill?.since);
    if (this.kill && wait > this.kill.pause) {
      this.kill.pause = wait;
      this.unshown.push(["mark", this.text || !this.reasoning ? "text" : "reasoning"]);
      this.showSoon();
    }
    this.first ??= now;
    this.last = now;
    this.ids.push(...choice.token_ids);
    this.logprobs.push(...(choice.logprobs?.content ?? []));
  }

  add(where, text) {
    this[where] += text;
    this.unshown.push([where, text]);
    this.showSoon();
  }

  /** Many tokens may come between two pictures. */
  showSoon() {
    this.frame ??= requestAnimationFrame(() => this.show());
  }

  show() {
    cancelAnimationFrame(this.frame);
    this.frame = undefined;
    const pieces = this.unshown;
    this.unshown = [];
    if (pieces.length === 0) return;
    keepingTheEnd(() => {
      let joined = "", into = null;
      const flush = () => {
        if (joined) this.place(into).append(joined);
        joined = "";
      };
      for (const [where, piece] of pieces) {
        if (where !== into) flush();
        into = where;
        if (where === "mark") this.mark(this.place(piece));
        else joined += piece;
      }
      flush();
      this.body.normalize();
    });
  }

  place(where) {
    if (where === "text") return this.body;
    if (!this.thoughts) {
      this.thoughts = make("div", "text");
      const folded = make("details", "reasoning", make("summary", "", "Reasoning"), this.thoughts);
      this.element.insertBefore(folded, this.body);
    }
    return this.thoughts;
  }

  /** Moves the mark of the kill to the end of what is there by now. */
  mark(place) {
    this.marker ??= make("mark");
    this.marker.textContent = `killed: ${milliseconds(this.kill.pause)}`;
    place.append(this.marker);
  }

  showFigures() {
    const parts = [count(this.ids.length, "token")];
    // What came all at once has no time between its tokens: then it is that of the whole answer.
    const atOnce = this.last === this.first;
    const seconds = (this.last - (atOnce ? this.asked : this.first)) / 1000;
    const made = atOnce ? this.ids.length : this.ids.length - 1;
    if (this.ids.length > 1 && seconds > 0) parts.push(`${rate(made / seconds)} tokens/s`);
    if (this.first !== null) parts.push(`first after ${milliseconds(this.first - this.asked)}`);
    if (this.usage) parts.push(`${this.usage.prompt_tokens} in the prompt`);
    if (this.reason === "length") parts.push("cut: no more tokens were allowed");
    if (this.reason === "stopped") parts.push("stopped");
    this.figures.textContent = parts.join(" \u00b7 ");
  }

  /** Nothing more comes. */
  end(fault) {
    clearInterval(this.timer);
    this.show();
    this.showFigures();
    this.element.removeAttribute("aria-busy");
    keepingTheEnd(() => {
      if (this.kill) this.element.append(make("p", "pause", this.kill.outcome()));
      if (fault) this.fail(fault);
      if (this.ids.length) this.element.append(this.tokens());
    });
    const read = this.text.length > READ_OUT ? `${this.text.slice(0, READ_OUT)} and so on` : this.text;
    const how = fault ? "Answer failed" : this.reason === "stopped" ? "Answer stopped" : "Answer complete";
    const killed = this.kill ? `${this.kill.outcome()} ` : "";
    announce(`${how}, ${count(this.ids.length, "token")}. ${killed}${fault ?? ""} ${read}`);
  }

  fail(fault) {
    this.element.append(make("p", "error", fault));
  }

  /** Ids, and logprobs if they were asked for; made when somebody looks. */
  tokens() {
    const details = make("details", "tokens", make("summary", "", "Token ids"));
    if (this.logprobs.length) details.firstChild.append(" and logprobs");
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(this.table());
    });
    return details;
  }

  table() {
    const region = make("div", "table");
    region.tabIndex = 0;
    region.setAttribute("role", "region");
    region.setAttribute("aria-label", `Tokens of answer ${this.number}`);
    if (this.logprobs.length === 0) {
      region.append(make("p", "ids", this.ids.join(" ")));
      return region;
    }
    const heads = ["No.", "Token", "Id", "Logprob", "Alternatives"].map((name) => {
      const head = make("th", "", name);
      head.scope = "col";
      return head;
    });
    const rows = this.logprobs.slice(0, MAX_ROWS).map((of, at) => make("tr", "",
      make("td", "", String(at + 1)),
      make("td", "", quoted(of)),
      make("td", "", String(this.ids[at] ?? "")),
      make("td", "", logprob(of)),
      make("td", "", ...of.top_logprobs.flatMap((other) => [make("span", "pair", quoted(other), ` ${chance(other)}`), " "]))));
    region.append(make("table", "", make("thead", "", make("tr", "", ...heads)), make("tbody", "", ...rows)));
    return region;
  }
}

/** The data of a stream's events, as they come. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      if (block.startsWith("data: ")) yield block.slice(6);
    }
  }
}

/** What the fields of the parameters ask for. */
function parameters() {
  const wanted = {};
  for (const name of NUMBERS) {
    const value = byId(name).valueAsNumber;
    if (!Number.isNaN(value)) wanted[name] = value;
  }
  const stop = byId("stop-sequences").value.split("\n").filter((line) => line !== "");
  if (stop.length) wanted.stop = stop;
  if (byId("with-logprobs").checked) {
    wanted.logprobs = true;
    wanted.top_logprobs = byId("top_logprobs").valueAsNumber || 0;
  }
  return wanted;
}

/** Asks for an answer to the conversation and shows it as it comes. */
async function run(killAt) {
  const answer = running = new Answer(performance.now());
  const system = byId("system").value.trim();
  const conversation = system ? [{ role: "system", content: system }, ...messages] : messages;
  const body = {
    messages: conversation, stream: true, stream_options: { include_usage: true }, return_token_ids: true, ...parameters(),
  };
  showButtons();
  announce("The answer begins.");
  let fault = null;
  try {
    fault = await follow(answer, body, killAt);
  } catch (error) {
    if (answer.abort.signal.aborted) answer.reason = "stopped";
    else fault = `The connection to the service broke: ${error.message}`;
  }
  running = null;
  if (answer.text) messages.push({ role: "assistant", content: answer.text });
  await answer.kill?.done;
  answer.end(fault);
  showButtons();
}

/** Reads the stream to its end; what was wrong, if something was. */
async function follow(answer, body, killAt) {
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: answer.abort.signal,
  });
  if (!response.ok) return refusal(response);
  for await (const data of events(response)) {
    if (data === "[DONE]") return null;
    const chunk = JSON.parse(data);
    if (chunk.error) return `${chunk.error.code}: ${chunk.error.message}`;
    answer.take(chunk, performance.now());
    if (killAt && !answer.kill && answer.ids.length >= killAt) kill(answer);
  }
  return "The stream broke off before its end.";
}

// ---- the kill

/** Has the worker killed under an answer. */
function kill(answer) {
  const at = answer.ids.length;
  const record = { since: performance.now(), pause: 0, failure: "" };
  record.outcome = () => record.failure
    || `The worker was killed after token ${at}. ${record.pause ? `The answer went on after ${milliseconds(record.pause)}.` : "No token came after that."}`;
  answer.kill = record;
  showButtons();
  record.done = requestKill().then((failed) => {
    record.failure = failed;
  });
}

/** Why it did not happen, or nothing. */
async function requestKill() {
  try {
    const response = await ask("demo/kill", { method: "POST", headers: { "X-Demo-Token": demoToken } });
    if (!response.ok) return `The worker was not killed. ${await refusal(response)}`;
    const { jobs } = await response.json();
    return jobs ? "" : "The worker was killed, but the answer had been made already. Ask for a longer one.";
  } catch (error) {
    return `The worker was not killed: ${error.message}`;
  }
}

// ---- what a person does

function send(killAt) {
  const message = byId("message");
  const text = message.value.trim() === "" && killAt ? DEMO_MESSAGE : message.value;
  if (running || text.trim() === "") return message.focus();
  if (!byId("parameters").checkValidity()) {
    byId("parameters-panel").open = true;
    byId("parameters").reportValidity();
    return;
  }
  message.value = "";
  byId("nothing-yet").hidden = true;
  messages.push({ role: "user", content: text });
  const mine = make("article", "turn mine", make("h3", "", "You"), make("div", "text", text));
  mine.setAttribute("aria-label", "Your message");
  byId("conversation").append(mine);
  window.scrollTo(0, document.documentElement.scrollHeight);
  run(killAt);
}

/** Shows what can be done now, and keeps the focus where it can be seen. */
function showButtons() {
  const [sendButton, stopButton] = [byId("send"), byId("stop")];
  const hadFocus = [sendButton, stopButton].includes(document.activeElement);
  sendButton.hidden = running !== null;
  stopButton.hidden = running === null;
  if (hadFocus) (running ? stopButton : byId("message")).focus();
  byId("fresh").disabled = running !== null;
  byId("kill").hidden = byId("kill-hint").hidden = !demoToken;
  byId("kill").disabled = running?.kill != null;
  byId("kill").textContent = running ? "Kill the worker now" : "Send, then kill the worker";
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
byId("parameters").addEventListener("submit", (event) => event.preventDefault());
byId("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort.abort();
});
byId("stop").addEventListener("click", () => running?.abort.abort());
byId("kill").addEventListener("click", () => running ? kill(running) : send(KILL_AT_TOKEN));
byId("fresh").addEventListener("click", () => {
  messages = [];
  document.querySelectorAll(".turn").forEach((turn) => turn.remove());
  byId("nothing-yet").hidden = false;
  announce("New conversation.");
  byId("message").focus();
});
byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  key = byId("key").value.trim();
  byId("key").value = "";
  byId("key-form").hidden = true;
  await showDefaults().catch(() => {});
  if (byId("key-form").hidden) byId("message").focus();
});

// ---- light and dark

function showTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  byId("theme").value = theme;
}

/** A browser may keep nothing for this page: then the theme is the system's each time. */
function storedTheme() {
  try {
    const theme = localStorage.getItem("theme");
    return ["light", "dark"].includes(theme) ? theme : "";
  } catch {
    return "";
  }
}

byId("theme").addEventListener("change", (event) => {
  showTheme(event.target.value);
  try {
    localStorage.setItem("theme", event.target.value);
  } catch {
    // It holds until the page is closed.
  }
});

// ---- begin

showTheme(storedTheme());
showButtons();
if (matchMedia("(min-width: 64rem)").matches) {
  byId("parameters-panel").open = byId("service-panel").open = true;
}
// The page is there before anything is asked for.
requestAnimationFrame(() => setTimeout(() => {
  look();
  showDefaults().catch(() => {});
  if (matchMedia("(min-width: 64rem)").matches) byId("message").focus({ preventScroll: true });
}));
