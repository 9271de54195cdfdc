// The page's placement panel: where each model rests, what the links carry, the peak against the budget, and the time left.
// Listens only while it is open.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const EVENT = "distorch_placement";
const COLORS = ["#4e9ae6", "#e6a04e", "#6cc070", "#c77dd6", "#e06c75", "#56b6c2", "#d3b94d", "#8f94fb"];

const STYLE = `
.distorch-panel { padding: 12px; display: flex; flex-direction: column; gap: 14px; font-size: 13px; line-height: 1.45;
  color: var(--fg-color, #ddd); overflow-y: auto; height: 100%; box-sizing: border-box; }
.distorch-panel h3 { margin: 0 0 6px; font-size: 12px; font-weight: 600; letter-spacing: .04em; text-transform: uppercase;
  color: var(--descrip-text, #999); }
.distorch-card { background: var(--comfy-input-bg, #222); border: 1px solid var(--border-color, #4e4e4e); border-radius: 8px;
  padding: 10px; margin-bottom: 8px; }
.distorch-line { display: flex; justify-content: space-between; gap: 10px; align-items: baseline; }
.distorch-line > :first-child { min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.distorch-line > :last-child { flex: none; text-align: right; font-variant-numeric: tabular-nums; }
.distorch-name { font-weight: 600; }
.distorch-soft { color: var(--descrip-text, #999); }
.distorch-bar { position: relative; display: flex; height: 10px; margin: 5px 0 6px; border-radius: 5px; overflow: hidden;
  background: var(--comfy-menu-secondary-bg, #353535); }
.distorch-bar > span { height: 100%; flex: none; }
.distorch-bar > .distorch-rest { background: repeating-linear-gradient(135deg, #8886 0 4px, transparent 4px 8px); }
.distorch-bar > .distorch-mark { position: absolute; top: 0; bottom: 0; width: 2px; background: var(--fg-color, #ddd); }
.distorch-dot { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 6px; }
`;

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (Math.abs(count) >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${unit === 0 || count >= 100 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`;
}

function time(seconds) {
  if (seconds < 0.001) return "under 1 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function line(left, right, className = "") {
  return element("div", `distorch-line ${className}`, element("span", "", left), element("span", "", right));
}

function part(share, color, title) {
  const made = element("span", color ? "" : "distorch-rest");
  made.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  if (color) made.style.background = color;
  made.title = title;
  return made;
}

function mark(share, title) {
  const made = element("span", "distorch-mark");
  made.style.left = `calc(${Math.max(0, Math.min(1, share)) * 100}% - 1px)`;
  made.title = title;
  return made;
}

function section(title, ...children) {
  return element("section", "", element("h3", "", title), ...children);
}

/** The same model keeps its colour, whatever comes and goes beside it. */
const colors = new Map();
function colorOf(model) {
  if (!colors.has(model)) colors.set(model, COLORS[colors.size % COLORS.length]);
  return colors.get(model);
}

function dot(model) {
  const made = element("span", "distorch-dot");
  made.style.background = colorOf(model);
  return made;
}

function titleOf(run) {
  const node = app.graph?.getNodeById?.(run.node) ?? app.graph?.getNodeById?.(Number(run.node));
  return node?.title || run.type || `node ${run.node}`;
}

/** What the whole prompt still takes; nodes that nobody can predict are counted beside it. */
function promptLine({ left_s, nodes, unknown }) {
  const known = nodes - unknown.length;
  const rest = unknown.length ? ` and ${unknown.length} node${unknown.length === 1 ? "" : "s"} of unknown time` : "";
  const left = left_s === null ? "time left is not known" : `about ${time(left_s)} left${known ? rest : ""}`;
  const made = line(`prompt, ${nodes} node${nodes === 1 ? "" : "s"} to run`, left, "distorch-soft");
  made.dataset.prompt = left_s === null ? "unknown" : left_s;
  return made;
}

function runSection(run) {
  if (!run) return section("Run", element("div", "distorch-soft", "Nothing runs."));
  const card = element("div", "distorch-card", line(element("span", "distorch-name", titleOf(run)), run.max > 0 ? `${run.value} of ${run.max}` : ""));
  if (run.max > 0) card.append(element("div", "distorch-bar", part(run.value / run.max, "var(--p-primary-color, #4e9ae6)", "done")));
  if (run.left_s !== null && run.max > 0) {
    const kind = run.measured ? "" : " (predicted)";
    card.append(line(`${time(run.step_s)} a step${kind}`, `about ${time(run.left_s)} left`, "distorch-soft"));
  }
  if (run.prompt) card.append(promptLine(run.prompt));
  return section("Run", card);
}

function deviceCard(device, models) {
  const whole = device.budget_bytes || device.total_bytes;
  const card = element("div", "distorch-card");
  card.dataset.device = device.device;
  card.append(line(element("span", "distorch-name", device.device), `${bytes(device.held_bytes)} of ${bytes(whole)}`));
  const bar = element("div", "distorch-bar");
  // What the models in use plan at most, beside what the others hold.
  let peak = 0;
  let others = 0;
  for (const model of models) {
    for (const share of model.shares.filter((share) => share.device === device.device))
      bar.append(part(share.bytes / whole, colorOf(model.model), `${model.model}: ${bytes(share.bytes)} ${share.how}`));
    const busy = model.compute === device.device && (model.in_use || models.length === 1);
    if (!busy) others += model.shares.reduce((sum, share) => sum + (share.device === device.device ? share.bytes : 0), 0);
    if (model.compute !== device.device) continue;
    if (model.ring_bytes > 0) bar.append(part(model.ring_bytes / whole, null, `${model.model}: ring of ${bytes(model.ring_bytes)}`));
    if (busy) peak = Math.max(peak, model.peak_bytes);
  }
  if (peak > 0) peak += others;
  if (peak > 0) bar.append(mark(peak / whole, `planned peak: ${bytes(peak)}`));
  card.append(bar);
  if (peak > 0) card.append(line("planned peak", `${bytes(peak)} of ${bytes(whole)}`, "distorch-soft"));
  return card;
}

const HOW = { resident: "resident", streamed: "streamed", "on donor": "computed there" };

function modelCard(model) {
  const name = element("span", "distorch-name", dot(model.model), model.model);
  const card = element("div", "distorch-card", line(name, model.in_use ? "in use" : "idle"));
  card.dataset.model = model.model;
  for (const share of model.shares)
    card.append(line(`${share.device}: ${HOW[share.how] ?? share.how}`, `${bytes(share.bytes)}, ${share.blocks} block${share.blocks === 1 ? "" : "s"}`, "distorch-soft"));
  if (model.step_s > 0) card.append(line("a step, predicted", time(model.step_s), "distorch-soft"));
  for (const lane of model.lanes.filter((lane) => lane.bytes > 0)) {
    const busy = model.step_s > 0 ? `, busy ${Math.round((100 * lane.busy_s) / model.step_s)} %` : "";
    card.append(line(lane.lane, `${bytes(lane.bytes)} a step${busy}`, "distorch-soft"));
  }
  return card;
}

function linkSection(links) {
  if (links.length === 0) return "";
  const card = element("div", "distorch-card");
  for (const link of links)
    card.append(line(link.lane, link.bytes_s > 0 ? `${bytes(link.bytes_s)}/s, ${bytes(link.bytes)} in all` : `${bytes(link.bytes)} in all`));
  return section("Links", card);
}

function draw(panel, placement) {
  if (!placement) {
    panel.replaceChildren(element("div", "distorch-soft", "Asking the server..."));
    return;
  }
  const { models, devices, links, run, counts } = placement;
  const shown = devices.filter((device) => device.device !== "disk" || device.held_bytes > 0);
  const empty = element("div", "distorch-soft", "No model is loaded. Queue a workflow to see where its weights go.");
  panel.replaceChildren(
    runSection(run),
    section("Devices", ...shown.map((device) => deviceCard(device, models))),
    section("Models", ...(models.length ? models.map(modelCard) : [empty])),
    linkSection(links),
    element("div", "distorch-soft", `${counts.placed} placed, ${counts.reused} reused, ${counts.evicted} evicted`),
  );
}

let panel = null;
let latest = null;
let subscribed = null;

async function subscribe(enabled) {
  const client = api.clientId;
  if (!client || (enabled && subscribed === client)) return;
  subscribed = enabled ? client : null;
  const answer = await api.fetchApi("/distorch/placement/subscribe", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ client_id: client, enabled }),
  });
  if (!answer.ok) return;
  show(await answer.json());
}

function show(placement) {
  latest = placement;
  if (panel) draw(panel, latest);
}

function open(place) {
  panel = element("div", "distorch-panel");
  place.replaceChildren(element("style", "", STYLE), panel);
  draw(panel, latest);
  subscribe(true).catch((error) => console.warn("distorch: no placement", error));
}

function close() {
  panel = null;
  subscribe(false).catch(() => {});
}

app.registerExtension({
  name: "distorch.placement",
  setup() {
    api.addEventListener(EVENT, (event) => show(event.detail));
    // Another socket is another client, or the same one to a server that began anew.
    api.addEventListener("reconnected", () => {
      subscribed = null;
      if (panel) subscribe(true).catch(() => {});
    });
    app.extensionManager.registerSidebarTab({
      id: "distorch-placement",
      icon: "pi pi-server",
      title: "Placement",
      tooltip: "Where models rest (distorch)",
      type: "custom",
      render: open,
      destroy: close,
    });
  },
});
