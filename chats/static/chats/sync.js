// What this window knows about chats, and how it becomes what the server knows.
//
// Every message has a number (`seq`), dense within its chat. An edit gives a message the next
// number, a deletion leaves a tombstone with one. So one rule is enough: of two rows with the same
// id, the one with the higher number is true. Pushes and pulls may come in any order, twice or
// not at all.
//
// The cursor of a chat says: everything numbered up to here has been applied. A push that begins
// right behind it moves it; one that leaves a hole is a reason to pull from it. After every
// connection all chats pull: that is the whole recovery.

const PAGE = 500;
const LOOK_EVERY_MS = 25_000;
const AGAIN_MS = 1_000;

export class Room {
  cursor = 0;
  isBehind = false;
  pulling = null;
  #rows = new Map();

  constructor(id) {
    this.id = id;
  }

  apply({ messages, deleted = [] }) {
    const tombstones = deleted.map((row) => ({ ...row, isDeleted: true }));
    for (const row of [...messages, ...tombstones]) {
      const known = this.#rows.get(row.id);
      if (!known || known.seq < row.seq) this.#rows.set(row.id, row);
    }
  }

  // Everything between the two numbers has been applied; false if something before is missing.
  reach(fromSeq, toSeq) {
    if (fromSeq > this.cursor + 1) return false;
    this.cursor = Math.max(this.cursor, toSeq);
    return true;
  }

  has(id) {
    return this.#rows.has(id);
  }

  // The live messages by number.
  get messages() {
    const live = [...this.#rows.values()].filter((row) => !row.isDeleted);
    return live.sort((one, other) => one.seq - other.seq);
  }
}

export class Sync {
  #connection;
  #onChange;
  #onRefusal;
  #rooms = new Map();
  #outbox;
  #storage;
  #isFlushing = false;
  #looking;

  // `storage` keeps what has not been sent over a reload. `onChange(chatId)` is called when what a
  // chat shows has changed, also for chats nobody has opened here.
  constructor({ connection, storage, onChange, onRefusal }) {
    this.#connection = connection;
    this.#storage = storage;
    this.#onChange = onChange;
    this.#onRefusal = onRefusal;
    this.#outbox = JSON.parse(storage.getItem("outbox") ?? "[]");
    this.#looking = setInterval(() => this.online(), LOOK_EVERY_MS);
  }

  stop() {
    clearInterval(this.#looking);
  }

  // Return a chat; from now on it is kept up to date.
  room(chatId) {
    if (!this.#rooms.has(chatId)) {
      this.#rooms.set(chatId, new Room(chatId));
      this.#catchUp(chatId);
    }
    return this.#rooms.get(chatId);
  }

  // The chat is gone, or we are gone from it.
  forget(chatId) {
    this.#rooms.delete(chatId);
  }

  // What was sent from here and is not yet known to be stored, oldest first.
  pending(chatId) {
    const here = this.#outbox.filter((each) => each.chatId === chatId);
    return here.map((each) => each.message).filter(({ id }) => !this.room(chatId).has(id));
  }

  // Send a message whose id we have made. Returns when it is stored, which may be after the next
  // connection: sending the same again is harmless, so what got no answer is simply sent again.
  send(chatId, message) {
    return new Promise((resolve, reject) => {
      this.#outbox.push({ chatId, message, resolve, reject });
      this.#outboxChanged(chatId);
      this.#flush();
    });
  }

  // The connection is there again: send what could not be sent, fetch what could not be heard.
  // Pushes come from before this moment on, so there is no hole between the two.
  online() {
    this.#flush();
    for (const chatId of this.#rooms.keys()) this.#catchUp(chatId);
  }

  pushed(push) {
    const room = this.#rooms.get(push.chatId);
    room?.apply(push);
    if (room && !room.reach(push.fromSeq, push.toSeq)) this.#catchUp(push.chatId);
    this.#onChange(push.chatId);
  }

  // Pull until there is nothing more. Asked for while it is under way, it looks once more: the
  // page that is on its way may have been read before the reason to ask.
  #catchUp(chatId) {
    const room = this.#rooms.get(chatId);
    room.isBehind = true;
    room.pulling ??= this.#pull(room).finally(() => (room.pulling = null));
    return room.pulling;
  }

  async #pull(room) {
    try {
      while (room.isBehind) {
        room.isBehind = false;
        const asked = { chatId: room.id, afterSeq: room.cursor, limit: PAGE };
        const page = await this.#connection.call("chat:pull-messages", asked);
        room.apply(page);
        if (page.seq > asked.afterSeq) room.isBehind = true;
        room.reach(asked.afterSeq + 1, page.seq);
        this.#onChange(room.id);
      }
    } catch (error) {
      // Without a connection nothing is lost: the next one begins here again.
      if (error.statusCode) this.#onRefusal(error, room.id);
    }
  }

  // One after the other, so that numbers follow the order in which things were said.
  async #flush() {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    while (this.#outbox.length && (await this.#sendFirst()));
    this.#isFlushing = false;
  }

  // Return whether to go on with the next one.
  async #sendFirst() {
    const [{ chatId, message, resolve, reject }] = this.#outbox;
    try {
      await this.#connection.call("chat:send-messages", { chatId, messages: [message] });
      // The answer is a number. What it stands for, with the server's times, comes with a pull.
      const room = this.room(chatId);
      await this.#catchUp(chatId);
      if (!room.has(message.id)) return false;
      this.#take(chatId);
      resolve?.();
      return true;
    } catch (error) {
      if (!error.statusCode) return false; // online() continues
      if (error.statusCode >= 500) {
        await new Promise((resume) => setTimeout(resume, AGAIN_MS));
        return true;
      }
      this.#take(chatId);
      reject ? reject(error) : this.#onRefusal(error, chatId);
      return true;
    }
  }

  #take(chatId) {
    this.#outbox.shift();
    this.#outboxChanged(chatId);
  }

  #outboxChanged(chatId) {
    this.#storage.setItem("outbox", JSON.stringify(this.#outbox));
    this.#onChange(chatId);
  }
}
