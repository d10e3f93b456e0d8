// A conversation with the model that this pod serves, in memory only. A token's colour is the depth that made it, its
// paleness and its underline how sure the model was. Everything that came from the model is set as text, never as HTML.

const at = (id) => document.getElementById(id);
const UNSURE = 0.5;
let model = null;
let messages = [];
let running = null;
let token = ""; // in memory alone: a page that is loaded again asks again

function headers() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

// The error that an answer tells; one that asks for a token shows the field for it.
async function refusal(answer) {
  if (answer.status === 401) at("enter").hidden = false;
  if (answer.status === 401 && !token) return new Error("Callers have tokens here: enter yours.");
  return new Error((await answer.json()).error.message);
}

async function begin() {
  const answer = await fetch("v1/models", { headers: headers() });
  if (!answer.ok) throw await refusal(answer);
  const body = await answer.json();
  at("enter").hidden = true;
  [model] = body.data;
  const { candidate, layer_budget, total_layers, exit_layers } = model.helios;
  at("model").textContent = document.title = model.id;
  at("about").textContent = `${candidate}: ${layer_budget} of ${total_layers} layers are loaded`;
  const depths = [...new Set([...exit_layers.filter((layer) => layer < layer_budget), 0])];
  at("depth").replaceChildren(...depths.map((depth) => new Option(depth || `${layer_budget} (all)`, depth)));
  at("depth").value = 0;
}

function say(kind, text = "") {
  const article = document.createElement("article");
  article.className = kind;
  article.textContent = text;
  at("talk").append(article);
  article.scrollIntoView({ block: "end" });
  return article;
}

// Orange is shallow, blue is all of the model; the paler, the surer.
function colour(depth, confidence) {
  const hue = 30 + 180 * Math.min(1, depth / model.helios.total_layers);
  return `hsl(${hue} 85% ${60 + 32 * confidence}%)`;
}

function shown(text, depth, confidence) {
  const span = document.createElement("span");
  span.textContent = text;
  span.title = `layer ${depth} of ${model.helios.total_layers}, ${(100 * confidence).toFixed(0)} % sure`;
  span.style.backgroundColor = colour(depth, confidence);
  if (confidence < UNSURE) span.classList.add("unsure");
  return span;
}

// The events of a response, as objects, wherever the network cuts them.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const word = part.replace(/^data: /, "");
      if (word === "[DONE]") return;
      yield JSON.parse(word);
    }
  }
}

function body(text) {
  const common = {
    model: model.id,
    stream: true,
    temperature: Number(at("temperature").value),
    max_tokens: Number(at("tokens").value),
    helios: { depth: Number(at("depth").value) },
  };
  return at("way").value === "chat"
    ? ["v1/chat/completions", { ...common, messages: [...messages, { role: "user", content: text }] }]
    : ["v1/completions", { ...common, prompt: text }];
}

async function ask(text, signal) {
  const [path, asked] = body(text);
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers() },
    body: JSON.stringify(asked),
    signal,
  });
  if (!response.ok) throw await refusal(response);
  const article = say("assistant");
  let answer = "";
  let unshown = 0; // tokens whose text comes with a later one: part of a character, perhaps of a stop string
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    const [choice] = event.choices;
    const delta = choice.delta ? choice.delta.content : choice.text;
    const made = event.helios;
    if (made && made.confidences) {
      if (delta) article.append(shown(delta, made.depth, Math.min(...made.confidences)));
      unshown += made.confidences.length - (delta ? 1 : 0);
      answer += delta || "";
      article.scrollIntoView({ block: "end" });
    }
    if (choice.finish_reason) show(made, unshown);
  }
  if (asked.messages) messages = [...asked.messages, { role: "assistant", content: answer }];
}

function show(made, unshown) {
  const percent = (100 * made.mean_confidence).toFixed(0);
  const changes = made.spans.length > 1 ? `, ${made.spans.length} spans` : "";
  const hidden = unshown ? `, ${unshown} tokens without text of their own` : "";
  at("sums").textContent = `${made.mean_layers.toFixed(1)} layers a token, ${percent} % sure${changes}${hidden}`;
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = at("text").value;
  if (!text || running) return;
  running = new AbortController();
  at("send").hidden = true;
  at("stop").hidden = false;
  say("user", text);
  try {
    if (!model) await begin();
    await ask(text, running.signal);
    at("text").value = "";
  } catch (error) {
    if (error.name !== "AbortError") say("wrong", error.message);
  } finally {
    running = null;
    at("send").hidden = false;
    at("stop").hidden = true;
    at("text").focus();
  }
});
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});
at("stop").addEventListener("click", () => running && running.abort());
at("clear").addEventListener("click", () => {
  messages = [];
  at("talk").replaceChildren();
  at("sums").textContent = "";
});
at("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  at("token").value = "";
  begin().catch((error) => say("wrong", error.message));
});
begin().catch((error) => say("wrong", error.message));
