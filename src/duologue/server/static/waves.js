// The waveforms of both voices on one timeline: the person above it, the agent below.

const STEP_PX = 5;
const BAR_PX = 3;
const COLUMN_MS = 50;
const FLOOR_DB = -58;
// 30 frames a second: without a GPU, 60 take two fifths of a core that a local model may need.
const DRAW_MS = 33;

class Voice {
  #analyser;
  #samples = new Float32Array(1024);
  #source = null;
  peak = 0;

  constructor(context, source) {
    this.#analyser = context.createAnalyser();
    this.#analyser.fftSize = 1024;
    this.#source = source;
    source.connect(this.#analyser);
  }

  measure() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    let sum = 0;
    for (const sample of this.#samples) sum += sample * sample;
    const db = 10 * Math.log10(sum / this.#samples.length + 1e-9);
    this.peak = Math.max(this.peak, Math.min(1, Math.max(0, 1 - db / FLOOR_DB)));
  }

  close() {
    this.#source.disconnect();
  }
}

// The timeline before a call: two voices that take turns.
function sketch(width, who) {
  return Array.from({ length: Math.ceil(width / STEP_PX) }, (_, column) => {
    const turn = Math.sin(column / 13 + (who === "person" ? 0 : Math.PI));
    const syllable = 0.55 + 0.45 * Math.sin(column * 1.7) * Math.sin(column * 0.61 + 1);
    return turn > 0.1 ? Math.sqrt(turn) * syllable * 0.85 : 0;
  });
}

export class Waves {
  #canvas;
  #paint;
  #context = null;
  #voices = { person: null, agent: null };
  #levels = { person: [], agent: [] };
  #column = 0;
  #frame = 0;
  #timer = 0;
  #running = false;
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  #colours = {};
  #inset = 0;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#paint = canvas.getContext("2d");
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#restyle());
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#restyle();
  }

  // Leave `pixels` free at the right, where the camera's image is.
  set inset(pixels) {
    this.#inset = pixels;
    this.#draw(0);
  }

  // Must be called from a click, because browsers only then let audio be measured.
  open() {
    this.#context ??= new AudioContext({ latencyHint: "interactive" });
    this.#context.resume();
    if (this.#running) return;
    this.#running = true;
    this.#schedule();
  }

  show(who, stream) {
    this.#voices[who]?.close();
    this.#voices[who] = new Voice(this.#context, this.#context.createMediaStreamSource(stream));
  }

  close() {
    clearTimeout(this.#timer);
    cancelAnimationFrame(this.#frame);
    this.#running = false;
    for (const who of ["person", "agent"]) {
      this.#voices[who]?.close();
      this.#voices[who] = null;
      this.#levels[who] = [];
    }
    this.#context?.close();
    this.#context = null;
    this.#draw(0);
  }

  #restyle() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["person", "agent", "line"]) {
      this.#colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    this.#draw(0);
  }

  #resize() {
    const ratio = window.devicePixelRatio || 1;
    this.#canvas.width = Math.round(this.#canvas.clientWidth * ratio);
    this.#canvas.height = Math.round(this.#canvas.clientHeight * ratio);
    this.#paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.#draw(0);
  }

  #schedule() {
    // Asking for every frame of the screen costs the browser as much as drawing does.
    this.#timer = setTimeout(() => {
      this.#frame = requestAnimationFrame((now) => this.#tick(now));
    }, DRAW_MS - 10);
  }

  #tick(now) {
    this.#schedule();
    for (const voice of Object.values(this.#voices)) voice?.measure();
    const column = Math.floor(now / COLUMN_MS);
    if (column !== this.#column) {
      const maxColumns = Math.ceil(this.#canvas.clientWidth / STEP_PX) + 2;
      for (const who of ["person", "agent"]) {
        const voice = this.#voices[who];
        this.#levels[who].push(voice ? voice.peak : 0);
        if (voice) voice.peak = 0;
        if (this.#levels[who].length > maxColumns) this.#levels[who].shift();
      }
      this.#column = column;
      if (this.#still.matches && column % 4 === 0) this.#draw(0);
    }
    if (!this.#still.matches) this.#draw((now % COLUMN_MS) / COLUMN_MS);
  }

  #draw(part) {
    const paint = this.#paint;
    const width = this.#canvas.clientWidth - this.#inset;
    const height = this.#canvas.clientHeight;
    const middle = height / 2;
    paint.clearRect(0, 0, this.#canvas.clientWidth, height);
    paint.fillStyle = this.#colours.line;
    paint.fillRect(16, Math.round(middle), width - 32, 1);
    const reach = middle - 14;
    const strength = this.#running ? 1 : 0.3;
    for (const who of ["person", "agent"]) {
      const up = who === "person";
      const levels = this.#running ? this.#levels[who] : sketch(width, who);
      paint.fillStyle = this.#colours[who];
      for (let back = 0; back < levels.length; back += 1) {
        const level = levels[levels.length - 1 - back];
        const x = width - 16 - (back + part) * STEP_PX;
        if (x < 60) break;
        const tall = Math.round(level ** 1.8 * reach);
        if (tall < 2) continue;
        paint.globalAlpha = Math.min(1, (x - 60) / 80) * strength;
        paint.beginPath();
        paint.roundRect(x - BAR_PX, up ? middle - 2 - tall : middle + 3, BAR_PX, tall, BAR_PX / 2);
        paint.fill();
      }
      paint.globalAlpha = 1;
    }
  }
}
