// The official @anthropic-ai/sdk package of npm.

import Anthropic from "@anthropic-ai/sdk";
import { isBrokenOff, tools } from "./play.mjs";

const THINKING = { thinking: { type: "enabled", budget_tokens: 1024 } };

export class Messages {
  static packages = ["@anthropic-ai/sdk"];

  constructor(url, key, facts) {
    this.facts = facts;
    this.sdk = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
  }

  create(asked, stream) {
    const whole = { ...asked, max_tokens: 4096 };
    return stream ? this.sdk.messages.stream(whole).finalMessage() : this.sdk.messages.create(whole);
  }

  async say(model, prompt, { system, image, stream } = {}) {
    const content = [{ type: "text", text: prompt }];
    if (image) content.push({ type: "image", source: { type: "base64", media_type: "image/png", data: image } });
    const asked = { model, messages: [{ role: "user", content }], ...(system ? { system } : {}) };
    const message = await this.create(asked, stream);
    return { text: text(message), finish: message.stop_reason, ...spent(message.usage) };
  }

  async think(model, prompt, { stream }) {
    const message = await this.create({ model, messages: [{ role: "user", content: prompt }], ...THINKING }, stream);
    return { text: text(message), thought: thought(message), ...spent(message.usage) };
  }

  async useTools(model, prompt, { stream, think }) {
    const asked = {
      model,
      tools: tools(this.facts, (name, description, input_schema) => ({ name, description, input_schema })),
      ...(think ? THINKING : {}),
    };
    const messages = [{ role: "user", content: prompt }];
    const message = await this.create({ ...asked, messages }, stream);
    const calls = message.content.filter((block) => block.type === "tool_use");
    // What the client gives is sent back as it is.
    messages.push({ role: "assistant", content: message.content });
    const results = calls.map((call) => ({
      type: "tool_result",
      tool_use_id: call.id,
      content: this.facts.results[call.name],
    }));
    messages.push({ role: "user", content: results });
    const last = await this.create({ ...asked, messages }, stream);
    return {
      calls: calls.map((call) => [call.name, call.input]),
      finish: message.stop_reason,
      text: text(last),
      thought: thought(message),
    };
  }

  async structure(model, prompt) {
    const output_config = { format: { type: "json_schema", schema: this.facts.schema } };
    const message = await this.create({ model, messages: [{ role: "user", content: prompt }], output_config }, false);
    return { value: JSON.parse(text(message)) };
  }

  async models() {
    const found = [];
    for await (const model of this.sdk.models.list()) found.push(model.id);
    return { models: found.sort() };
  }

  async count(model, prompt) {
    const answer = await this.sdk.messages.countTokens({ model, messages: [{ role: "user", content: prompt }] });
    return { tokens: answer.input_tokens };
  }

  failure(error) {
    if (error instanceof Anthropic.APIError && error.status) {
      return { status: error.status, retry_after: error.headers?.get?.("retry-after") ?? null };
    }
    return error instanceof Anthropic.AnthropicError || isBrokenOff(error) ? { status: null } : null;
  }
}

function text(message) {
  return message.content.map((block) => (block.type === "text" ? block.text : "")).join("");
}

function thought(message) {
  return message.content.map((block) => (block.type === "thinking" ? block.thinking : "")).join("");
}

function spent(usage) {
  const cached = (usage.cache_read_input_tokens ?? 0) + (usage.cache_creation_input_tokens ?? 0);
  return { input: usage.input_tokens + cached, output: usage.output_tokens };
}
