// Bodies that are too long, with the official SDK and with fetch; prints each status, or the error.
import OpenAI from "openai";

const seen = [];
const url = `${process.env.BASE_URL}/chat/completions`;

function pieces(size) {
  const piece = new Uint8Array(65_536).fill(120);
  let left = size;
  return new ReadableStream({
    pull(controller) {
      if (left <= 0) return controller.close();
      controller.enqueue(piece.subarray(0, Math.min(left, piece.length)));
      left -= piece.length;
    },
  });
}

for (const apiKey of [process.env.API_KEY, "sk-airi-no"]) {
  const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey, maxRetries: 0 });
  for (const size of [34_000_000, 100_000_000]) {
    const messages = [{ role: "user", content: "x".repeat(size) }];
    try {
      await client.chat.completions.create({ model: "auto", messages });
    } catch (error) {
      seen.push(error.status ?? `${error.message}: ${error.cause}`);
    }
    const headers = { Authorization: `Bearer ${apiKey}`, "Content-Type": "application/json" };
    try {
      const chunked = { method: "POST", headers, body: pieces(size), duplex: "half" };
      const answer = await fetch(url, chunked);
      await answer.text();
      seen.push(answer.status);
    } catch (error) {
      seen.push(`${error.message}: ${error.cause}`);
    }
  }
}
console.log(JSON.stringify(seen));
