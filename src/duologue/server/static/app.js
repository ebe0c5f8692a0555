// The page: connects the buttons, the call, the waveforms and the transcript.

import { Call, refusal } from "./call.js";
import { openCamera } from "./camera.js";
import { Pace } from "./latency.js";
import { Microphones } from "./microphones.js";
import { MIC_GONE, NO_SOUND, UNREACHABLE, closeSentence, deviceSentence, endingSentence, nextMicrophoneSentence, unsupported } from "./sentences.js";
import { Shortcuts } from "./shortcuts.js";
import { Transcript } from "./transcript.js";
import { Waves } from "./waves.js";

const MAX_RETRIES = 6;
const RETRY_MS = 1000;
const HEALTHY_MS = 10000;
const RESTARTING = 1012;

const at = (id) => document.getElementById(id);
const body = document.body;
const transcript = new Transcript(at("turns"), at("log"), at("spoken"));
const waves = new Waves(at("waves"));
const pace = new Pace();
const token = takeToken();
const microphones = new Microphones();

let call = null;
let microphone = null;
let silence = null;
let camera = null;
let model = null;
let muted = false;
let attempt = 0;
let timer = null;
let connectedAt = 0;
let attemptId = 0;
let ticket = "";
let fresh = true;
let status = "";

// States: idle, connecting, live, retrying.
function state(name, status) {
  body.dataset.call = name;
  delete body.dataset.line;
  if (name !== "live") delete body.dataset.turn;
  say(status);
  announce(name === "live" ? "Connected" : status);
  at("talk").textContent = name === "idle" ? "Talk" : "End";
  at("compose").hidden = name !== "live";
  showButtons();
}

function turn(name, status) {
  if (body.dataset.call !== "live") return;
  body.dataset.turn = name;
  say(status);
}

// Show the current state in the corner, and in the title for people who look at another tab.
function say(text) {
  status = text;
  if (body.dataset.line) text = "Reconnecting";
  at("status-text").textContent = text;
  const name = transcript.agentName;
  document.title = body.dataset.call === "idle" ? `${name} · duologue` : `${text} · ${name}`;
}

// Let screen readers read a text aloud.
function announce(text) {
  at("call-state").textContent = text;
}

function showButtons() {
  const idle = body.dataset.call === "idle";
  at("write").hidden = !idle;
  at("mute").hidden = idle || silence !== null;
  at("camera").hidden = idle || !model?.video;
  if (model && !model.video && camera) closeCamera();
}

function notice(text, kind = "note") {
  at("notice").dataset.kind = kind;
  at("notice-text").textContent = text;
  at("notice").hidden = !text;
}

async function talk(options) {
  const id = begin("Asking for the microphone");
  if (!id) return;
  let stream;
  try {
    stream = await microphones.open();
  } catch (error) {
    if (id !== attemptId) return;
    stop("Ready");
    return notice(`${deviceSentence(error, "microphone")} Or write instead.`, "error");
  }
  if (id !== attemptId) return stream.getTracks().forEach((track) => track.stop());
  microphones.follow(stream);
  join(stream, options);
}

// Go on with the next microphone, or without one until there is one again.
microphones.addEventListener("changed", ({ detail: stream }) => {
  if (!microphone || silence) return;
  microphone = stream;
  waves.show("person", stream);
  call?.speak(stream);
  setMuted(muted);
  notice(nextMicrophoneSentence(stream.getAudioTracks()[0].label));
});
microphones.addEventListener("gone", () => microphone && !silence && notice(MIC_GONE, "error"));

// Take up the call that this window had before it was loaded again.
function takeUp() {
  let left = null;
  try {
    left = JSON.parse(sessionStorage.getItem("duologue-call"));
    sessionStorage.removeItem("duologue-call");
  } catch {
    return;
  }
  if (!left) return;
  const options = { ticket: left.ticket, only: true };
  muted = left.muted;
  if (left.writes) write(options);
  else talk(options);
}

