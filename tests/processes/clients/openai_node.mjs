// What a front-end developer does with the official SDK; prints what came back as JSON.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.env.BASE_URL,
  apiKey: process.env.API_KEY,
  maxRetries: 0,
});
const messages = [{ role: "user", content: "hi" }];
const seen = {};

const plain = await client.chat.completions.create({ model: "auto", messages }).withResponse();
seen.plain = plain.data.choices[0].message.content;
seen.charged = plain.response.headers.get("x-airi-flux-charged");

seen.streamed = "";
for await (const chunk of await client.chat.completions.create({
  model: "auto",
  messages,
  stream: true,
})) {
  seen.streamed += chunk.choices[0]?.delta?.content ?? "";
}

const tools = [{ type: "function", function: { name: "add", parameters: { type: "object" } } }];
const called = await client.chat.completions.create({ model: "auto", messages, tools });
seen.tool = called.choices[0].message.tool_calls[0].function.name;

try {
  await client.chat.completions.create({ model: "auto", messages });
} catch (error) {
  seen.error = { status: error.status, message: error.message };
}
try {
  await client.chat.completions.create({ model: "none", messages });
} catch (error) {
  seen.unknown = [error.code, error.message];
}
const misled = client.withOptions({ baseURL: process.env.BASE_URL.replace(/\/v1$/, "") });
try {
  await misled.chat.completions.create({ model: "auto", messages });
} catch (error) {
  seen.misled = error.message;
}
try {
  await client.withOptions({ apiKey: "sk-proj-abc" }).models.list();
} catch (error) {
  seen.foreign = error.message;
}

const spoken = (characters) => [{ role: "user", content: "x".repeat(characters) }];
const stranger = client.withOptions({ apiKey: "sk-airi-no" });
seen.refused = [];
for (const [asking, characters] of [
  [stranger, 900_000],
  [client, 34_000_000],
]) {
  try {
    await asking.chat.completions.create({ model: "auto", messages: spoken(characters) });
  } catch (error) {
    seen.refused.push(error.status ?? `${error.message} ${error.cause?.cause ?? error.cause}`);
  }
}

seen.models = [];
for await (const model of client.models.list()) seen.models.push(model.id);
seen.model = (await client.models.retrieve("vendor/chat")).id;
console.log(JSON.stringify(seen));
