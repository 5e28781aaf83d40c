// One socket of the real eventa client. Lines of JSON on stdin are calls; whatever the client
// tells its application is a line on stdout. The end of stdin ends it.
import { createInterface } from "node:readline";

import { defineEventa, defineInvoke, defineInvokeEventa } from "@moeru/eventa";
import { createContext, wsErrorEvent } from "@moeru/eventa/adapters/websocket/native";
import WebSocket from "ws";

const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const socket = new WebSocket(process.env.SOCKET_URL);
const { context } = createContext(socket);
const invokes = new Map();

const connected = defineEventa("eventa:adapters:hono-ws:connected");
context.on(connected, () => tell({ is: "connected" }));
context.on(defineEventa("chat:new-messages"), ({ body }) => tell({ is: "pushed", body }));
context.on(wsErrorEvent, ({ body }) => tell({ is: "broken", why: String(body.error) }));
socket.addEventListener("close", ({ code }) => tell({ is: "closed", code }));

function invoke(tag) {
  if (!invokes.has(tag)) invokes.set(tag, defineInvoke(context, defineInvokeEventa(tag)));
  return invokes.get(tag);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { number, tag, content, event, answer } = JSON.parse(line);
  if (event) {
    // An event as it is, without what the library makes of a call.
    context.on(defineEventa(answer), ({ body }) => tell({ is: "answered", number, answer: body }));
    context.emit(defineEventa(event), content);
    continue;
  }
  invoke(tag)(content).then(
    (answer) => tell({ is: "answered", number, answer }),
    // What the server rejects with is plain JSON; an Error is the client's own.
    (error) => tell({ is: "rejected", number, error: error instanceof Error ? `${error}` : error }),
  );
}
socket.close();