// Keep the ticket while the page is loaded again, and no longer.
function leave() {
  if (!call?.ticket) return call?.end();
  try {
    sessionStorage.setItem("duologue-call", JSON.stringify({ ticket: call.ticket, muted, writes: silence !== null }));
  } catch {
    call.end();
  }
}

// Begin a call without a microphone: the person writes, and their audio is silence.
function write(options) {
  if (!begin("Connecting")) return;
  silence = new AudioContext();
  join(silence.createMediaStreamDestination().stream, options);
  at("person-name").textContent = "You, writing";
}

// Return a number that equals `attemptId` until another call begins or this one ends.
function begin(status) {
  const problem = unsupported();
  if (problem) return notice(problem, "error");
  notice("");
  attempt = 0;
  attemptId += 1;
  waves.open();
  state("connecting", status);
  return attemptId;
}

function join(stream, options) {
  microphone = stream;
  waves.show("person", microphone);
  setMuted(options ? muted : false);
  pace.clear();
  at("pace").textContent = "";
  transcript.clear();
  dial(options);
}

function dial(options = { ticket }) {
  model = null;
  state(attempt ? "retrying" : "connecting", attempt || options.only ? "Reconnecting" : "Connecting");
  const next = (call = new Call(microphone, token, options));
  const on = (name, react) =>
    next.addEventListener(name, ({ detail }) => call === next && react(detail));
  on("config", (config) => {
    ticket = config.ticket ?? "";
    fresh = !config.resumed;
    if (fresh) model = null;
    nameAgent(config.agent ?? "Agent");
    at("welcome").hidden = true;
  });
  on("agent", nameAgent);
  on("voice", (stream) => {
    at("voice").srcObject = stream;
    at("voice").play().catch(() => notice("The browser does not play the agent: allow sound for this page.", "error"));
    waves.show("agent", stream);
  });
  on("connected", () => {
    if (fresh) {
      if (!transcript.empty) transcript.line("a new conversation");
      transcript.begin();
    } else model ??= {};
    connectedAt = performance.now();
    state("live", "Waking the model");
    if (silence) at("text").focus();
    if (model) turn("listening", muted ? "Muted" : "Listening");
    else turn("thinking", "Waking the model");
    if (muted) next.mute(true);
    if (camera) next.show(camera.getVideoTracks()[0]);
    if (attempt) notice("");
  });
  on("reconnecting", () => {
    if (body.dataset.call !== "live") return;
    body.dataset.line = "lost";
    say(status);
    announce("Reconnecting");
  });
  on("reconnected", () => {
    delete body.dataset.line;
    say(status);
    announce("Connected again");
  });
  on("problem", ({ message }) => notice(message, "error"));
  on("ending", (seconds) => {
    const text = endingSentence(seconds);
    notice(text);
    announce(text);
  });
  on("wrote", (text) => transcript.personWrote(text));
  on("event", react);
  on("ended", ended);
}

function ended({ code, reason, error, lost, byPerson, reached }) {
  if (byPerson) return;
  if (error?.code === "gone") return stop("Ready");
  const wasLive = body.dataset.call === "live";
  const unheard = error?.code === "no_sound" || (error?.code === "call_failed" && !wasLive);
  if (error?.code === "call_failed") lost = true;
  if (wasLive && performance.now() - connectedAt > HEALTHY_MS) attempt = 0;
  if (lost && (wasLive || attempt || code === RESTARTING) && attempt < MAX_RETRIES) return retry();
  if (code === 1000 && !error && wasLive) transcript.line("the conversation is over");
  stop("Conversation over");
  if (unheard) notice(NO_SOUND, "error");
  else if (error) notice(error.message, "error");
  else if (lost && !reached) sayWhy();
  else if (lost) notice("The connection to the server was lost: press Talk to begin again.", "error");
  else if (code !== 1000) notice(closeSentence(code, reason), "error");
}

