// The official @google/genai package of npm.

import { ApiError, GoogleGenAI } from "@google/genai";
import { isBrokenOff, tools } from "./play.mjs";

const THINKING = { thinkingConfig: { includeThoughts: true, thinkingBudget: 1024 } };

export class GenerateContent {
  static packages = ["@google/genai"];

  constructor(url, key, facts) {
    this.facts = facts;
    this.sdk = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: url } });
  }

  async generate(model, contents, config, stream) {
    const asked = { model, contents, config };
    const answers = [];
    if (stream) for await (const chunk of await this.sdk.models.generateContentStream(asked)) answers.push(chunk);
    else answers.push(await this.sdk.models.generateContent(asked));
    const candidates = answers.flatMap((answer) => answer.candidates ?? []);
    const finish = candidates.at(-1)?.finishReason;
    // The client does not ask for one.
    if (!finish) throw new ApiError({ message: "no finish reason", status: 0 });
    const parts = candidates.flatMap((candidate) => candidate.content?.parts ?? []);
    return { parts, finish, usage: answers.at(-1).usageMetadata };
  }

  async say(model, prompt, { system, image, stream } = {}) {
    const parts = [{ text: prompt }];
    if (image) parts.push({ inlineData: { mimeType: "image/png", data: image } });
    const config = system ? { systemInstruction: system } : {};
    const seen = await this.generate(model, [{ role: "user", parts }], config, stream);
    return { text: text(seen.parts), finish: seen.finish, ...spent(seen.usage) };
  }

  async think(model, prompt, { stream }) {
    const seen = await this.generate(model, prompt, THINKING, stream);
    return { text: text(seen.parts), thought: thought(seen.parts), ...spent(seen.usage) };
  }

  async useTools(model, prompt, { stream, think }) {
    const functionDeclarations = tools(this.facts, (name, description, parametersJsonSchema) => ({
      name,
      description,
      parametersJsonSchema,
    }));
    const config = { tools: [{ functionDeclarations }], ...(think ? THINKING : {}) };
    const contents = [{ role: "user", parts: [{ text: prompt }] }];
    const { parts, finish } = await this.generate(model, contents, config, stream);
    const calls = parts.flatMap((part) => part.functionCall ?? []);
    // What the client gives is sent back as it is.
    contents.push({ role: "model", parts });
    const responses = calls.map(({ id, name }) => ({
      functionResponse: { id, name, response: { result: this.facts.results[name] } },
    }));
    contents.push({ role: "user", parts: responses });
    const last = await this.generate(model, contents, config, stream);
    return {
      calls: calls.map((call) => [call.name, call.args]),
      finish,
      text: text(last.parts),
      thought: thought(parts),
    };
  }

  async structure(model, prompt) {
    const config = { responseMimeType: "application/json", responseJsonSchema: this.facts.schema };
    const { parts } = await this.generate(model, prompt, config, false);
    return { value: JSON.parse(text(parts)) };
  }

  async models() {
    const found = [];
    for await (const model of await this.sdk.models.list()) found.push(model.name.replace(/^models\//, ""));
    return { models: found.sort() };
  }

  async embed(model) {
    const answer = await this.sdk.models.embedContent({ model, contents: ["one", "two"] });
    return { vectors: answer.embeddings.map((each) => each.values) };
  }

  async count(model, prompt) {
    return { tokens: (await this.sdk.models.countTokens({ model, contents: prompt })).totalTokens };
  }

  failure(error) {
    if (error instanceof ApiError) return { status: error.status || null, retry_after: null };
    return isBrokenOff(error) ? { status: null } : null;
  }
}

function text(parts) {
  return parts.map((part) => (part.thought ? "" : (part.text ?? ""))).join("");
}

function thought(parts) {
  return parts.map((part) => (part.thought ? (part.text ?? "") : "")).join("");
}

function spent(usage) {
  const output = (usage.candidatesTokenCount ?? 0) + (usage.thoughtsTokenCount ?? 0);
  return { input: usage.promptTokenCount, output };
}
