// One socket to /ws/v2/chat, opened again whenever it is lost. It knows calls and pushes and how
// to come back; what the messages mean is the business of sync.js.
//
//   closed ─ open() ─► connecting ─ a ticket, a socket, chat:authenticate ─► online
//                       ▲     │                                                 │ lost, for
//                       │     └─ the key gets no ticket ─► refused              │ whatever reason
//                       └──────── waiting, 1 s and longer each time ◄───────────┘
//
// Close code 4001 says that who opened the socket may not have it. A ticket may simply have been
// too old for that; if it is the key, there will be no next ticket, and only that is final.

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;
const ANSWER_MS = 10_000;

// What a call fails with: the server's error, or that there is no connection (statusCode 0).
export class CallFailed extends Error {
  constructor({ statusCode = 0, errorCode = "OFFLINE", message = "There is no connection." } = {}) {
    super(message);
    Object.assign(this, { statusCode, errorCode });
  }
}

export class Connection {
  state = "closed";
  userId = null;
  #askTicket;
  #onState;
  #onPush;
  #attempt = 0;
  #socket = null;
  #calls = new Map();
  #losses = 0;
  #timer = 0;

  // `askTicket` returns a promise of a one-time ticket: the key itself stays out of URLs and
  // frames. A rejection with `isKeyBad` is final.
  constructor({ askTicket, onState, onPush }) {
    this.#askTicket = askTicket;
    this.#onState = onState;
    this.#onPush = onPush;
  }

  open() {
    if (this.state === "closed") this.#connect();
  }

  close() {
    this.#drop("closed");
  }

  // The network is there again: why wait?
  hurry() {
    if (this.state === "waiting") this.#connect();
  }

  // The browser says that the network is gone. The socket would notice much later.
  lose() {
    if (this.state === "connecting" || this.state === "online") this.#wait();
  }

  // Call the server. Always settles: with its answer, or with a CallFailed.
  async call(tag, content) {
    if (this.state !== "online") throw new CallFailed();
    const answer = await this.#invoke(tag, content);
    this.#losses = 0;
    return answer;
  }

  async #connect() {
    this.#drop("connecting");
    const attempt = this.#attempt;
    try {
      const ticket = await this.#askTicket();
      if (this.#attempt === attempt) this.#dial(ticket);
    } catch (error) {
      if (this.#attempt !== attempt) return;
      if (error.isKeyBad) this.#drop("refused");
      else this.#wait();
    }
  }

  #dial(ticket) {
    const url = new URL("/ws/v2/chat", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.hash = "";
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.onopen = () => this.#authenticate(socket, ticket);
    socket.onmessage = ({ data }) => this.#read(JSON.parse(data));
    socket.onclose = () => {
      if (this.#socket === socket) this.#wait();
    };
  }

  // The first call, and the only one that is possible before its answer.
  async #authenticate(socket, token) {
    try {
      const { userId } = await this.#invoke("chat:authenticate", { token });
      this.userId = userId;
      this.#become("online");
    } catch {
      socket.close();
    }
  }

  #invoke(tag, content) {
    const invokeId = newId();
    const body = { invokeId, content };
    const eventa = { id: `${tag}-send`, type: "event", invokeType: 0, body };
    return new Promise((resolve, reject) => {
      // Pings are the browser's business and cannot be seen here. A call without an answer is how
      // a page learns that the other side has gone without a word.
      const timer = setTimeout(() => this.#wait(), ANSWER_MS);
      this.#calls.set(invokeId, { resolve, reject, timer });
      // Every frame needs a delivery id of its own: a second one with the same id is dropped.
      this.#socket.send(JSON.stringify({ deliveryId: newId(), hopsRemaining: 31, eventa }));
    });
  }

  // The server writes each frame in both of eventa's envelopes; this reads the newer one. What is
  // neither a push nor an answer needs no reaction: the greeting, and chat:resync, after which the
  // server closes and the next connection pulls.
  #read({ eventa: { id, body } }) {
    if (id === "chat:new-messages") {
      this.#onPush(body);
      return;
    }
    const call = this.#calls.get(body?.invokeId);
    if (!call) return;
    this.#calls.delete(body.invokeId);
    clearTimeout(call.timer);
    if (id.includes("-receive-error-")) call.reject(new CallFailed(body.content?.error));
    else call.resolve(body.content);
  }

  // Longer each time, and not all clients at once: a server that restarts has many of them.
  #wait() {
    this.#drop("waiting");
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#losses++);
    this.#timer = setTimeout(() => this.#connect(), wait * (0.5 + Math.random() / 2));
  }

  #drop(state) {
    clearTimeout(this.#timer);
    this.#attempt += 1;
    const socket = this.#socket;
    this.#socket = null; // its last events concern nobody
    socket?.close();
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    this.#become(state);
    for (const { reject, timer } of calls) {
      clearTimeout(timer);
      reject(new CallFailed());
    }
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.#onState(state);
  }
}

// 21 characters that the server takes as the id of a chat, a message or a call.
export function newId() {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
  return Array.from(crypto.getRandomValues(new Uint8Array(21)), (byte) => alphabet[byte & 63]).join("");
}
