// The ai package of npm (the AI SDK) with the providers of @ai-sdk.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createMistral } from "@ai-sdk/mistral";
import { createOpenAI } from "@ai-sdk/openai";
import { AISDKError, APICallError, Output, embedMany, generateText, jsonSchema, streamText, tool } from "ai";
import { isBrokenOff } from "./play.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

class Base {
  constructor(url, key, facts) {
    this.facts = facts;
    this.provider = this.make(url, key);
  }

  language(model) {
    return this.provider(model);
  }

  async create(asked, stream) {
    if (!stream) return generateText({ ...asked, maxRetries: 0 });
    let failure;
    const onError = ({ error }) => {
      failure = error;
    };
    const answer = streamText({ ...asked, maxRetries: 0, onError });
    for await (const part of answer.fullStream) if (part.type === "error") failure = part.error;
    if (failure !== undefined) throw failure;
    return {
      text: await answer.text,
      reasoningText: await answer.reasoningText,
      finishReason: await answer.finishReason,
      usage: await answer.usage,
      toolCalls: await answer.toolCalls,
      response: await answer.response,
    };
  }

  async say(model, prompt, { system, image, stream } = {}) {
    const content = [{ type: "text", text: prompt }];
    if (image) content.push({ type: "file", mediaType: "image/png", data: image });
    const asked = { model: this.language(model), messages: [{ role: "user", content }] };
    const answer = await this.create(system ? { ...asked, ...this.instructions(system) } : asked, stream);
    return { text: answer.text, finish: answer.finishReason, ...this.spent(answer.usage) };
  }

  /** The current major calls the system prompt otherwise than the one before. */
  instructions(system) {
    return { [this.facts.generation === "current" ? "instructions" : "system"]: system };
  }

  async think(model, prompt, { stream }) {
    const asked = { model: this.language(model), prompt, providerOptions: this.thinking };
    const answer = await this.create(asked, stream);
    return { text: answer.text, thought: answer.reasoningText ?? "", ...this.spent(answer.usage) };
  }

  async useTools(model, prompt, { stream, think }) {
    const entries = this.facts.tools.map(([name, description, schema]) => [
      name,
      tool({ description, inputSchema: jsonSchema(schema) }),
    ]);
    const asked = {
      model: this.language(model),
      tools: Object.fromEntries(entries),
      providerOptions: think ? this.thinking : this.options,
    };
    const messages = [{ role: "user", content: prompt }];
    const answer = await this.create({ ...asked, messages }, stream);
    // What the client gives is sent back as it is.
    messages.push(...answer.response.messages);
    const results = answer.toolCalls.map(({ toolCallId, toolName }) => ({
      type: "tool-result",
      toolCallId,
      toolName,
      output: { type: "text", value: this.facts.results[toolName] },
    }));
    messages.push({ role: "tool", content: results });
    const last = await this.create({ ...asked, messages }, stream);
    return {
      calls: answer.toolCalls.map((call) => [call.toolName, call.input]),
      finish: answer.finishReason,
      text: last.text,
      thought: answer.reasoningText ?? "",
    };
  }

  async structure(model, prompt) {
    const output = Output.object({ schema: jsonSchema(this.facts.schema) });
    const answer = await generateText({ model: this.language(model), prompt, output, maxRetries: 0 });
    return { value: answer.output };
  }

  async embed(model) {
    const asked = { model: this.provider.textEmbeddingModel(model), values: ["one", "two"], maxRetries: 0 };
    return { vectors: (await embedMany(asked)).embeddings };
  }

  spent(usage) {
    return { input: usage.inputTokens, output: usage.outputTokens };
  }

  failure(error) {
    if (APICallError.isInstance(error) && error.statusCode) {
      return { status: error.statusCode, retry_after: error.responseHeaders?.["retry-after"] ?? null };
    }
    // What a stream says went wrong comes as the provider's package read it, often no Error at all.
    const isOwn = AISDKError.isInstance(error) || isBrokenOff(error) || !(error instanceof Error);
    return isOwn || error.name.startsWith("AI_") ? { status: null } : null;
  }
}

export class OpenAIChat extends Base {
  static packages = ["ai", "@ai-sdk/openai"];
  thinking = { openai: { reasoningEffort: "low" } };

  make(url, key) {
    return createOpenAI({ baseURL: `${url}/v1`, apiKey: key });
  }

  language(model) {
    return this.provider.chat(model);
  }
}

export class OpenAIResponses extends OpenAIChat {
  options = { openai: { store: false } };
  thinking = {
    openai: {
      store: false,
      forceReasoning: true, // behind the proxy stands a model whose name it does not know
      reasoningEffort: "low",
      reasoningSummary: "auto",
      include: ["reasoning.encrypted_content"],
    },
  };

  language(model) {
    return this.provider.responses(model);
  }
}

export class Anthropic extends Base {
  static packages = ["ai", "@ai-sdk/anthropic"];
  thinking = { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } } };

  make(url, key) {
    return createAnthropic({ baseURL: `${url}/v1`, apiKey: key });
  }
}

export class Google extends Base {
  static packages = ["ai", "@ai-sdk/google"];
  thinking = { google: { thinkingConfig: { includeThoughts: true, thinkingBudget: 1024 } } };

  make(url, key) {
    return createGoogleGenerativeAI({ baseURL: `${url}/v1beta`, apiKey: key });
  }
}

export class Mistral extends Base {
  static packages = ["ai", "@ai-sdk/mistral"];
  thinking = { mistral: { reasoningEffort: "high" } };

  make(url, key) {
    return createMistral({ baseURL: `${url}/v1`, apiKey: key });
  }
}