// Ask the server why it refused the WebSocket, because a browser does not say.
async function sayWhy() {
  const id = attemptId;
  const why = await refusal();
  if (id === attemptId) notice(why ?? UNREACHABLE, "error");
}

function retry() {
  call = null;
  transcript.begin();
  delete body.dataset.line;
  const wait = RETRY_MS * 2 ** attempt * (0.8 + 0.4 * Math.random());
  attempt += 1;
  state("retrying", "Reconnecting");
  notice(`The server is gone; calling again in ${Math.max(1, Math.round(wait / 1000))} s (${attempt} of ${MAX_RETRIES}).`, "error");
  timer = setTimeout(dial, wait);
}

// End the call at the person's request.
function hangUp() {
  notice("");
  if (body.dataset.call === "live") transcript.line("you ended the conversation");
  stop("Conversation over");
}

// End the call on this side.
function stop(status) {
  clearTimeout(timer);
  attemptId += 1;
  call?.end();
  call = null;
  ticket = "";
  connectedAt = 0;
  model = null;
  transcript.begin();
  release();
  state("idle", transcript.empty ? "Ready" : status);
  at("welcome").hidden = !transcript.empty;
}

function release() {
  for (const stream of [microphone, camera]) for (const track of stream?.getTracks() ?? []) track.stop();
  microphone = null;
  microphones.follow(null);
  silence?.close();
  silence = null;
  showCamera(null);
  at("voice").srcObject = null;
  at("person-name").textContent = "You";
  waves.close();
}

function react(event) {
  switch (event.type) {
    case "RealtimeConnectedEvent":
      model = event.capabilities ?? {};
      showButtons();
      return turn("listening", muted ? "Muted" : "Listening");
    case "RealtimeReconnectingEvent":
      return turn("thinking", "The connection to the model was lost, reconnecting");
    case "RealtimeReconnectedEvent":
      if (event.outcome === "fresh") transcript.line("the connection to the model was lost, and it has forgotten the conversation");
      return turn("listening", "Listening");
    case "RealtimeDisconnectedEvent":
      if (!event.clean) notice(`The model is gone (${event.reason}): press End, then Talk, to begin again.`, "error");
      return turn("idle", event.clean ? "Conversation over" : "The model is gone");
    case "UserTurnStartedEvent":
      transcript.personStarted();
      return turn("person", "Hearing you");
    case "UserTranscriptEvent":
      return transcript.personText(event.text, event.final);
    case "UserTurnEndedEvent":
      transcript.personEnded(event.text, event.empty);
      return event.empty ? turn("listening", "Listening") : turn("thinking", "Thinking");
    case "AgentTurnStartedEvent":
      return turn("agent", "Speaking");
    case "AgentTranscriptEvent":
      if (event.final) transcript.agentEnded(event.speech_id, event.text);
      else transcript.agentText(event.speech_id, event.text);
      return;
    case "AgentHeardEvent":
      return transcript.agentHeard(event.speech_id, event.text);
    case "AgentTurnEndedEvent":
      if (body.dataset.turn === "agent") turn("listening", muted ? "Muted" : "Listening");
      return;
    case "SpeechHeldEvent":
      return turn("held", "Paused, listening to you");
    case "SpeechResumedEvent":
      return turn("agent", "Speaking");
    case "InterruptionEvent":
      return transcript.interrupted(event);
    case "ToolStartEvent":
      transcript.toolStarted(event);
      return turn("tool", `Using ${event.name}`);
    case "ToolEndEvent":
      return transcript.toolEnded(event);
    case "TurnMetricsEvent":
      return showMetrics(event);
    case "ErrorEvent":
      return notice(event.message, event.source === "edge" ? "note" : "error");
  }
}

function showMetrics(event) {
  const ear = call?.earMs;
  const known = Number.isFinite(ear) && Number.isFinite(event.first_played_ms);
  transcript.metrics({ ...event, ear_ms: known ? event.first_played_ms + ear : null });
  pace.add(event.first_played_ms);
  at("pace").textContent = pace.text;
}

