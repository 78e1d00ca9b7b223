// The official openai package of npm: chat completions and responses.

import OpenAI from "openai";
import { isBrokenOff, tools } from "./play.mjs";

class Base {
  static packages = ["openai"];

  constructor(url, key, facts) {
    this.facts = facts;
    this.image = `data:image/png;base64,${facts.png}`;
    this.sdk = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
  }

  async models() {
    const found = [];
    for await (const model of this.sdk.models.list()) found.push(model.id);
    return { models: found.sort() };
  }

  async embed(model) {
    const answer = await this.sdk.embeddings.create({ model, input: ["one", "two"] });
    return { vectors: answer.data.map((each) => Array.from(each.embedding)) };
  }

  failure(error) {
    if (error instanceof OpenAI.APIError && error.status) {
      return { status: error.status, retry_after: error.headers?.get?.("retry-after") ?? null };
    }
    return error instanceof OpenAI.OpenAIError || isBrokenOff(error) ? { status: null } : null;
  }
}

export class ChatCompletions extends Base {
  async create(asked, stream) {
    if (!stream) {
      const answer = await this.sdk.chat.completions.create(asked);
      return { ...answer.choices[0], usage: answer.usage };
    }
    const events = this.sdk.chat.completions.stream({ ...asked, stream_options: { include_usage: true } });
    // The client puts together what it knows; of other members it keeps the last piece.
    let thought = "";
    for await (const chunk of events) thought += chunk.choices[0]?.delta?.reasoning_content ?? "";
    const answer = await events.finalChatCompletion();
    if (thought) answer.choices[0].message.reasoning_content = thought;
    return { ...answer.choices[0], usage: answer.usage };
  }

  async say(model, prompt, { system, image, stream } = {}) {
    const content = image
      ? [
          { type: "text", text: prompt },
          { type: "image_url", image_url: { url: this.image, detail: "low" } },
        ]
      : prompt;
    const messages = [{ role: "user", content }];
    if (system) messages.unshift({ role: "system", content: system });
    const { message, finish_reason, usage } = await this.create({ model, messages }, stream);
    return { text: message.content, finish: finish_reason, ...spent(usage) };
  }

  async think(model, prompt, { stream }) {
    const messages = [{ role: "user", content: prompt }];
    const { message, usage } = await this.create({ model, messages, reasoning_effort: "low" }, stream);
    return { text: message.content, thought: message.reasoning_content ?? "", ...spent(usage) };
  }

  async useTools(model, prompt, { stream, think }) {
    const asked = {
      model,
      tools: tools(this.facts, (name, description, parameters) => ({
        type: "function",
        function: { name, description, parameters, strict: true },
      })),
      ...(think ? { reasoning_effort: "low" } : {}),
    };
    const messages = [{ role: "user", content: prompt }];
    const { message, finish_reason } = await this.create({ ...asked, messages }, stream);
    // What the client gives is sent back as it is, less what the client alone knows.
    const { parsed, ...sendable } = message;
    const calls = message.tool_calls ?? [];
    for (const call of calls) delete call.function.parsed_arguments;
    messages.push(sendable);
    for (const call of calls) {
      messages.push({ role: "tool", tool_call_id: call.id, content: this.facts.results[call.function.name] });
    }
    const last = await this.create({ ...asked, messages }, stream);
    return {
      calls: calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]),
      finish: finish_reason,
      text: last.message.content,
      thought: message.reasoning_content ?? "",
    };
  }

  async structure(model, prompt) {
    const response_format = {
      type: "json_schema",
      json_schema: { name: "city", schema: this.facts.schema, strict: true },
    };
    const messages = [{ role: "user", content: prompt }];
    const { message } = await this.create({ model, messages, response_format }, false);
    return { value: JSON.parse(message.content) };
  }
}

const THINKING = { reasoning: { effort: "low", summary: "auto" }, include: ["reasoning.encrypted_content"] };

export class Responses extends Base {
  async create(asked, stream) {
    if (!stream) return this.sdk.responses.create({ ...asked, store: false });
    const events = this.sdk.responses.stream({ ...asked, store: false });
    for await (const event of events) {
      if (event.type === "error" || event.type === "response.failed") throw new OpenAI.OpenAIError("the stream failed");
    }
    return events.finalResponse();
  }

  async say(model, prompt, { system, image, stream } = {}) {
    const content = [{ type: "input_text", text: prompt }];
    if (image) content.push({ type: "input_image", image_url: this.image, detail: "low" });
    const asked = { model, input: [{ role: "user", content }], ...(system ? { instructions: system } : {}) };
    const answer = await this.create(asked, stream);
    return { text: answer.output_text, finish: answer.status, ...used(answer.usage) };
  }

  async think(model, prompt, { stream }) {
    const answer = await this.create({ model, input: prompt, ...THINKING }, stream);
    return { text: answer.output_text, thought: summary(answer), ...used(answer.usage) };
  }

  async useTools(model, prompt, { stream, think }) {
    const asked = {
      model,
      tools: tools(this.facts, (name, description, parameters) => ({
        type: "function",
        name,
        description,
        parameters,
        strict: true,
      })),
      ...(think ? THINKING : {}),
    };
    const input = [{ role: "user", content: prompt }];
    const answer = await this.create({ ...asked, input }, stream);
    const calls = answer.output.filter((item) => item.type === "function_call");
    // What the client gives is sent back as it is, less what the client alone knows.
    for (const { parsed_arguments, ...item } of answer.output) input.push(item);
    for (const call of calls) {
      input.push({ type: "function_call_output", call_id: call.call_id, output: this.facts.results[call.name] });
    }
    const last = await this.create({ ...asked, input }, stream);
    return {
      calls: calls.map((call) => [call.name, JSON.parse(call.arguments)]),
      finish: answer.status,
      text: last.output_text,
      thought: summary(answer),
    };
  }

  async structure(model, prompt) {
    const format = { type: "json_schema", name: "city", schema: this.facts.schema, strict: true };
    const answer = await this.create({ model, input: prompt, text: { format } }, false);
    return { value: JSON.parse(answer.output_text) };
  }

  async count(model, prompt) {
    const answer = await this.sdk.responses.inputTokens.count({ model, input: prompt });
    return { tokens: answer.input_tokens };
  }
}

function summary(answer) {
  const items = answer.output.filter((item) => item.type === "reasoning");
  return items.flatMap((item) => item.summary.map((part) => part.text)).join("");
}

function spent(usage) {
  return { input: usage.prompt_tokens, output: usage.completion_tokens };
}

function used(usage) {
  return { input: usage.input_tokens, output: usage.output_tokens };
}
