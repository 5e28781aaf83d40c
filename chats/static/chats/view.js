// How the page shows what is known. Nothing is touched that has not changed, and nothing is asked.

let shownId = null;

export function at(id) {
  return document.getElementById(id);
}

export function render({ chats, chatId, room, pending, answering, userId }) {
  const chat = chats.find(({ id }) => id === chatId);
  at("title").textContent = titleOf(chat);
  at("rename").disabled = at("delete").disabled = !chat;
  keep(at("chats"), chats, (item, each) => drawChat(item, each, chatId));
  const log = at("log");
  const wasAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  // What is new is read out, but not everything that was said before the chat was opened.
  log.ariaLive = shownId === chatId ? "polite" : "off";
  const stored = room?.messages.map((row) => ({ ...row, isMine: row.senderId === userId })) ?? [];
  const waiting = pending.filter(({ id }) => id !== answering?.id);
  const own = waiting.map((message) => ({ ...message, isMine: true, isPending: true }));
  keep(at("messages"), [...stored, ...own], drawMessage);
  if (!room?.pulling) shownId = chatId;
  renderDraft(answering, room);
  at("hint").hidden = at("messages").children.length > 0;
  if (wasAtEnd) log.scrollTop = log.scrollHeight;
}

// The draft goes in the moment in which the message that it has become is there.
function renderDraft(answering, room) {
  const isHere = answering !== null && answering.chatId === room?.id && !room.has(answering.id);
  at("draft").hidden = !isHere || !answering.text;
  at("draft-text").textContent = isHere ? answering.text : "";
  at("send").hidden = answering !== null;
  at("stop").hidden = answering === null;
}

function titleOf(chat) {
  return chat?.title || "New chat";
}

// Make a list show rows. A screen reader reads out what is added, so what was there stays.
function keep(list, rows, draw) {
  const there = new Map([...list.children].map((item) => [item.dataset.id, item]));
  rows.forEach((row, place) => {
    const item = there.get(row.id) ?? document.createElement("li");
    item.dataset.id = row.id;
    there.delete(row.id);
    draw(item, row);
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
  });
  for (const item of there.values()) item.remove();
}

function drawChat(item, chat, chatId) {
  const button = write(item, "button", "open", titleOf(chat));
  if (chat.id === chatId) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

function drawMessage(item, message) {
  const names = { user: message.isMine ? "You" : "Somebody", assistant: "Assistant" };
  const isEdited = message.updatedAt > message.createdAt;
  const note = message.isPending ? " · not stored yet" : isEdited ? " · edited" : "";
  item.dataset.role = message.role;
  write(item, "p", "who", (names[message.role] ?? message.role) + note);
  write(item, "p", "said", message.content);
}

// Text is only ever text here. Nothing is escaped, because nothing is ever read as markup; the
// page's policy would not let it be.
function write(parent, tag, name, text) {
  const child = parent.querySelector(`.${name}`) ?? document.createElement(tag);
  child.className = name;
  if (!child.parentNode) parent.append(child);
  if (child.textContent !== text) child.textContent = text;
  return child;
}
