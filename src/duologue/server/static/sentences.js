// Errors as sentences that a person can act on.

export function unsupported() {
  if (!window.isSecureContext) {
    return "Browsers give the microphone to https pages and to localhost only: open this page by https, or on the machine it runs on.";
  }
  if (!navigator.mediaDevices?.getUserMedia || !window.RTCPeerConnection || !window.WebSocket) {
    return "This browser can't make calls: use a current Chrome, Edge, Firefox or Safari.";
  }
  return null;
}

const devices = {
  NotAllowedError: (thing) =>
    `This page may not use the ${thing}: allow it by the icon beside the address, then try again.`,
  NotFoundError: (thing) => `No ${thing} was found: plug one in, then try again.`,
  NotReadableError: (thing) =>
    `The ${thing} can't be opened, perhaps because another program uses it: close that, then try again.`,
  OverconstrainedError: (thing) => `No ${thing} here fits: plug in another one, then try again.`,
};

export function deviceSentence(error, thing) {
  const known = devices[error.name === "SecurityError" ? "NotAllowedError" : error.name];
  return known ? known(thing) : `The ${thing} could not be opened (${error.message || error.name}): try again.`;
}

export const UNREACHABLE = "The server does not answer: check that it is running, then press Talk.";
export const NO_SOUND =
  "No audio reaches the server: the network between may block it. Try another network, then press Talk.";
export const MIC_GONE =
  "The microphone was disconnected, and there is no other one: plug one in, and the call goes on. Until then, you may write.";

export function nextMicrophoneSentence(name) {
  return `The microphone was disconnected: the call goes on with ${name || "the next one"}.`;
}

export function endingSentence(seconds) {
  return `The server is about to restart: this call ends in ${Math.round(seconds)} s, and then the page calls again.`;
}

export function closeSentence(code, reason) {
  if (reason) return reason;
  if (code === 1009) return "That message was too long for one piece: send it in parts.";
  if (code === 1013) return "All places are taken: try again in a minute.";
  return `The server ended the call (${code}): press Talk to begin again.`;
}
