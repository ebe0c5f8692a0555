// One call: signalling over a WebSocket, audio and video over WebRTC.

const GATHER_MS = 1000;
const CONNECT_MS = 15000;
const REPORT_MS = 100;
const STATS_MS = 1000;
const REFUSAL_MS = 3000;
const CLOSE_GOING_AWAY = [1001, 1005, 1006, 1012];

// Events: config(detail), agent(detail name), connected, unstable, stable, event(detail),
// ending(detail seconds), problem(detail {code, message}), voice(detail stream), and exactly once
// ended(detail {code, reason, error, lost, byPerson, reached}): `lost` if the connection was lost,
// `byPerson` if this side ended the call, `reached` if the server had answered before. The server
// gets the headers, the cookies and the query of the page's own address with the call.
export class Call extends EventTarget {
  #socket;
  #peer = null;
  #channel = null;
  #video = null;
  #microphone;
  #token;
  #timers = [];
  #reached = false;
  #connected = false;
  #error = null;
  #over = false;
  #reported = null;
  #ear = null;
  #before = { delay: 0, count: 0 };

  constructor(microphone, token) {
    super();
    this.#microphone = microphone;
    this.#token = token;
    const address = callAddress();
    address.protocol = address.protocol.replace("http", "ws");
    this.#socket = new WebSocket(address);
    this.#socket.addEventListener("open", () => this.#send({ type: "hello", token: this.#token }));
    this.#socket.addEventListener("message", ({ data }) => this.#receive(JSON.parse(data)));
    this.#socket.addEventListener("close", ({ code, reason }) => this.#end(code, reason));
    this.#later(() => this.#fail("no_sound"), CONNECT_MS);
  }

  // Milliseconds from the server to the ear, as far as the browser knows; null if it does not.
  get earMs() {
    return this.#ear;
  }

  write(text) {
    this.#send({ type: "text", text });
  }

  mute(muted) {
    for (const track of this.#microphone.getAudioTracks()) track.enabled = !muted;
    this.#send({ type: "mute", muted });
  }

  async show(track) {
    await this.#video?.replaceTrack(track);
  }

  end() {
    this.#send({ type: "bye" });
    this.#end(1000, "", { byPerson: true });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #later(action, ms) {
    this.#timers.push(setTimeout(action, ms));
  }

  #every(action, ms) {
    this.#timers.push(setInterval(action, ms));
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
    for (const timer of this.#timers) clearTimeout(timer);
    this.#peer?.close();
    this.#socket.close();
    const lost = !byPerson && !this.#error && CLOSE_GOING_AWAY.includes(code);
    this.#emit("ended", { code, reason, error: this.#error, lost, byPerson, reached: this.#reached });
  }

  async #receive(message) {
    if (this.#over) return;
    switch (message.type) {
      case "config":
        this.#reached = true;
        this.#emit("config", message);
        await this.#offer(message.ice_servers ?? []);
        break;
      case "agent":
        this.#emit("agent", message.name);
        break;
      case "answer":
        await this.#peer.setRemoteDescription({ type: "answer", sdp: message.sdp });
        break;
      case "event":
        this.#emit("event", message.event);
        break;
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

  async #offer(servers) {
    const peer = (this.#peer = new RTCPeerConnection({ iceServers: servers, bundlePolicy: "max-bundle" }));
    this.#channel = peer.createDataChannel("duologue", { ordered: false, maxRetransmits: 0 });
    const [track] = this.#microphone.getAudioTracks();
    peer.addTransceiver(track, { direction: "sendrecv", streams: [this.#microphone] });
    this.#video = peer.addTransceiver("video", { direction: "sendonly" }).sender;
    peer.addEventListener("track", ({ track: voice, streams }) => {
      if (voice.kind === "audio") this.#emit("voice", streams[0] ?? new MediaStream([voice]));
    });
    peer.addEventListener("connectionstatechange", () => this.#connectionChanged());
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    this.#send({ type: "offer", sdp: peer.localDescription.sdp });
  }

  #connectionChanged() {
    switch (this.#peer.connectionState) {
      case "connected":
        if (this.#connected) {
          this.#emit("stable");
          break;
        }
        this.#connected = true;
        this.#emit("connected");
        this.#every(() => this.#report(), REPORT_MS);
        this.#every(() => this.#measure(), STATS_MS);
        break;
      case "disconnected":
        this.#emit("unstable");
        break;
      case "failed":
        this.#end(1006, "");
        break;
    }
  }

  // Report to the server what has really been played, so that an interruption cuts at the right word.
  #report() {
    if (this.#channel?.readyState !== "open") return;
    const receiver = this.#peer.getReceivers().find(({ track }) => track.kind === "audio");
    const rtp = receiver?.getSynchronizationSources?.()[0]?.rtpTimestamp;
    if (rtp === undefined || rtp === this.#reported) return;
    this.#reported = rtp;
    this.#channel.send(JSON.stringify({ type: "played", rtp }));
  }

  async #measure() {
    let buffer = null;
    let oneWayMs = null;
    for (const stat of (await this.#peer.getStats()).values()) {
      if (stat.type === "inbound-rtp" && stat.kind === "audio") {
        const count = stat.jitterBufferEmittedCount - this.#before.count;
        if (count > 0) buffer = ((stat.jitterBufferDelay - this.#before.delay) / count) * 1000;
        this.#before = { delay: stat.jitterBufferDelay, count: stat.jitterBufferEmittedCount };
      }
      if (stat.type === "candidate-pair" && stat.nominated && stat.currentRoundTripTime !== undefined) {
        oneWayMs = stat.currentRoundTripTime * 500;
      }
    }
    if (buffer !== null && oneWayMs !== null) this.#ear = buffer + oneWayMs;
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

function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, GATHER_MS);
    peer.addEventListener("icegatheringstatechange", () => {
      if (peer.iceGatheringState !== "complete") return;
      clearTimeout(timer);
      resolve();
    });
  });
}
