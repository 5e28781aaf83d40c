// The HTTP API as the page uses it: small calls, and an answer that is read while it is written.

// A refusal, or no answer at all (status 0). Its message is for people.
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code, isKeyBad: status === 401 || status === 403 });
  }
}

export class API {
  #key;

  constructor(key) {
    this.#key = key;
  }

  async balance() {
    return (await this.#json("GET", "/api/v1/flux")).flux;
  }

  async models() {
    return (await this.#json("GET", "/v1/models")).data.map((model) => model.id);
  }

  async chats() {
    return (await this.#json("GET", "/api/v1/chats")).chats;
  }

  // The id is ours: asked again after a lost answer, the chat is still made once.
  async makeChat(id) {
    try {
      return await this.#json("POST", "/api/v1/chats", { id, type: "bot" });
    } catch (error) {
      if (error.status === 409) return this.#json("GET", `/api/v1/chats/${id}`);
      throw error;
    }
  }

  renameChat(id, title) {
    return this.#json("PATCH", `/api/v1/chats/${id}`, { title });
  }

  deleteChat(id) {
    return this.#json("DELETE", `/api/v1/chats/${id}`);
  }

  async ticket() {
    return (await this.#json("POST", "/api/v1/ws-tickets")).ticket;
  }

  // Yield the answer of a model piece by piece. Aborting the signal stops it, and what it costs.
  async *answer({ model, messages, signal }) {
    const body = { model, messages, stream: true };
    const response = await this.#fetch("POST", "/v1/chat/completions", body, signal);
    for await (const data of events(response)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refused(502, chunk.error.code, chunk.error.message);
      yield chunk.choices[0]?.delta.content ?? "";
    }
    throw new Refused(502, "BROKEN", "The answer broke off.");
  }

  async #json(...request) {
    return (await this.#fetch(...request)).json();
  }

  async #fetch(method, path, body, signal) {
    const headers = { Authorization: `Bearer ${this.#key}` };
    if (body) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "OFFLINE", "The server cannot be reached.");
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

// Server-sent events: lines of `data:`, each with one piece of JSON or the end marker.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "BROKEN", "The answer broke off.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

// `/v1` speaks OpenAI's error object, everything else `{error, message}`; both have a message.
async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const code = body.error?.code ?? body.error ?? "";
  const seconds = response.headers.get("Retry-After");
  const said = body.message ?? "The server refused.";
  const words = {
    401: "This key is not accepted.",
    402: code === "ACCOUNT_FROZEN" ? said : "There is not enough Flux for an answer.",
    429: `Too many requests. Try again in ${seconds ?? "a few"} s.`,
    503: "The server cannot answer right now. Try again in a moment.",
  };
  return new Refused(response.status, code, words[response.status] ?? said);
}