function nameAgent(name) {
  transcript.agentName = at("agent-name").textContent = name;
  say(status);
}

function setMuted(value) {
  if (muted !== value) announce(value ? "Microphone muted" : "Microphone on");
  muted = value;
  at("person-name").textContent = value ? "You, muted" : "You";
  call?.mute(value);
  at("mute").setAttribute("aria-pressed", String(value));
  if (["listening", "person"].includes(body.dataset.turn)) turn("listening", value ? "Muted" : "Listening");
}

async function toggleCamera() {
  if (camera) return closeCamera();
  try {
    const stream = await openCamera();
    if (!call || !model?.video) return stream.getTracks().forEach((track) => track.stop());
    showCamera(stream);
    await call.show(stream.getVideoTracks()[0]);
  } catch (error) {
    notice(deviceSentence(error, "camera"), "error");
  }
}

function closeCamera() {
  for (const track of camera.getTracks()) track.stop();
  showCamera(null);
  call?.show(null);
}

function showCamera(stream) {
  camera = stream;
  at("preview").srcObject = stream;
  at("preview").hidden = !stream;
  if (stream) at("preview").play().catch(() => {});
  waves.inset = stream ? at("preview").offsetWidth : 0;
  at("camera").setAttribute("aria-pressed", String(Boolean(stream)));
}

// Read the token from the address and remove it there, so that it is not shared by accident.
function takeToken() {
  const here = new URL(location.href);
  const found = new URLSearchParams(here.hash.slice(1)).get("token") ?? here.searchParams.get("token");
  try {
    if (found === null) return sessionStorage.getItem("duologue-token") ?? "";
    sessionStorage.setItem("duologue-token", found);
  } catch {
    return found ?? "";
  }
  here.hash = "";
  here.searchParams.delete("token");
  history.replaceState(null, "", here.pathname + here.search);
  return found;
}

async function copy() {
  at("menu").hidePopover();
  try {
    await navigator.clipboard.writeText(transcript.text);
    notice("The transcript was copied.");
  } catch {
    notice("This browser does not let the page copy: download the transcript instead.", "error");
  }
}

function download() {
  at("menu").hidePopover();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([transcript.text], { type: "text/plain" }));
  link.download = `conversation-${new Date().toISOString().slice(0, 19).replace(/\D/g, "-")}.txt`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

at("talk").addEventListener("click", () => (body.dataset.call === "idle" ? talk() : hangUp()));
at("write").addEventListener("click", () => write());
at("mute").addEventListener("click", () => setMuted(!muted));
at("camera").addEventListener("click", toggleCamera);
at("copy").addEventListener("click", copy);
at("download").addEventListener("click", download);
at("menu").addEventListener("beforetoggle", () => {
  at("copy").disabled = at("download").disabled = transcript.empty;
});
at("notice-close").addEventListener("click", () => {
  notice("");
  at("talk").focus();
});
at("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!text || !call) return;
  call.write(text);
  transcript.personWrote(text);
  turn("thinking", "Thinking");
  at("text").value = "";
});
new Shortcuts({
  setting: at("shortcuts"),
  hint: at("keys"),
  mute: at("mute"),
  active: () => body.dataset.call !== "idle",
  onMute: () => setMuted(!muted),
  onWarn: () => notice("Press Escape again to end the conversation."),
  onEnd: hangUp,
});
window.addEventListener("pagehide", leave);
window.addEventListener("online", () => call?.networkChanged());
// Chromium tells of every new estimate of the speed, too.
let network = navigator.connection?.type;
navigator.connection?.addEventListener?.("change", () => {
  if (navigator.connection.type === network) return;
  network = navigator.connection.type;
  call?.networkChanged();
});

state("idle", "Ready");
const problem = unsupported();
if (problem) notice(problem, "error");
else takeUp();
