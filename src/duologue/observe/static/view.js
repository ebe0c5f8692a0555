// The pages of calls: the list, and one call. All data of recorded calls is in the page; what is
// said in running calls is asked of the server.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PARTS = ["turn over", "transcript", "first word", "first sound", "played"];
const KEYS = ["endpoint", "transcript", "first_text", "first_audio", "first_played"];
const PEAKS_PER_S = 50;
const DETAIL_S = 20;
const MAX_TURNS = 1000;
const POLL_MS = 400;
const LIST_MS = 1000;
const RETRY_MS = 3000;

function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor(whole / 60);
  const rest = String(whole % 60).padStart(2, "0");
  if (minutes < 60) return `${minutes}:${rest}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

function count(number, what) {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// One call; of a running one, `update` takes what has changed

function showCall({ call, peaks, audio: source, back, live }) {
  $("call").hidden = false;
  $("title").textContent = call.name;
  if (back) {
    $("back").hidden = false;
    $("back").href = back;
  }
  const audio = $("audio");
  if (source) audio.src = source;
  const play = $("play");
  play.disabled = !source && !live;
  let position = 0;
  let current = null;
  // At the end of a running call, the page follows it.
  let following = Boolean(live);
  const entries = new Map();
  let inOrder = [];

  const seek = (seconds) => {
    position = Math.min(Math.max(0, seconds), call.seconds);
    if (source) audio.currentTime = position;
    follow(live && position >= call.seconds);
    draw();
  };
  const toggle = () => {
    if (live) {
      follow(!following);
      draw();
    } else if (source && audio.paused) audio.play();
    else if (source) audio.pause();
  };

  function follow(wanted) {
    if (!live) return;
    following = Boolean(wanted);
    play.textContent = following ? "Following" : "Follow";
    play.setAttribute("aria-label", "Follow the call");
    play.setAttribute("aria-pressed", String(following));
  }

  function put(turn) {
    const item = turnItem(turn, call);
    item.addEventListener("click", () => seek(turn.start));
    item.classList.toggle("now", current === turn.id);
    entries.get(turn.id)?.item.replaceWith(item);
    entries.set(turn.id, { turn, item });
  }

  function arrange() {
    inOrder = [...entries.values()].sort((a, b) => a.turn.start - b.turn.start);
    for (const { turn, item } of inOrder.splice(0, Math.max(0, inOrder.length - MAX_TURNS))) {
      entries.delete(turn.id);
      item.remove();
    }
    call.turns = inOrder.map((entry) => entry.turn);
    const list = $("turns");
    inOrder.forEach(({ item }, index) => {
      if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
    });
    find();
  }

  function describe() {
    $("agent-name").textContent = call.agent;
    const spoken = call.turns.filter((turn) => turn.who === "person" && !turn.empty);
    const facts = [call.model, live ? "" : clock(call.seconds), count(spoken.length, "turn")];
    if (call.median_ms !== null) facts.push(`replies after ${call.median_ms} ms`);
    if (call.errors) facts.push(count(call.errors, "error"));
    $("facts").textContent = facts.filter(Boolean).join(" · ");
    $("why").replaceChildren(...call.why.map((line) => {
      const item = make("li");
      const at = make("button", "", clock(line.at));
      at.type = "button";
      at.addEventListener("click", () => seek(line.at));
      item.append(at, line.text);
      return item;
    }));
    $("why-box").hidden = !call.why.length;
    const kinds = new Set(call.marks.map((mark) => mark.kind));
    if (call.turns.some((turn) => turn.interrupted && !turn.silent)) kinds.add("cut");
    for (const shown of $("legend").children) shown.hidden = !kinds.has(shown.dataset.kind);
  }

  function draw() {
    $("time").textContent = `${clock(position)} / ${clock(call.seconds)}`;
    $("whole").setAttribute("aria-valuemax", Math.round(call.seconds));
    $("whole").setAttribute("aria-valuenow", Math.round(position));
    $("whole").setAttribute("aria-valuetext", clock(position));
    const span = live ? DETAIL_S : Math.min(DETAIL_S, Math.max(call.seconds, 1));
    drawWaves($("detail"), call, peaks, position, span);
    drawWaves($("whole"), call, peaks, position, 0);
    let now = null;
    for (const { turn } of inOrder) {
      if (turn.start <= position + 0.001 && turn.who !== "tool") now = turn.id;
    }
    if (now !== current) {
      entries.get(current)?.item.classList.remove("now");
      current = now;
      const item = entries.get(now)?.item;
      item?.classList.add("now");
      if (item && (following || !audio.paused)) item.scrollIntoView({ block: "nearest" });
    }
  }

  let frame = 0;
  const playOn = () => {
    position = audio.currentTime;
    draw();
    if (!audio.paused) frame = requestAnimationFrame(playOn);
  };
  audio.addEventListener("play", () => {
    play.textContent = "Pause";
    play.setAttribute("aria-label", "Pause");
    cancelAnimationFrame(frame);
    playOn();
  });
  audio.addEventListener("pause", () => {
    play.textContent = "Play";
    play.setAttribute("aria-label", "Play");
  });
  play.addEventListener("click", toggle);
  $("whole").addEventListener("pointerdown", (event) => {
    const drag = (move) => {
      const box = $("whole").getBoundingClientRect();
      seek(((move.clientX - box.left) / box.width) * call.seconds);
    };
    drag(event);
    $("whole").setPointerCapture(event.pointerId);
    $("whole").onpointermove = drag;
    $("whole").onpointerup = () => { $("whole").onpointermove = null; };
  });
  $("detail").addEventListener("click", (event) => {
    const box = $("detail").getBoundingClientRect();
    const span = Math.min(DETAIL_S, Math.max(call.seconds, 1));
    const begin = windowBegin(position, span, call.seconds);
    seek(begin + ((event.clientX - box.left) / box.width) * span);
  });

  const step = (by) => {
    const shown = inOrder.filter(({ item }) => !item.hidden);
    const next = by > 0
      ? shown.find(({ turn }) => turn.start > position + 0.01)
      : shown.filter(({ turn }) => turn.start < position - 0.5).pop();
    if (next) {
      seek(next.turn.start);
      next.item.scrollIntoView({ block: "nearest" });
    }
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input");
    if (typing) {
      if (event.key === "Escape") typing.blur();
      return;
    }
    if (event.key === " " && event.target.closest("button")) return;
    const keys = {
      " ": toggle,
      ArrowLeft: () => seek(position - 5),
      ArrowRight: () => seek(position + 5),
      Home: () => seek(0),
      End: () => seek(call.seconds),
      j: () => step(1),
      k: () => step(-1),
      "/": () => $("find").focus(),
    };
    const action = keys[event.key] ?? keys[event.key.toLowerCase()];
    if (action) {
      event.preventDefault();
      action();
    }
  });

  function find() {
    const wanted = $("find").value.trim().toLowerCase();
    let found = 0;
    for (const { item } of inOrder) {
      item.hidden = !markWords(item, wanted);
      found += !item.hidden;
    }
    $("none").hidden = found > 0 || !wanted;
  }
  $("find").addEventListener("input", find);
  addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  // Take what has changed in a running call; without anything, only its length.
  function update({ seconds, call: changed, turns }) {
    call.seconds = seconds;
    if (changed) {
      Object.assign(call, changed);
      turns.forEach(put);
      arrange();
    }
    for (const { turn } of inOrder) {
      if (turn.open && !turn.silent) turn.end = seconds;
    }
    if (changed) describe();
    if (following) position = seconds;
    draw();
  }

  if (live) $("does-space").textContent = "follow";
  follow(following);
  call.turns.forEach(put);
  arrange();
  describe();
  draw();
  return update;
}

function turnItem(turn, call) {
  const item = make("li", `turn ${turn.who}`);
  const at = make("button", "at", clock(turn.start));
  at.type = "button";
  item.append(at);
  if (turn.who === "tool") {
    item.append(make("span", "who", turn.name));
    const failed = turn.status !== "done" && !turn.open;
    const length = `${(turn.end - turn.start).toFixed(1)} s`;
    item.append(make("span", `said${failed ? " failed" : ""}`,
      `${turn.arguments || "()"} → ${turn.output || turn.status}${turn.open ? "" : ` · ${length}`}`));
    return item;
  }
  item.append(make("span", "who", turn.who === "person" ? "Person" : call.agent));
  const said = make("span", "said");
  item.append(said);
  if (turn.who === "person") {
    if (turn.empty) item.classList.add("noise");
    const unknown = turn.open ? "…" : "(not transcribed)";
    said.append(turn.empty ? "(no speech)" : turn.text ?? unknown);
    return item;
  }
  said.append(make("span", "heard", turn.heard));
  // While it is spoken, nobody knows yet what will not be heard.
  if (turn.unheard) said.append(make("span", turn.open ? "coming" : "unheard", turn.unheard));
  if (turn.silent && !turn.open) item.append(make("span", "note", "Nothing of it was played"));
  else if (turn.interrupted) {
    item.append(make("span", "note", `Interrupted after ${(turn.end - turn.start).toFixed(1)} s`));
  }
  if (turn.latency.first_played !== null) item.append(latencyBar(turn.latency));
  return item;
}

function latencyBar(latency) {
  const box = make("div", "latency");
  const line = make("div", "line");
  const parts = make("div", "parts");
  const scale = Math.max(1500, latency.first_played);
  let before = 0;
  KEYS.forEach((key, index) => {
    const value = latency[key];
    if (value === null || value === undefined) return;
    if (value > before) {
      const piece = make("i", `p${index}`);
      piece.style.width = `${((value - before) / scale) * 100}%`;
      line.append(piece);
      before = value;
    }
    const part = make("span", "", `${PARTS[index]} `);
    part.append(make("b", "", String(Math.round(value))));
    parts.append(part);
  });
  parts.append(make("span", "", "ms after the person"));
  box.append(line, parts);
  return box;
}

// Mark what is looked for; return whether it is there.
function markWords(item, wanted) {
  for (const mark of item.querySelectorAll("mark")) mark.replaceWith(mark.textContent);
  item.normalize();
  if (!wanted) return true;
  let found = false;
  const walker = document.createTreeWalker(item.querySelector(".said"), NodeFilter.SHOW_TEXT);
  const nodes = [];
  while (walker.nextNode()) nodes.push(walker.currentNode);
  for (const node of nodes) {
    const index = node.data.toLowerCase().indexOf(wanted);
    if (index < 0) continue;
    found = true;
    const rest = node.splitText(index);
    rest.splitText(wanted.length);
    const mark = make("mark", "", rest.data);
    rest.replaceWith(mark);
  }
  return found || item.textContent.toLowerCase().includes(wanted);
}

function windowBegin(position, span, seconds) {
  return Math.max(0, Math.min(position - span * 0.3, seconds - span));
}

// span 0: the whole call
function drawWaves(canvas, call, peaks, position, span) {
  const scale = devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(canvas.clientHeight * scale);
  if (!width || !height) return;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  const seconds = Math.max(call.seconds, 0.1);
  const shown = span || seconds;
  const begin = span ? windowBegin(position, span, seconds) : 0;
  const x = (at) => ((at - begin) / shown) * width;
  const middle = height / 2;
  for (const mark of call.marks) {
    const end = mark.end ?? seconds;
    context.globalAlpha = { error: 0.9, reconnect: 0.25 }[mark.kind] ?? 1;
    context.fillStyle = color(mark.kind === "hold" ? "mark" : "danger");
    context.fillRect(x(mark.start), 0, Math.max(2 * scale, x(end) - x(mark.start)), height);
  }
  context.globalAlpha = 1;
  for (const turn of call.turns) {
    if (turn.who === "agent" && turn.interrupted && !turn.silent) {
      context.fillStyle = color("danger");
      context.fillRect(x(turn.end), middle, 2 * scale, middle);
    }
    if (turn.who === "tool") {
      context.fillStyle = color("muted");
      context.fillRect(x(turn.start), middle - scale, Math.max(scale, x(turn.end) - x(turn.start)), 2 * scale);
    }
  }
  if (!peaks) drawSpeech(context, call, x, middle, scale, color);
  const bar = (span ? 3 : 2) * scale;
  const pitch = (span ? 5 : 3) * scale;
  for (const [name, up] of peaks ? [["person", true], ["agent", false]] : []) {
    context.fillStyle = color(name);
    const levels = peaks[name];
    for (let at = 0; at < width; at += pitch) {
      const from = Math.floor((begin + (at / width) * shown) * PEAKS_PER_S);
      const to = Math.max(from + 1, Math.floor((begin + ((at + pitch) / width) * shown) * PEAKS_PER_S));
      let loudest = 0;
      for (let index = Math.max(0, from); index < to && index < levels.length; index++) {
        if (levels[index] > loudest) loudest = levels[index];
      }
      if (loudest < 4) continue;
      const length = (loudest / 100) * (middle - 6 * scale);
      context.fillRect(at, up ? middle - 2 * scale - length : middle + 2 * scale, bar, length);
    }
  }
  context.fillStyle = color("line");
  context.fillRect(0, middle - scale / 2, width, scale);
  context.fillStyle = color("ink");
  context.fillRect(x(position) - scale, 0, 2 * scale, height);
}

// Draw when somebody speaks, where nobody has measured how loud.
function drawSpeech(context, call, x, middle, scale, color) {
  for (const turn of call.turns) {
    if (turn.who === "tool" || turn.silent) continue;
    const up = turn.who === "person";
    const length = (turn.empty ? 0.2 : 0.5) * (middle - 6 * scale);
    const width = Math.max(2 * scale, x(turn.end) - x(turn.start));
    context.fillStyle = color(turn.who);
    context.beginPath();
    context.roundRect(x(turn.start), up ? middle - 2 * scale - length : middle + 2 * scale, width, length, 4 * scale);
    context.fill();
  }
}

// The list of calls; `update` takes another one

function showList(calls, none) {
  $("list").hidden = false;
  $("title").textContent = "Calls";
  let key = "odd";
  let down = true;
  const update = (next) => {
    calls = next;
    const waits = calls.map((call) => call.median_ms ?? null).filter((value) => value !== null).sort((a, b) => a - b);
    const median = waits.length ? waits[Math.floor(waits.length / 2)] : null;
    $("facts").textContent = `${count(calls.length, "call")}${median === null ? "" : ` · replies after ${median} ms`}`;
    for (const call of calls) {
      const slow = (call.worst_ms ?? 0) / 1000;
      call.odd = (call.errors ?? 0) * 10 + (call.reconnects ?? 0) * 5 + (call.lost ? 5 : 0) + slow + (call.interruptions ?? 0) / 10;
    }
    draw();
  };
  const draw = () => {
    const wanted = $("filter").value.trim().toLowerCase();
    const rows = calls.filter((call) =>
      (!wanted || [call.name, call.model, call.text].join(" ").toLowerCase().includes(wanted))
      && (!$("only-errors").checked || call.errors || call.lost)
      && (!$("only-cut").checked || call.interruptions)
      && (!$("only-slow").checked || (call.worst_ms ?? 0) > 1500));
    rows.sort((a, b) => {
      const [left, right] = [a[key] ?? -1, b[key] ?? -1];
      return (left < right ? -1 : left > right ? 1 : 0) * (down ? -1 : 1);
    });
    const focused = document.activeElement?.dataset.call;
    $("rows").replaceChildren(...rows.map(rowOf));
    if (focused) $("rows").querySelector(`[data-call="${CSS.escape(focused)}"]`)?.focus();
    $("no-calls").textContent = calls.length ? "No call is like that." : none;
    $("no-calls").hidden = rows.length > 0;
    for (const button of document.querySelectorAll("th button")) {
      const head = button.parentElement;
      if (button.dataset.key === key) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  };
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      down = key === button.dataset.key ? !down : true;
      key = button.dataset.key;
      draw();
    });
  }
  for (const id of ["filter", "only-errors", "only-cut", "only-slow"]) $(id).addEventListener("input", draw);
  update(calls);
  return update;
}

function rowOf(call) {
  const row = make("tr");
  const name = make("td");
  const link = make("a", "", call.name);
  link.href = `calls/${encodeURIComponent(call.name)}`;
  link.dataset.call = call.name;
  name.append(link);
  row.append(name);
  const began = call.started_at ? new Date(call.started_at).toLocaleString() : "";
  row.append(make("td", "", began), make("td", "", call.model ?? ""), make("td", "", clock(call.seconds)));
  row.append(make("td", "", String(call.turns ?? "")), make("td", "", String(call.median_ms ?? "")));
  row.append(make("td", (call.worst_ms ?? 0) > 1500 ? "bad" : "", String(call.worst_ms ?? "")));
  row.append(make("td", "", String(call.interruptions ?? "")));
  const errors = (call.errors ?? 0) + (call.reconnects ?? 0);
  row.append(make("td", errors || call.lost ? "bad" : "", call.lost ? `${errors} (not whole)` : String(errors)));
  return row;
}

// Running calls

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

let token = takeToken();

function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found !== null) history.replaceState(null, "", location.pathname + location.search);
  return keepToken(found);
}

// The page to talk from keeps the same token there.
function keepToken(found) {
  try {
    if (found === null) return sessionStorage.getItem("duologue-token") ?? "";
    sessionStorage.setItem("duologue-token", found);
  } catch {
    // Without storage it lasts as long as the page.
  }
  return found ?? "";
}

async function ask(path) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { headers, cache: "no-store" });
  const body = await response.json();
  if (!response.ok) throw new Refused(response.status, body.error ?? "The server refused.");
  return body;
}

const pause = (ms) => new Promise((done) => { setTimeout(done, ms); });

// Ask for something again and again, until it is gone.
async function poll(path, every, take, isGone) {
  for (;;) {
    let answer = null;
    try {
      if (!document.hidden) answer = await ask(path());
      say("");
    } catch (error) {
      if (!(error instanceof Refused)) say("The server does not answer. Trying again.");
      else if (error.status === 401) {
        await logIn();
        continue;
      } else if (error.status === 404) return isGone();
      else say(error.message);
      await pause(RETRY_MS);
      continue;
    }
    if (answer) take(answer);
    await pause(every);
  }
}

function say(text) {
  $("status").textContent = text;
  $("status").hidden = !text;
}

function logIn() {
  say(token ? "This is not the token of the server." : "");
  $("login").hidden = false;
  $("token").focus();
  return new Promise((done) => {
    $("login").onsubmit = (event) => {
      event.preventDefault();
      token = keepToken($("token").value.trim());
      $("login").hidden = true;
      done();
    };
  });
}

async function showRunning() {
  const [, id] = /\/calls\/([^/]+)\/?$/.exec(location.pathname) ?? [];
  if (id === undefined) {
    let update = null;
    await poll(() => "calls", LIST_MS, ({ calls }) => {
      const rows = calls.map((call) => ({ ...call, name: call.id, started_at: call.started_at * 1000 }));
      if (update) update(rows);
      else update = showList(rows, "No call is running.");
    }, () => say("This server has no calls."));
    return;
  }
  const name = decodeURIComponent(id);
  document.title = `${name} - duologue`;
  $("title").textContent = name;
  $("back").hidden = false;
  $("back").href = "../calls";
  let update = null;
  let version = 0;
  let ahead = 0;
  const now = () => performance.now() / 1000 + ahead;
  const timer = setInterval(() => update?.({ seconds: now() }), 250);
  await poll(() => `${id}/changes?after=${version}`, POLL_MS, (answer) => {
    version = answer.version;
    ahead = answer.seconds - performance.now() / 1000;
    if (answer.call && !update) {
      const call = { name, seconds: answer.seconds, turns: [], ...answer.call };
      update = showCall({ call, peaks: null, audio: "", back: "../calls", live: true });
    }
    update?.(answer);
  }, () => {
    clearInterval(timer);
    say(update ? "The call is over." : "There is no such call, or it is over.");
  });
}

if (data.live) showRunning();
else if (data.calls) showList(data.calls, "There is no call.");
else showCall(data);
