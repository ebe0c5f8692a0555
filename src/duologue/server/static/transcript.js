// The transcript: what both sides said or wrote, and how much of the agent was heard.

import { splitHeard } from "./heard.js";
import { latencyBar } from "./latency.js";

const MAX_TURNS = 300;
const NEAR_END_PX = 320;

export class Transcript {
  #list;
  #box;
  #spoken;
  #person = null;
  #speeches = new Map();
  #tools = new Map();
  agentName = "Agent";

  // `list` gets the turns, `box` scrolls, and screen readers read `spoken` aloud.
  constructor(list, box, spoken) {
    this.#list = list;
    this.#box = box;
    this.#spoken = spoken;
    new ResizeObserver(() => this.#follow()).observe(box);
  }

  get empty() {
    return !this.#list.childElementCount;
  }

  clear() {
    this.#list.replaceChildren();
    this.#spoken.replaceChildren();
    this.#forget();
  }

  // Begin a new call below an older one, of which nothing changes any more.
  begin() {
    for (const speech of this.#speeches.values()) {
      if (speech.settled) continue;
      this.#settle(speech, speech.heard, speech.heard.trim() !== speech.made.trim());
    }
    this.#closePerson();
    this.#forget();
  }

  personStarted() {
    this.#closePerson();
  }

  personText(text, final) {
    if (!text) return;
    let turn = this.#person;
    if (!turn || (turn.over && turn.final)) {
      turn = this.#person = { ...this.#addTurn("person", "You"), final: false, over: false };
    }
    turn.words.textContent = text;
    turn.item.classList.toggle("open", !final);
    if (final && !turn.final) {
      turn.final = true;
      this.#announce(`You: ${text}`);
    }
    this.#follow();
  }

  // Without a text, the transcript is still to come, unless the turn is empty.
  personEnded(text, empty) {
    if (text && !this.#person?.final) this.personText(text, true);
    if (empty && this.#person && !this.#person.final) this.#person.item.remove();
    this.#closePerson();
  }

  personWrote(text) {
    const turn = this.#addTurn("person", "You");
    turn.words.textContent = text;
    this.#follow();
  }

  agentText(id, text) {
    const speech = this.#speech(id);
    if (speech.cut) return;
    speech.made += text;
    // Some models send the last words of a speech after it was heard.
    if (speech.settled) speech.words.textContent = speech.made.trim();
    else this.#showHeard(speech);
    this.#follow();
  }

  // Turn further heard words of a speech from grey to black.
  agentHeard(id, text) {
    const speech = this.#speech(id);
    if (speech.settled) return;
    speech.heard += text;
    this.#showHeard(speech);
  }

  agentEnded(id, heard) {
    const speech = this.#speech(id);
    if (speech.made.length < heard.length) speech.made = heard;
    this.#settle(speech, heard, heard.trim() !== speech.made.trim());
    this.#follow();
  }

  interrupted(event) {
    for (const [id, speech] of this.#speeches) {
      if (speech.settled) continue;
      const heard = id === event.speech_id ? event.heard_text : "";
      this.#settle(speech, heard, true);
      if (id === event.speech_id && event.played_ms) {
        this.#note(speech, `Interrupted after ${(event.played_ms / 1000).toFixed(1)} s`);
      }
    }
    this.#follow();
  }

  metrics(event) {
    const speech = this.#speech(event.speech_id);
    speech.item.querySelector(".latency")?.remove();
    speech.item.append(latencyBar(event));
    this.#follow();
  }

  toolStarted(event) {
    const item = document.createElement("li");
    item.className = "turn aside";
    const line = document.createElement("p");
    line.className = "tool";
    const call = document.createElement("code");
    call.textContent = `${event.name}(${brief(event.arguments)})`;
    const state = document.createElement("span");
    state.textContent = " …";
    line.append(call, state);
    item.append(line);
    this.#tools.set(event.call_id, state);
    this.#append(item);
  }

  toolEnded(event) {
    const state = this.#tools.get(event.call_id);
    this.#tools.delete(event.call_id);
    const words = { done: "done", failed: "failed", timeout: "took too long", cancelled: "was cancelled" };
    if (state) state.textContent = ` ${words[event.status] ?? event.status} · ${event.seconds.toFixed(1)} s`;
  }

  // The whole conversation as plain text, with a paragraph for each turn.
  get text() {
    const paragraphs = [...this.#list.children].map((item) => {
      const words = item.querySelector(".words");
      if (!words) return `(${item.textContent.trim()})`;
      const struck = words.querySelector("s")?.textContent ?? "";
      const heard = struck ? words.textContent.slice(0, -struck.length) : words.textContent;
      const rest = struck ? ` [${struck[0].toLowerCase()}${struck.slice(1)}]` : "";
      return `${item.querySelector(".who").textContent}: ${heard.trim()}${rest}`;
    });
    return `${paragraphs.join("\n\n")}\n`;
  }

  line(text) {
    const item = document.createElement("li");
    item.className = "line";
    item.textContent = text;
    this.#append(item);
  }

  #forget() {
    this.#person = null;
    this.#speeches.clear();
    this.#tools.clear();
  }

  #closePerson() {
    if (!this.#person) return;
    this.#person.item.classList.remove("open");
    this.#person.over = true;
    if (this.#person.final) this.#person = null;
  }

  #speech(id) {
    let speech = this.#speeches.get(id);
    if (!speech) {
      speech = { ...this.#addTurn("agent", this.agentName), made: "", heard: "", settled: false, cut: false };
      speech.item.classList.add("open");
      this.#speeches.set(id, speech);
    }
    return speech;
  }

  #showHeard(speech) {
    const { heard, rest } = splitHeard(speech.made, speech.heard);
    const ahead = document.createElement("span");
    ahead.className = "ahead";
    ahead.textContent = rest;
    speech.words.replaceChildren(heard, ahead);
  }

  #settle(speech, heardText, cut) {
    const { heard, rest } = splitHeard(speech.made, heardText);
    speech.words.textContent = heard.trim();
    if (cut && rest.trim()) {
      const struck = document.createElement("s");
      const label = document.createElement("span");
      label.className = "unseen";
      label.textContent = "Not heard: ";
      struck.append(label, rest.trim());
      speech.words.append(" ", struck);
    }
    speech.item.classList.remove("open");
    speech.item.classList.toggle("cut", cut);
    if (!speech.settled && speech.made.trim()) {
      this.#announce(`${this.agentName}: ${heard}${cut ? " (interrupted)" : ""}`);
    }
    speech.settled = true;
    speech.cut = cut;
  }

