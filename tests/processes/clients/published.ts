// What a front end does with the declarations, and what the compiler keeps it from doing.
import { defineEventa, defineInvokeEventa } from "@moeru/eventa";

import type {
  AnswerEvent,
  ChatCall,
  ChatCalls,
  ChatError,
  ChatEvent,
  ChatEvents,
  CloseCode,
  EnvelopeMerged,
  MessagesPulled,
  MessagesSent,
  NewMessage,
  PullMessages,
  RequestEvent,
  Role,
  SendMessages,
} from "./websocket.d.ts";

export const send = defineInvokeEventa<MessagesSent, SendMessages, ChatError>("chat:send-messages");
export const pull = defineInvokeEventa<MessagesPulled, PullMessages, ChatError>("chat:pull-messages");

export function defineCall<Tag extends ChatCall>(tag: Tag) {
  return defineInvokeEventa<ChatCalls[Tag]["response"], ChatCalls[Tag]["request"], ChatError>(tag);
}
export function defineChatEvent<Id extends ChatEvent>(id: Id) {
  return defineEventa<ChatEvents[Id]>(id);
}

const role: Role = "assistant";
const message: NewMessage = { id: "m1", role, content: "hi" };
export const request: SendMessages = { chatId: "c1", messages: [message] };
export const wanted: PullMessages = { chatId: "c1", afterSeq: 0 };
export const requestEvent: RequestEvent = "chat:authenticate-send";
export const answerEvent: AnswerEvent<"chat:pull-messages"> = "chat:pull-messages-receive-py-1";
export const unauthorized: CloseCode = 4001;

export function contentsOf(page: MessagesPulled): string[] {
  const gone: number = page.deleted?.length ?? 0;
  return page.messages.map((row) => `${row.seq} ${row.senderId?.length} ${row.content} ${gone}`);
}
export function bodyOf(frame: EnvelopeMerged): unknown {
  return frame.eventa.body;
}

// @ts-expect-error there is no such call
defineCall("chat:delete-messages");
// @ts-expect-error an event is no call
defineCall("chat:new-messages");
// @ts-expect-error there is no such event
defineChatEvent("chat:old-messages");
// @ts-expect-error not one of the five
export const developer: NewMessage = { id: "m1", role: "developer", content: "hi" };
// @ts-expect-error a message has an id
export const nameless: NewMessage = { role: "user", content: "hi" };
// @ts-expect-error a cursor is a number
export const cursor: PullMessages = { chatId: "c1", afterSeq: "0" };
// @ts-expect-error the answer has no messages
export const confused: ChatCalls["chat:send-messages"]["response"] = { messages: [] };
// @ts-expect-error the sender may be null
export const sender = (page: MessagesPulled): string => page.messages[0]!.senderId;
// @ts-expect-error tombstones may be absent
export const tombstones = (page: MessagesPulled): number => page.deleted.length;
// @ts-expect-error never sent
export const abnormal: CloseCode = 1006;
// @ts-expect-error of another call
export const other: AnswerEvent<"chat:pull-messages"> = "chat:send-messages-receive-py-1";
