// The page: what a person does, and what follows from it. How chats stay in step is in sync.js,
// how the socket stays open in connection.js, what is asked over HTTP in api.js, and how it all
// looks in view.js.
//
// Sending goes like this: the message is stored over the socket, the model is asked over HTTP, and
// its answer is stored over the socket like anybody's message. Other windows hear of both.

import { API } from "./api.js";
import { Connection, newId } from "./connection.js";
import { Sync } from "./sync.js";
import { at, render } from "./view.js";

const REMEMBERED = 40; // messages that a model is told
const LONGEST_TITLE = 60;
const STATES = {
  closed: "Not connected",
  connecting: "Connecting …",
  online: "Connected",
  waiting: "Offline, trying again …",
  refused: "Not connected",
};

let api = null;
let connection = null;
let sync = null;
let chats = [];
let chatId = null;
let removing = null; // the id of a chat that we delete, or have deleted
let answering = null; // { chatId, id, text, stopper } while a model writes
let looking = 0; // the timer of a look at the list of chats and the balance
let listing = 0; // counts the times the list was asked for

// --- Signing in ---------------------------------------------------------------------------

// A link may bring the key behind its #, which no server ever sees. It leaves the address bar
// before anything else happens, and lives in this tab alone.
function takeKeyFromAddress() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (location.hash) history.replaceState(null, "", location.pathname);
  return key;
}

async function signIn(key) {
  const candidate = new API(key);
  try {
    showBalance(await candidate.balance());
  } catch (error) {
    if (error.isKeyBad) sessionStorage.clear();
    else at("key").value = key;
    showSignIn(error.message);
    return;
  }
  signOut();
  // What another key could not send is not for this one to send.
  if (sessionStorage.getItem("key") !== key) sessionStorage.clear();
  sessionStorage.setItem("key", key);
  api = candidate;
  connection = new Connection({ askTicket: () => api.ticket(), onState: stateChanged, onPush });
  sync = new Sync({ connection, storage: sessionStorage, onChange: renderLater, onRefusal });
  at("sign-in").hidden = true;
  at("app").hidden = false;
  connection.open();
  at("text").focus();
}

function signOut() {
  answering?.stopper.abort();
  connection?.close();
  sync?.stop();
  api = connection = sync = null;
  chats = [];
  chatId = null;
}

function showSignIn(words = "") {
  at("app").hidden = true;
  at("sign-in").hidden = false;
  at("refusal").textContent = words;
  at("key").focus();
}

// --- What happens -------------------------------------------------------------------------

function stateChanged(state) {
  at("state").textContent = STATES[state];
  at("state").dataset.state = state;
  if (state === "refused") {
    signOut();
    sessionStorage.clear();
    showSignIn("This key is not accepted any more.");
  }
  if (state === "online") {
    at("notice").hidden = true;
    sync.online();
    loadModels();
    loadChats();
    loadBalance();
  }
}

// Nothing tells of new chats and new titles, so the list is read when there is reason to look.
function onPush(push) {
  sync.pushed(push);
  clearTimeout(looking);
  looking = setTimeout(look, 200);
}

function look() {
  if (connection?.state !== "online") return;
  loadChats();
  loadBalance();
}

function onRefusal(error, id) {
  if (id !== removing) show(error);
  if (error.statusCode !== 403 && error.statusCode !== 404) return;
  // Deleted, or not ours any more.
  sync.forget(id);
  chats = chats.filter((chat) => chat.id !== id);
  if (chatId === id) choose(chats[0]?.id ?? null);
}

async function loadChats() {
  const asked = ++listing;
  await attempt(async () => {
    const found = await api.chats();
    if (asked !== listing) return; // what has changed since is asked for by a later call
    chats = found;
    const wanted = chatId ?? sessionStorage.getItem("chat");
    choose((chats.find(({ id }) => id === wanted) ?? chats[0])?.id ?? null);
  });
}

async function loadModels() {
  await attempt(async () => {
    const names = await api.models();
    at("model").replaceChildren(...names.map((name) => new Option(name)));
    const last = sessionStorage.getItem("model"); // replacing the options has unchosen it
    if (names.includes(last)) at("model").value = last;
  });
}

async function loadBalance() {
  await attempt(async () => showBalance(await api.balance()));
}

function showBalance(flux) {
  at("balance").textContent = `${flux.toLocaleString("en")} Flux`;
}

// Do something that the server may refuse, and say so; return whether it did not.
async function attempt(work) {
  const before = api;
  try {
    await work();
    return true;
  } catch (error) {
    if (error.name === "AbortError" || api !== before) return false;
    show(error);
    return false;
  }
}

function show(error) {
  at("notice").textContent = error.message ?? String(error);
  at("notice").hidden = false;
}

