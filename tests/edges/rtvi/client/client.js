// What an application does with Pipecat's client; the test calls these functions in the browser.

import { PipecatClient, RTVIEvent } from "@pipecat-ai/client-js";
import { SmallWebRTCTransport, WavMediaManager } from "@pipecat-ai/small-webrtc-transport";

window.log = [];

window.makeClient = (transportOptions = {}, enableMic = true) => {
  // The default manager of media loads code from the internet.
  const mediaManager = new WavMediaManager();
  window.transport = new SmallWebRTCTransport({ mediaManager, ...transportOptions });
  const client = new PipecatClient({ transport: window.transport, enableMic });
  for (const name of Object.values(RTVIEvent)) {
    client.on(name, (data) => {
      if (data instanceof MediaStreamTrack || name.endsWith("AudioLevel")) return;
      window.log.push([name, data === undefined ? null : JSON.parse(JSON.stringify(data))]);
    });
  }
  client.on(RTVIEvent.TrackStarted, (track) => {
    const audio = document.createElement("audio");
    audio.srcObject = new MediaStream([track]);
    audio.autoplay = true;
    document.body.append(audio);
  });
  client.registerFunctionCallHandler("where", async (call) => ({ city: "Oslo", ...call.arguments }));
  window.client = client;
  return client;
};

window.request = (endpoint, token, requestData) => ({
  endpoint,
  requestData,
  headers: new Headers(token ? { authorization: `Bearer ${token}` } : {}),
});
