// The pages of recorded calls: the list, and one call with its audio. All data is in the page.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PARTS = ["turn over", "transcript", "first word", "first sound", "played"];
const KEYS = ["endpoint", "transcript", "first_text", "first_audio", "first_played"];
const PEAKS_PER_S = 50;
const DETAIL_S = 20;

function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor(whole / 60);
  const rest = String(whole % 60).padStart(2, "0");
  if (minutes < 60) return `${minutes}:${rest}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// One call

function showCall({ call, peaks, audio: source, back }) {
  $("call").hidden = false;
  $("title").textContent = call.name;
  $("agent-name").textContent = call.agent;
  if (back) {
    $("back").hidden = false;
    $("back").href = back;
  }
  const spoken = call.turns.filter((turn) => turn.who === "person" && !turn.empty);
  const facts = [call.model, clock(call.seconds), `${spoken.length} turns`];
  if (call.median_ms !== null) facts.push(`answers after ${call.median_ms} ms`);
  if (call.errors) facts.push(`${call.errors} errors`);
  $("facts").textContent = facts.filter(Boolean).join(" · ");

  const audio = $("audio");
  if (source) audio.src = source;
  const play = $("play");
  play.disabled = !source;
  let position = 0;
  let current = -1;

  const seek = (seconds) => {
    position = Math.min(Math.max(0, seconds), call.seconds);
    if (source) audio.currentTime = position;
    draw();
  };
  const toggle = () => {
    if (!source) return;
    if (audio.paused) audio.play();
    else audio.pause();
  };

  const items = call.turns.map((turn, index) => {
    const item = turnItem(turn, call);
    item.addEventListener("click", () => seek(turn.start));
    item.dataset.index = index;
    $("turns").append(item);
    return item;
  });
  for (const line of call.why) {
    const item = make("li");
    const at = make("button", "", clock(line.at));
    at.type = "button";
    at.addEventListener("click", () => seek(line.at));
    item.append(at, line.text);
    $("why").append(item);
  }
  $("why-box").hidden = !call.why.length;

  function draw() {
    $("time").textContent = `${clock(position)} / ${clock(call.seconds)}`;
    $("whole").setAttribute("aria-valuenow", Math.round(position));
    $("whole").setAttribute("aria-valuetext", clock(position));
    drawWaves($("detail"), call, peaks, position, Math.min(DETAIL_S, Math.max(call.seconds, 1)));
    drawWaves($("whole"), call, peaks, position, 0);
    let now = -1;
    call.turns.forEach((turn, index) => {
      if (turn.start <= position + 0.001 && turn.who !== "tool") now = index;
    });
    if (now !== current) {
      if (current >= 0) items[current].classList.remove("now");
      current = now;
      if (now >= 0) {
        items[now].classList.add("now");
        if (!audio.paused) items[now].scrollIntoView({ block: "nearest" });
      }
    }
  }

  let frame = 0;
  const follow = () => {
    position = audio.currentTime;
    draw();
    if (!audio.paused) frame = requestAnimationFrame(follow);
  };
  audio.addEventListener("play", () => {
    play.textContent = "Pause";
    play.setAttribute("aria-label", "Pause");
    cancelAnimationFrame(frame);
    follow();
  });
  audio.addEventListener("pause", () => {
    play.textContent = "Play";
    play.setAttribute("aria-label", "Play");
  });
  play.addEventListener("click", toggle);
  $("whole").setAttribute("aria-valuemax", Math.round(call.seconds));
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
    const shown = items.filter((item) => !item.hidden).map((item) => Number(item.dataset.index));
    const next = by > 0
      ? shown.find((index) => call.turns[index].start > position + 0.01)
      : shown.filter((index) => call.turns[index].start < position - 0.5).pop();
    if (next !== undefined) {
      seek(call.turns[next].start);
      items[next].scrollIntoView({ block: "nearest" });
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
  $("find").addEventListener("input", () => {
    const wanted = $("find").value.trim().toLowerCase();
    let found = 0;
    items.forEach((item) => {
      item.hidden = !markWords(item, wanted);
      found += !item.hidden;
    });
    $("none").hidden = found > 0;
  });
  addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}

function turnItem(turn, call) {
  const item = make("li", `turn ${turn.who}`);
  const at = make("button", "at", clock(turn.start));
  at.type = "button";
  item.append(at);
  if (turn.who === "tool") {
    item.append(make("span", "who", turn.name));
    const failed = turn.status !== "done";
    const length = `${(turn.end - turn.start).toFixed(1)} s`;
    item.append(make("span", `said${failed ? " failed" : ""}`,
      `${turn.arguments || "()"} → ${turn.output || turn.status} · ${length}`));
    return item;
  }
  item.append(make("span", "who", turn.who === "person" ? "Person" : call.agent));
  const said = make("span", "said");
  item.append(said);
  if (turn.who === "person") {
    if (turn.empty) item.classList.add("noise");
    said.append(turn.empty ? "(no speech)" : turn.text ?? "(not transcribed)");
    return item;
  }
  said.append(make("span", "heard", turn.heard));
  if (turn.unheard) said.append(make("span", "unheard", turn.unheard));
  if (turn.silent) item.append(make("span", "note", "Nothing of it was played"));
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
    context.globalAlpha = mark.kind === "error" ? 0.9 : 0.25;
    context.fillStyle = color(mark.kind === "hold" ? "person" : "danger");
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
  const bar = (span ? 3 : 2) * scale;
  const pitch = (span ? 5 : 3) * scale;
  for (const [name, up] of [["person", true], ["agent", false]]) {
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

// The list of calls

function showList(calls) {
  $("list").hidden = false;
  $("title").textContent = "Calls";
  const waits = calls.map((call) => call.median_ms).filter((value) => value !== null).sort((a, b) => a - b);
  const median = waits.length ? waits[Math.floor(waits.length / 2)] : null;
  $("facts").textContent = `${calls.length} calls${median === null ? "" : ` · answers after ${median} ms`}`;
  for (const call of calls) {
    const slow = call.worst_ms === null ? 0 : call.worst_ms / 1000;
    call.odd = call.errors * 10 + call.reconnects * 5 + (call.lost ? 5 : 0) + slow + call.interruptions / 10;
  }
  let key = "odd";
  let down = true;
  const draw = () => {
    const wanted = $("filter").value.trim().toLowerCase();
    const rows = calls.filter((call) =>
      (!wanted || `${call.name} ${call.model} ${call.text}`.toLowerCase().includes(wanted))
      && (!$("only-errors").checked || call.errors || call.lost)
      && (!$("only-cut").checked || call.interruptions)
      && (!$("only-slow").checked || (call.worst_ms ?? 0) > 1500));
    rows.sort((a, b) => {
      const [left, right] = [a[key] ?? -1, b[key] ?? -1];
      return (left < right ? -1 : left > right ? 1 : 0) * (down ? -1 : 1);
    });
    $("rows").replaceChildren(...rows.map(rowOf));
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
  draw();
}

function rowOf(call) {
  const row = make("tr");
  const name = make("td");
  const link = make("a", "", call.name);
  link.href = `calls/${encodeURIComponent(call.name)}`;
  name.append(link);
  row.append(name);
  const began = call.started_at ? new Date(call.started_at).toLocaleString() : "";
  row.append(make("td", "", began), make("td", "", call.model), make("td", "", clock(call.seconds)));
  row.append(make("td", "", String(call.turns)), make("td", "", String(call.median_ms ?? "")));
  row.append(make("td", (call.worst_ms ?? 0) > 1500 ? "bad" : "", String(call.worst_ms ?? "")));
  row.append(make("td", "", String(call.interruptions)));
  const errors = call.errors + call.reconnects;
  row.append(make("td", errors || call.lost ? "bad" : "", call.lost ? `${errors} (not whole)` : String(errors)));
  return row;
}

if (data.calls) showList(data.calls);
else showCall(data);