// --- Chats --------------------------------------------------------------------------------

function choose(id) {
  chatId = id;
  if (id) sessionStorage.setItem("chat", id);
  renderLater();
}

async function makeChat() {
  const chat = await api.makeChat(newId());
  chats.unshift(chat);
  choose(chat.id);
  loadChats();
  return chat.id;
}

async function rename(id, title) {
  await attempt(() => api.renameChat(id, title));
  await loadChats();
}

async function remove() {
  const id = chatId;
  // What we hear of it before the answer is no news.
  removing = id;
  if (!(await attempt(() => api.deleteChat(id)))) {
    removing = null;
    return;
  }
  sync.forget(id);
  chatId = null;
  await loadChats();
}

// --- Messages -----------------------------------------------------------------------------

async function say(text) {
  const mine = { chatId, id: newId(), text: "", stopper: new AbortController() };
  const store = sync;
  answering = mine;
  at("notice").hidden = true;
  const isStored = await attempt(async () => {
    mine.chatId ??= await makeChat();
    await store.send(mine.chatId, { id: newId(), role: "user", content: text });
  });
  if (isStored) {
    nameAfter(mine.chatId, text);
    await answer(mine, store);
    loadBalance();
  } else {
    at("text").value ||= text;
  }
  if (answering === mine) answering = null;
  renderLater();
}

// Whatever was written is kept, also when it was stopped or broke off: it has been paid for.
async function answer(mine, store) {
  const talk = store.room(mine.chatId).messages.filter(({ role }) => /^(user|assistant)$/.test(role));
  const messages = talk.slice(-REMEMBERED).map(({ role, content }) => ({ role, content }));
  const { signal } = mine.stopper;
  await attempt(async () => {
    for await (const piece of api.answer({ model: at("model").value, messages, signal })) {
      mine.text += piece;
      renderLater();
    }
  });
  if (!mine.text || store !== sync) return;
  const message = { id: mine.id, role: "assistant", content: mine.text };
  await attempt(() => store.send(mine.chatId, message));
}

function nameAfter(id, text) {
  const chat = chats.find((each) => each.id === id);
  if (!chat || chat.title) return;
  const [line] = text.split("\n");
  rename(id, Array.from(line).slice(0, LONGEST_TITLE).join(""));
}

// --- What is shown ------------------------------------------------------------------------

let isRenderDue = false;

function renderLater() {
  if (isRenderDue) return;
  isRenderDue = true;
  requestAnimationFrame(() => {
    isRenderDue = false;
    if (!sync) return;
    const room = chatId ? sync.room(chatId) : null;
    const pending = room ? sync.pending(chatId) : [];
    render({ chats, chatId, room, pending, answering, userId: connection.userId });
  });
}

// --- What a person does -------------------------------------------------------------------

at("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = at("key").value.trim();
  at("key").value = "";
  signIn(key);
});

at("sign-out").addEventListener("click", () => {
  signOut();
  sessionStorage.clear();
  showSignIn();
});

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!text || answering) return;
  at("text").value = "";
  say(text);
});

at("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at("composer").requestSubmit();
});

at("stop").addEventListener("click", () => answering?.stopper.abort());
at("new").addEventListener("click", async () => {
  await attempt(makeChat);
  showChats(false);
  at("text").focus();
});
at("model").addEventListener("change", () => sessionStorage.setItem("model", at("model").value));

at("chats").addEventListener("click", ({ target }) => {
  const item = target.closest("li");
  if (!item) return;
  choose(item.dataset.id);
  showChats(false);
});

function showChats(isOpen) {
  at("show-chats").setAttribute("aria-expanded", isOpen);
  at("side").classList.toggle("is-open", isOpen);
}

at("show-chats").addEventListener("click", () => showChats(!at("side").matches(".is-open")));

at("rename").addEventListener("click", () => {
  at("new-title").value = chats.find(({ id }) => id === chatId)?.title ?? "";
  at("rename-dialog").showModal();
});

at("delete").addEventListener("click", () => at("delete-dialog").showModal());

at("rename-dialog").addEventListener("submit", ({ submitter }) => {
  if (submitter.value === "yes") rename(chatId, at("new-title").value.trim());
});

at("delete-dialog").addEventListener("submit", ({ submitter }) => {
  if (submitter.value === "yes") remove();
});

window.addEventListener("online", () => connection?.hurry());
window.addEventListener("offline", () => connection?.lose());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") look();
});

// --- The start ----------------------------------------------------------------------------

function start() {
  const key = takeKeyFromAddress() ?? sessionStorage.getItem("key");
  if (key) signIn(key);
  else showSignIn();
}

window.addEventListener("hashchange", start);
start();
