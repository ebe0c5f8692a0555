// Opens the microphone, with the browser's own echo cancellation, and the next one when it is gone.

const LATER_MS = 300;

// Events: changed(detail stream) when the call must go on with another microphone, and gone when
// there is none; "changed" follows as soon as there is one again.
export class Microphones extends EventTarget {
  #stream = null;
  #searching = false;

  constructor() {
    super();
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.#look());
  }

  open() {
    return navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
  }

  // Notice when the microphone of this stream is gone; null stops that.
  follow(stream) {
    this.#stream = stream;
    stream?.getAudioTracks()[0].addEventListener("ended", () => stream === this.#stream && this.#next());
  }

  // Not every browser ends a track when its device is gone.
  async #look() {
    const stream = this.#stream;
    const [track] = stream?.getAudioTracks() ?? [];
    if (!track) return;
    const id = track.getSettings().deviceId;
    const there = (await navigator.mediaDevices.enumerateDevices()).some((device) => device.kind === "audioinput" && device.deviceId === id);
    if (stream === this.#stream && (track.readyState === "ended" || (id && !there))) this.#next();
  }

  async #next() {
    if (this.#searching) return;
    this.#searching = true;
    const stream = this.#stream;
    try {
      // The system may still name the device that is gone as its default.
      const next = await this.open().catch(() => later(LATER_MS).then(() => this.open()));
      if (stream !== this.#stream) return next.getTracks().forEach((track) => track.stop());
      for (const track of stream.getTracks()) track.stop();
      this.follow(next);
      this.dispatchEvent(new CustomEvent("changed", { detail: next }));
    } catch {
      if (stream === this.#stream) this.dispatchEvent(new CustomEvent("gone"));
    } finally {
      this.#searching = false;
    }
  }
}

function later(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
