// One WebRTC connection of a call: audio both ways, the camera, and reports of what was played.

const GATHER_MS = 1000;
const CONNECT_MS = 10000;
const REPORT_MS = 100;
const STATS_MS = 1000;
const LOOK_MS = 200;
const QUIET_MS = 400;
const SILENT_MS = 700;

// Events: voice(detail stream), connected, silent (no packet has come for a while), audible (they
// come again), and failed, after which it is of no more use.
export class MediaPath extends EventTarget {
  #peer;
  #channel;
  #audio;
  #video;
  #timers = [];
  #connected = false;
  #closed = false;
  #silent = false;
  #reported = null;
  #playedAt = 0;
  #packets = -1;
  #packetsAt = 0;
  #looking = false;
  #lookedAt = 0;
  #ear = null;
  #before = { delay: 0, count: 0 };

  constructor(servers, microphone, camera) {
    super();
    const peer = (this.#peer = new RTCPeerConnection({ iceServers: servers, bundlePolicy: "max-bundle" }));
    this.#channel = peer.createDataChannel("duologue", { ordered: false, maxRetransmits: 0 });
    const [track] = microphone.getAudioTracks();
    this.#audio = peer.addTransceiver(track, { direction: "sendrecv", streams: [microphone] }).sender;
    this.#video = peer.addTransceiver(camera ?? "video", { direction: "sendonly" }).sender;
    peer.addEventListener("track", ({ track: voice, streams }) => {
      if (voice.kind === "audio") this.#emit("voice", streams[0] ?? new MediaStream([voice]));
    });
    peer.addEventListener("connectionstatechange", () => this.#changed());
    this.#timers.push(setTimeout(() => this.#connected || this.#fail(), CONNECT_MS));
  }

  get connected() {
    return this.#connected && !this.#closed;
  }

  get silent() {
    return this.#silent;
  }

  // Milliseconds from the server to the ear, as far as the browser knows; null if it does not.
  get earMs() {
    return this.#ear;
  }

  async offer() {
    await this.#peer.setLocalDescription(await this.#peer.createOffer());
    await gathered(this.#peer);
    return this.#peer.localDescription.sdp;
  }

  async answer(sdp) {
    if (!this.#closed) await this.#peer.setRemoteDescription({ type: "answer", sdp });
  }

  async speak(track) {
    await this.#audio.replaceTrack(track);
  }

  async show(track) {
    await this.#video.replaceTrack(track);
  }

  close() {
    this.#closed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#peer.close();
  }

  #emit(name, detail) {
    if (!this.#closed) this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #fail() {
    this.#emit("failed");
  }

  #changed() {
    const state = this.#peer.connectionState;
    if (state === "failed") return this.#fail();
    if (state !== "connected" || this.#connected) return;
    this.#connected = true;
    this.#playedAt = this.#packetsAt = performance.now();
    this.#timers.push(setInterval(() => this.#report(), REPORT_MS));
    this.#timers.push(setInterval(() => this.#measure(), STATS_MS));
    this.#emit("connected");
  }

  // Report to the server what has really been played, so that an interruption cuts at the right word.
  #report() {
    const receiver = this.#peer.getReceivers().find(({ track }) => track.kind === "audio");
    const rtp = receiver?.getSynchronizationSources?.()[0]?.rtpTimestamp;
    const now = performance.now();
    if (rtp === undefined || rtp === this.#reported) {
      if (now - this.#playedAt > QUIET_MS) this.#look(receiver);
      return;
    }
    this.#reported = rtp;
    this.#playedAt = now;
    this.#heard();
    if (this.#channel.readyState === "open") this.#channel.send(JSON.stringify({ type: "played", rtp }));
  }

  // Nothing new was played: the network is silent, or only the browser plays nothing.
  async #look(receiver) {
    const now = performance.now();
    if (this.#looking || !receiver || now - this.#lookedAt < LOOK_MS) return;
    this.#looking = true;
    this.#lookedAt = now;
    try {
      for (const stat of (await receiver.getStats()).values()) {
        if (stat.type !== "inbound-rtp" || stat.packetsReceived === this.#packets) continue;
        this.#packets = stat.packetsReceived;
        this.#heard();
      }
    } finally {
      this.#looking = false;
    }
    if (this.#silent || performance.now() - Math.max(this.#packetsAt, this.#playedAt) < SILENT_MS) return;
    this.#silent = true;
    this.#emit("silent");
  }

  #heard() {
    this.#packetsAt = performance.now();
    if (!this.#silent) return;
    this.#silent = false;
    this.#emit("audible");
  }

  async #measure() {
    let buffer = null;
    let oneWayMs = null;
    for (const stat of (await this.#peer.getStats()).values()) {
      if (stat.type === "inbound-rtp" && stat.kind === "audio") {
        const count = stat.jitterBufferEmittedCount - this.#before.count;
        if (count > 0) buffer = ((stat.jitterBufferDelay - this.#before.delay) / count) * 1000;
        this.#before = { delay: stat.jitterBufferDelay, count: stat.jitterBufferEmittedCount };
        this.#packets = stat.packetsReceived;
      }
      if (stat.type === "candidate-pair" && stat.nominated && stat.currentRoundTripTime !== undefined) {
        oneWayMs = stat.currentRoundTripTime * 500;
      }
    }
    if (buffer !== null && oneWayMs !== null) this.#ear = buffer + oneWayMs;
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
