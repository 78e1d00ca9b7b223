// The scenarios as an official client plays them: what tests/clients/play.py is for Python, with the same names.

/** What `client` saw of `scenario`; a failure that is its own has `error`, any other failure `broken`. */
export async function play(client, scenario, models, facts) {
  try {
    return await playOne(client, scenario, models, facts);
  } catch (error) {
    const failure = client.failure(error);
    const text = `${error?.name ?? typeof error}: ${error?.message ?? JSON.stringify(error)}`;
    return failure === null ? { broken: `${text}\n${error?.stack ?? ""}` } : { error: failure, message: text };
  }
}

function playOne(client, scenario, models, facts) {
  const prompt = `Say hello [${scenario}]`;
  const stream = scenario.endsWith("_stream");
  switch (scenario.replace(/_stream$/, "")) {
    case "system":
      return client.say(models.chat, prompt, { system: facts.system });
    case "tools":
      return client.useTools(models.chat, prompt, { stream });
    case "structured":
      return client.structure(models.chat, prompt);
    case "vision":
      return client.say(models.chat, prompt, { image: facts.png });
    case "thinking":
      return client.think(models.thinking, prompt, { stream });
    case "thinking_tools":
      return client.useTools(models.thinking, prompt, { think: true });
    case "error_404":
      return client.say(facts.missing_model, prompt);
    case "models":
      return client.models();
    case "embeddings":
      return client.embed(models.embeddings);
    case "count":
      return client.count(models.chat, prompt);
    case "mid_stream_error":
    case "cut":
      return client.say(models.chat, prompt, { stream: true });
    default:
      return client.say(models.chat, prompt, { stream });
  }
}

/** Whether `error` is what Node.js raises when an answer breaks off. */
export function isBrokenOff(error) {
  return error?.message === "terminated" || error?.cause?.code === "UND_ERR_SOCKET";
}

/** The tools of `facts` as a client wants them; `make` gets name, description and schema. */
export function tools(facts, make) {
  return facts.tools.map(([name, description, schema]) => make(name, description, schema));
}
