// One call: signalling over a WebSocket, audio and video over WebRTC. It outlives both.
//
// The server gives the call a ticket. When the socket is lost, another one shows the ticket and
// carries the call on; when no audio comes, or the network has changed, the call moves to another
// WebRTC connection, while the one before stays until the next one is connected.

import { MediaPath } from "./media.js";

const CONNECT_MS = 15000;
const REFUSAL_MS = 3000;
const RETRY_MS = 150;
const MAX_RETRY_MS = 4000;
const HANG_MS = 2500;
const CHANGE_MS = 1000;
const MAX_UNSENT = 16;
const RESTARTING = 1012;
const LOST = [1001, 1005, 1006, 1011, RESTARTING];
const PASSING = ["too_fast", "busy", "lost"];

// Events: config(detail), agent(detail name), connected, reconnecting, reconnected, event(detail),
// wrote(detail text of an earlier document), ending(detail seconds), problem(detail {code,
// message}), voice(detail stream), and exactly once ended(detail {code, reason, error, lost,
// byPerson, reached}): `lost` if the connection was lost,
// `byPerson` if this side ended the call, `reached` if the server had answered before. The server
// gets the headers, the cookies and the query of the page's own address with the call.
export class Call extends EventTarget {
  #socket = null;
  #servers = [];
  #path = null;
  #next = null;
  #offers = 0;
  #microphone;
  #camera = null;
  #token;
  #ticket;
  #only;
  #keepMs = 0;
  #received = 0;
  #unsent = [];
  #written = [];
  #muted = false;
  #patience;
  #retry = null;
  #hanging = null;
  #attempt = 0;
  #lostAt = null;
  #open = false;
  #reached = false;
  #connected = false;
  #changedAt = 0;
  #error = null;
  #over = false;

  // With a `ticket`, take up that call; if it is gone, begin another one unless `only` it is wanted.
  constructor(microphone, token, { ticket = "", only = false } = {}) {
    super();
    this.#microphone = microphone;
    this.#token = token;
    this.#ticket = ticket;
    this.#only = only;
    this.#dial();
    this.#patience = setTimeout(() => this.#fail("no_sound"), CONNECT_MS);
  }

  get earMs() {
    return this.#path?.earMs ?? null;
  }

  // What takes this call up again in another document; empty if the server does not keep calls.
  get ticket() {
    return this.#over ? "" : this.#ticket;
  }

