// Keys that work anywhere on the page. They follow WCAG 2.1.4: a setting turns them off, and a
// single accidental key never ends a call.

const AGAIN_MS = 3000;
const STORED = "duologue-shortcuts";

export class Shortcuts {
  #setting;
  #hint;
  #mute;
  #actions;
  #escapedAt = -Infinity;

  // `setting` is the checkbox, `hint` shows the keys, `mute` is the button that M stands for.
  constructor({ setting, hint, mute, ...actions }) {
    this.#setting = setting;
    this.#hint = hint;
    this.#mute = mute;
    this.#actions = actions;
    setting.checked = stored() !== "off";
    setting.addEventListener("change", () => this.#settingChanged());
    document.addEventListener("keydown", (event) => this.#keyPressed(event));
    this.#settingChanged();
  }

  #settingChanged() {
    const on = this.#setting.checked;
    store(on ? "on" : "off");
    this.#hint.hidden = !on;
    if (on) this.#mute.setAttribute("aria-keyshortcuts", "M");
    else this.#mute.removeAttribute("aria-keyshortcuts");
  }

  #keyPressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const field = event.target instanceof HTMLInputElement && event.target.type === "text";
    if (field && event.key === "Escape") {
      event.target.blur();
      if (event.target.value) return;
    } else if (field) {
      return;
    }
    if (!this.#setting.checked || !this.#actions.active()) return;
    if (document.querySelector(":popover-open")) return;
    if (event.key === "Escape") this.#escape(performance.now());
    else if (event.key === "m" || event.key === "M") {
      if (!this.#mute.hidden) this.#actions.onMute();
    }
  }

  #escape(now) {
    const again = now - this.#escapedAt < AGAIN_MS;
    this.#escapedAt = again ? -Infinity : now;
    if (again) this.#actions.onEnd();
    else this.#actions.onWarn();
  }
}

// A browser may refuse storage; the setting then lasts as long as the page.
function stored() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null;
  }
}

function store(value) {
  try {
    localStorage.setItem(STORED, value);
  } catch {
    // See above.
  }
}