  #note(speech, text) {
    const note = document.createElement("p");
    note.className = "note";
    note.textContent = text;
    speech.words.after(note);
  }

  #addTurn(who, name) {
    const item = document.createElement("li");
    item.className = `turn ${who}`;
    const label = document.createElement("p");
    label.className = "who";
    label.textContent = name;
    const words = document.createElement("p");
    words.className = "words";
    item.append(label, words);
    this.#append(item);
    return { item, words };
  }

  #append(item) {
    this.#list.append(item);
    while (this.#list.childElementCount > MAX_TURNS) this.#list.firstElementChild.remove();
    this.#follow();
  }

  // Scroll to the end, unless the person has scrolled up to read.
  #follow() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    if (scrollHeight - scrollTop - clientHeight < NEAR_END_PX) this.#box.scrollTop = scrollHeight;
  }

  #announce(text) {
    const line = document.createElement("p");
    line.textContent = text;
    this.#spoken.append(line);
    while (this.#spoken.childElementCount > 5) this.#spoken.firstElementChild.remove();
  }
}

function brief(text) {
  let inner = text.trim();
  try {
    const pairs = Object.entries(JSON.parse(inner));
    inner = pairs.map(([name, value]) => `${name}: ${JSON.stringify(value)}`).join(", ");
  } catch {
    // The arguments are not JSON: show the text unchanged.
  }
  return inner.length > 80 ? `${inner.slice(0, 79)}…` : inner;
}
