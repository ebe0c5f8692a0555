// Talk with an agent over the WebSocket edge from a page of yours: the microphone in, a voice out.
//
//     import { Talk } from "./websocket_client.js";
//     const talk = new Talk("wss://talk.example.org/socket", { onEvent: console.log });
//     button.onclick = () => talk.start();        // browsers want a click before they play
//
// It is the reference for clients of your own: docs/edges/websocket.md has the protocol.

const RATE = 24000;
const LEAD_S = 0.05; // Audio that waits, so that a late message leaves no gap.

const CAPTURE = `
registerProcessor("capture", class extends AudioWorkletProcessor {
  #held = [];
  process([[channel]]) {
    if (channel) this.#held.push(...channel);
    while (this.#held.length >= ${RATE / 50}) {
      const frame = this.#held.splice(0, ${RATE / 50});
      const pcm = Int16Array.from(frame, (x) => Math.max(-1, Math.min(1, x)) * 32767);
      this.port.postMessage(pcm.buffer, [pcm.buffer]);
    }
    return true;
  }
});`;

export class Talk {
  #socket;
  #context;
  #microphone;
  #timer;
  #epoch = 0;
  #until = 0; // Time of the context at which everything received has been played.
  #pieces = []; // What is scheduled: { source, from, to, samples }.
  #played = 0; // Samples of the epoch that have been played to their end.

  constructor(address, { token = "", parameters = {}, onEvent, onEnd } = {}) {
    Object.assign(this, { address, token, parameters, onEvent, onEnd });
  }

  async start() {
    this.#context = new AudioContext({ sampleRate: RATE });
    await this.#context.resume();
    this.#microphone = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true },
    });
    const code = URL.createObjectURL(new Blob([CAPTURE], { type: "text/javascript" }));
    await this.#context.audioWorklet.addModule(code);
    URL.revokeObjectURL(code);

    this.#socket = new WebSocket(this.address, "duologue.v1");
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () =>
      this.#send({
        type: "hello",
        token: this.token,
        rate: RATE,
        codec: "pcm",
        played: true,
        parameters: this.parameters,
      });
    this.#socket.onmessage = ({ data }) =>
      data instanceof ArrayBuffer ? this.#play(data) : this.#handle(JSON.parse(data));
    this.#socket.onclose = ({ reason }) => this.#end(reason);
  }

  text(words) {
    this.#send({ type: "text", text: words });
  }

  stop() {
    this.#send({ type: "bye" });
    this.#socket.close();
  }

  #send(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #handle(message) {
    switch (message.type) {
      case "ready":
        this.#capture();
        this.#timer = setInterval(() => this.#report(), 100);
        break;
      case "clear":
        this.#pieces.forEach(({ source }) => source.stop());
        this.#pieces = [];
        this.#until = this.#played = 0;
        this.#epoch = message.epoch;
        break;
      case "event":
        this.onEvent?.(message.event);
        break;
      case "error":
        console.error(message.message);
    }
  }

  #capture() {
    const node = new AudioWorkletNode(this.#context, "capture", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => {
      if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(data);
    };
    this.#context.createMediaStreamSource(this.#microphone).connect(node);
  }

  #play(data) {
    const pcm = new Int16Array(data);
    const buffer = this.#context.createBuffer(1, pcm.length, RATE);
    buffer.getChannelData(0).set(Float32Array.from(pcm, (x) => x / 32768));
    const source = new AudioBufferSourceNode(this.#context, { buffer });
    source.connect(this.#context.destination);
    const now = this.#context.currentTime;
    const from = this.#until > now ? this.#until : now + LEAD_S;
    this.#until = from + buffer.duration;
    source.start(from);
    this.#pieces.push({ source, to: this.#until, samples: pcm.length });
  }

  #report() {
    const heard = this.#context.currentTime - (this.#context.outputLatency || 0);
    const before = this.#played;
    while (this.#pieces.length && this.#pieces[0].to <= heard)
      this.#played += this.#pieces.shift().samples;
    if (this.#played > before)
      this.#send({ type: "played", epoch: this.#epoch, samples: this.#played });
  }

  #end(reason) {
    clearInterval(this.#timer);
    this.#microphone?.getTracks().forEach((track) => track.stop());
    this.#context?.close();
    this.onEnd?.(reason);
  }
}