  write(text) {
    const message = { type: "text", text };
    if (this.#ticket) this.#written.push(text);
    if (this.#open) this.#send(message);
    else if (this.#unsent.length < MAX_UNSENT) this.#unsent.push(message);
  }

  mute(muted) {
    this.#muted = muted;
    for (const track of this.#microphone.getAudioTracks()) track.enabled = !muted;
    this.#send({ type: "mute", muted });
  }

  async show(track) {
    this.#camera = track;
    await Promise.all(this.#paths.map((path) => path.show(track)));
  }

  async speak(microphone) {
    this.#microphone = microphone;
    this.mute(this.#muted);
    await Promise.all(this.#paths.map((path) => path.speak(microphone.getAudioTracks()[0])));
  }

  // The address of this side may have changed: don't wait until everything is silent.
  networkChanged() {
    const now = performance.now();
    if (this.#over || !this.#ticket || now - this.#changedAt < CHANGE_MS) return;
    this.#changedAt = now;
    this.#attempt = 0;
    this.#dial();
  }

  end() {
    this.#send({ type: "bye" });
    this.#end(1000, "", { byPerson: true });
  }

  get #paths() {
    return [this.#path, this.#next].filter(Boolean);
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #send(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #fail(code) {
    if (this.#connected) return;
    this.#error ??= { code };
    this.#end(1000, "");
  }

  #end(code, reason, { byPerson = false } = {}) {
    if (this.#over) return;
    this.#over = true;
    for (const timer of [this.#patience, this.#retry, this.#hanging]) clearTimeout(timer);
    for (const path of this.#paths) path.close();
    this.#socket.close(1000);
    const lost = !byPerson && !this.#error && LOST.includes(code);
    this.#emit("ended", { code, reason, error: this.#error, lost, byPerson, reached: this.#reached });
  }

  #dial() {
    clearTimeout(this.#retry);
    this.#retry = null;
    const before = this.#socket;
    const address = callAddress();
    address.protocol = address.protocol.replace("http", "ws");
    const socket = (this.#socket = new WebSocket(address));
    const on = (name, react) => socket.addEventListener(name, (event) => this.#socket === socket && !this.#over && react(event));
    this.#open = false;
    // Chromium complains of a socket that is closed before it is open.
    if (before?.readyState === WebSocket.CONNECTING) before.addEventListener("open", () => before.close());
    else before?.close();
    on("open", () => this.#send({ type: "hello", token: this.#token, ticket: this.#ticket, received: this.#received }));
    on("message", ({ data }) => this.#receive(JSON.parse(data)));
    on("close", ({ code, reason }) => this.#closed(code, reason));
    // A network that swallows packets lets a socket neither open nor fail.
    clearTimeout(this.#hanging);
    this.#hanging = setTimeout(() => this.#ticket && !this.#open && this.#again(), HANG_MS);
  }

  #closed(code, reason) {
    this.#open = false;
    const error = this.#error;
    if (error?.code === "gone" && this.#ticket && !this.#only) return this.#anew();
    const passing = PASSING.includes(error?.code) || (!error && LOST.includes(code) && code !== RESTARTING);
    if (!this.#ticket || !passing) return this.#end(code, reason);
    this.#error = null;
    this.#again();
  }

  // The server does not have the call any more: begin another one.
  #anew() {
    this.#error = null;
    this.#ticket = "";
    this.#received = 0;
    this.#unsent = [];
    this.#written = [];
    this.#drop();
    this.#dial();
  }

  #drop() {
    for (const path of this.#paths) path.close();
    this.#path = this.#next = null;
  }

  // Something was lost: show it, and dial again after a while that grows.
  #again() {
    if (this.#over || this.#retry !== null) return;
    if (!this.#ticket) return this.#end(1006, "");
    this.#lose();
    if (performance.now() - this.#lostAt > (this.#keepMs || CONNECT_MS)) return this.#end(1006, "");
    const wait = Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** this.#attempt) * (0.7 + 0.6 * Math.random());
    this.#attempt += 1;
    this.#retry = setTimeout(() => this.#dial(), wait);
  }

  #lose() {
    if (this.#lostAt !== null) return;
    this.#lostAt = performance.now();
    this.#emit("reconnecting");
  }

  #restored() {
    if (this.#lostAt === null || !this.#open || !this.#path?.connected || this.#path.silent) return;
    this.#lostAt = null;
    this.#attempt = 0;
    this.#emit("reconnected");
  }

  async #receive(message) {
    switch (message.type) {
      case "config":
        this.#admitted(message);
        break;
      case "agent":
        this.#emit("agent", message.name);
        break;
      case "answer":
        if (message.id === this.#offers) await (this.#next ?? this.#path).answer(message.sdp);
        break;
      case "event":
        this.#received = message.n ?? this.#received;
        this.#emit("event", message.event);
        break;
      case "wrote": {
        this.#received = message.n;
        // Before the page was loaded again, or just now; those before it were lost with a socket.
        const place = this.#written.indexOf(message.text);
        if (place < 0) this.#emit("wrote", message.text);
        else this.#written.splice(0, place + 1);
        break;
      }
      case "ending":
        this.#emit("ending", message.seconds);
        break;
      case "error":
        this.#reached = true;
        if (message.code === "bad_message") this.#emit("problem", message);
        else this.#error = message;
        break;
    }
  }

  #admitted(config) {
    this.#reached = this.#open = true;
    const moved = this.#ticket.split(".")[0] !== (config.ticket ?? "").split(".")[0];
    if (config.ticket) this.#send({ type: "ticket" });
    if (moved && this.#ticket) this.#received = 0;
    this.#ticket = config.ticket ?? "";
    this.#keepMs = (config.keep_s ?? 0) * 1000;
    this.#servers = config.ice_servers ?? [];
    this.#emit("config", config);
    const path = this.#path;
    const changed = performance.now() - this.#changedAt < CHANGE_MS * 5;
    if (!path || moved || changed || !path.connected || path.silent) this.#move(config.resumed === true);
    if (config.resumed) this.#send({ type: "mute", muted: this.#muted });
    for (const message of this.#unsent.splice(0)) this.#send(message);
    this.#restored();
  }

  // Let the call move to another connection; the one before stays until that is connected.
  async #move(restart) {
    this.#next?.close();
    const path = (this.#next = new MediaPath(this.#servers, this.#microphone, this.#camera));
    const id = (this.#offers += 1);
    const on = (name, react) => path.addEventListener(name, (event) => this.#paths.includes(path) && react(event));
    let voice = null;
    on("voice", ({ detail }) => {
      voice = detail;
      if (path === this.#path || !this.#path) this.#emit("voice", voice);
    });
    on("connected", () => {
      this.#path?.close();
      const moved = this.#path !== null;
      this.#path = path;
      this.#next = null;
      if (moved && voice) this.#emit("voice", voice);
      const first = !this.#connected;
      this.#connected = true;
      if (first || !restart) this.#emit("connected");
      this.#restored();
    });
    on("silent", () => path === this.#path && this.#silent());
    on("audible", () => this.#restored());
    on("failed", () => this.#failed(path));
    const sdp = await path.offer();
    if (this.#next === path) this.#send({ type: "offer", sdp, restart, id });
  }

  // No audio comes: the socket may be dead, too, without an event.
  #silent() {
    this.#lose();
    if (this.#ticket) this.#again();
  }

  #failed(path) {
    if (path === this.#next) {
      this.#next = null;
      path.close();
      if (!this.#path) return this.#connected && this.#ticket ? this.#again() : this.#fail("no_sound");
      if (this.#path.silent) this.#again();
      return;
    }
    if (!this.#ticket) return this.#end(1006, "");
    if (!this.#next) this.#again();
  }
}

function callAddress() {
  const address = new URL("call", document.baseURI);
  address.search = location.search;
  address.hash = "";
  return address;
}

// Return why the server refuses calls from this page, or null if it does not say.
export async function refusal() {
  try {
    const response = await fetch(callAddress(), { method: "POST", signal: AbortSignal.timeout(REFUSAL_MS) });
    return [403, 421].includes(response.status) ? (await response.text()).trim() : null;
  } catch {
    return null;
  }
}
