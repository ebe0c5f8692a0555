// A bar with the latencies of one reply, in ms after the end of the person's speech.

const FULL_MS = 1500;

const STEPS = [
  ["endpoint_ms", "endpoint", "turn over"],
  ["first_text_ms", "text", "first word"],
  ["first_played_ms", "sound", "first sound"],
  ["ear_ms", "ear", "in your ear"],
];

export function latencyBar(metrics) {
  const steps = STEPS.map(([field, name, label]) => ({ name, label, at: metrics[field] }))
    .filter((step) => Number.isFinite(step.at))
    .map((step) => ({ ...step, at: Math.max(0, step.at) }))
    .sort((a, b) => a.at - b.at);
  const bar = document.createElement("div");
  bar.className = "latency";
  if (!steps.length) return bar;

  const labels = steps.map((step) => `${step.label} after ${Math.round(step.at)} ms`);
  const track = document.createElement("div");
  track.className = "track";
  track.setAttribute("role", "img");
  track.setAttribute("aria-label", `From when you stopped speaking: ${labels.join(", ")}`);
  const full = Math.max(FULL_MS, steps.at(-1).at);
  let from = 0;
  for (const step of steps) {
    const part = document.createElement("span");
    part.className = `step-${step.name}`;
    part.style.width = `${((step.at - from) / full) * 100}%`;
    from = step.at;
    track.append(part);
  }

  const legend = document.createElement("p");
  legend.className = "legend";
  legend.setAttribute("aria-hidden", "true");
  for (const step of steps) {
    const entry = document.createElement("span");
    entry.className = `step-${step.name}`;
    const value = document.createElement("b");
    value.textContent = `${step.name === "ear" ? "≈ " : ""}${Math.round(step.at)}`;
    entry.append(`${step.label} `, value, step === steps.at(-1) ? " ms" : "");
    legend.append(entry);
  }
  bar.append(track, legend);
  return bar;
}

// Computes the median latency of the replies.
export class Pace {
  #times = [];

  add(ms) {
    if (!Number.isFinite(ms)) return;
    this.#times.push(ms);
    if (this.#times.length > 50) this.#times.shift();
  }

  clear() {
    this.#times = [];
  }

  get text() {
    if (!this.#times.length) return "";
    const sorted = [...this.#times].sort((a, b) => a - b);
    return `replies after ${Math.round(sorted[sorted.length >> 1])} ms`;
  }
}
