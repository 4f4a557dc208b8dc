/* The page: a photo in, a better one beside it. Everything it knows comes from /v1/enhancers. */

import { Viewer } from "/viewer.js";

const $ = (id) => document.getElementById(id);
const body = document.body;
const view = $("view");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let offer = null; // what /v1/enhancers says
let photo = null; // {file, shown, width, height, accept}: the one in hand
let result = null; // {blob, enhancer}: the full effect on it
let work = null; // AbortController of what is going on
let urls = []; // to be let go with the photo
let ratio = 1; // how many times larger the result is

/* Words */

const bytes = (n) => (n < 1e6 ? `${Math.max(1, Math.round(n / 1e3))} kB` : `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)} MB`);
const short = (name) => name.split(":").pop();
const tasks = { "low-light": "Dark photos", denoise: "Noise", "super-resolution": "Larger", tone: "Tone" };

const format = (type) => ({ "image/heic": "HEIC", "image/webp": "WebP" })[type] || (type.startsWith("image/") ? type.slice(6).toUpperCase() : "");

function plainly(text) {
  const said = text.replace(/^the \d+ bytes given: /, "").replace(/(, |; )allow more with .*$/, "");
  return said.charAt(0).toUpperCase() + said.slice(1) + (/[.!?]$/.test(said) ? "" : ".");
}

function problem(title, detail) {
  const box = $("problem");
  box.replaceChildren();
  box.hidden = !title;
  if (!title) return;
  const head = document.createElement("b");
  head.textContent = title;
  box.append(head, plainly(detail));
  box.scrollIntoView({ block: "nearest" });
}

function status(text) {
  $("status").textContent = text;
}

/* Talking to the server */

class Refused extends Error {
  constructor(title, detail) {
    super(detail);
    this.title = title;
  }
}

const titles = {
  401: "The token is not right",
  413: "This photo is too large",
  422: "This photo can't be enhanced",
  429: "The server is busy",
  503: "The server is busy",
  504: "This took too long",
};

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  for (let attempt = 1; ; attempt++) {
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The server can't be reached", "is it still running? Then try again");
    }
    if (response.ok) return response;
    if (response.status === 429 && attempt < 8) {
      status("The server is busy; waiting for a turn …");
      const wait = Number(response.headers.get("Retry-After") || 2) * 1000;
      await new Promise((go) => setTimeout(go, wait));
      options.signal?.throwIfAborted();
      continue;
    }
    if (response.status === 401) {
      await tokenAsked(token !== null);
      return ask(path, options);
    }
    const said = await response.json().catch(() => ({ detail: response.statusText }));
    throw new Refused(titles[response.status] || "That didn't work", said.detail || response.statusText);
  }
}

function tokenAsked(again) {
  $("door-hint").textContent = again ? "That was not it." : "";
  $("door").showModal();
  return new Promise((go) => {
    $("door-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem("token", $("token").value.trim());
      $("door").close();
      go();
    };
  });
}

function enhance(file, accept, strength, signal) {
  const query = new URLSearchParams({ enhancer: chosen().name });
  if (strength < 1) query.set("strength", strength);
  for (const [name, value] of controls()) query.set(name, value);
  return ask(`/v1/enhance?${query}`, {
    method: "POST",
    body: file,
    headers: { Accept: accept, "Content-Type": "application/octet-stream" },
    signal,
  });
}

/* Settings */

const chosen = () => offer.enhancers.find((e) => e.name === $("enhancer").value);
const strength = () => ($("strength").disabled ? 1 : $("strength").valueAsNumber / 100);
const controls = () =>
  [...$("controls").querySelectorAll("input[type=range]")].filter((r) => !r.disabled).map((r) => [r.name, r.value]);

function paint(range) {
  const share = (range.valueAsNumber - range.min) / (range.max - range.min);
  range.style.setProperty("--done", `${share * 100}%`);
}

function fillEnhancers() {
  const select = $("enhancer");
  const groups = new Map();
  const names = offer.enhancers.map((e) => short(e.name));
  const initial = offer.enhancers.find((e) => e.default) || offer.enhancers[0];
  const ordered = [initial, ...offer.enhancers.filter((e) => e !== initial)];
  for (const enhancer of ordered) {
    if (!groups.has(enhancer.task)) {
      const group = document.createElement("optgroup");
      group.label = tasks[enhancer.task] || enhancer.task;
      groups.set(enhancer.task, group);
      select.append(group);
    }
    const unique = names.filter((n) => n === short(enhancer.name)).length === 1;
    groups.get(enhancer.task).append(new Option(unique ? short(enhancer.name) : enhancer.name, enhancer.name));
  }
  select.value = initial.name;
  describe();
}

function describe() {
  const enhancer = chosen();
  const larger = enhancer.scale > 1;
  $("summary").textContent = enhancer.summary.replace(/\s*\([^()]*\)$/, "");
  $("strength").disabled = larger;
  $("strength-hint").textContent = larger ? `It makes the photo ${enhancer.scale} times as large, so there is nothing to mix with.` : "";
  $("controls").replaceChildren(...Object.entries(enhancer.controls).map(([name, limits]) => control(name, limits)));
  strengthen();
}

function control(name, [low, high]) {
  const field = document.createElement("div");
  field.className = "field";
  const row = document.createElement("div");
  row.className = "row";
  const label = document.createElement("label");
  label.htmlFor = `control-${name}`;
  label.textContent = name.charAt(0).toUpperCase() + name.slice(1);
  const value = document.createElement("output");
  const range = document.createElement("input");
  Object.assign(range, { type: "range", id: `control-${name}`, name, min: low, max: high, step: "any", disabled: true });
  range.step = (high - low) / 90;
  range.value = (low + high) / 2;
  const check = document.createElement("label");
  check.className = "check";
  const auto = document.createElement("input");
  Object.assign(auto, { type: "checkbox", id: `auto-${name}`, checked: true });
  check.append(auto, "Let the enhancer decide");
  const show = () => {
    value.textContent = auto.checked ? "auto" : range.valueAsNumber.toFixed(2);
    range.disabled = auto.checked;
    paint(range);
  };
  range.addEventListener("input", show);
  range.addEventListener("change", rework);
  auto.addEventListener("change", () => {
    show();
    rework();
  });
  row.append(label, value);
  field.append(row, range, check);
  show();
  return field;
}

function strengthen() {
  $("strength-value").textContent = `${Math.round(strength() * 100)}%`;
  view.style.setProperty("--strength", strength());
  paint($("strength"));
}

/* The photo */

async function shown(url, ...images) {
  for (const image of images) image.src = url;
  await images[0].decode();
}

function keep(blob) {
  const url = URL.createObjectURL(blob);
  urls.push(url);
  return url;
}

function busy(text) {
  work?.abort();
  const mine = (work = new AbortController());
  const begun = performance.now();
  const tell = () => {
    const seconds = Math.round((performance.now() - begun) / 1000);
    status(seconds > 1 ? `${text} ${seconds} s` : text);
  };
  tell();
  const clock = setInterval(tell, 1000);
  $("progress").hidden = false;
  view.setAttribute("aria-busy", "true");
  $("download").disabled = true;
  return {
    signal: mine.signal,
    end() {
      clearInterval(clock);
      if (work !== mine) return;
      $("progress").hidden = true;
      view.setAttribute("aria-busy", "false");
      $("download").disabled = !result;
      work = null;
    },
  };
}

async function open(file) {
  problem();
  $("note").textContent = "";
  if (!offer) return;
  if (file.size > offer.limits.bytes) {
    problem("This photo is too large", `it has ${bytes(file.size)}, and this server takes up to ${bytes(offer.limits.bytes)}`);
    return;
  }
  const mine = busy("Opening …");
  try {
    const opened = await look(file, mine.signal);
    if (opened.width * opened.height > offer.limits.pixels) {
      const most = Math.floor(offer.limits.pixels / 1e6) || offer.limits.pixels / 1e6;
      throw new Refused("This photo is too large", `it has ${opened.width} × ${opened.height} pixels, and this server takes up to ${most} million`);
    }
    mine.signal.throwIfAborted();
    await present(opened);
  } catch (error) {
    failed(error);
    return;
  } finally {
    mine.end();
  }
  await rework();
}

/* What the browser can't show, such as TIFF, the server turns into what it can. */
async function look(file, signal) {
  const trial = new Image();
  const url = URL.createObjectURL(file);
  try {
    await shown(url, trial);
    return { file, shown: file, width: trial.naturalWidth, height: trial.naturalHeight, accept: "*/*" };
  } catch {
    const accept = "image/png, image/jpeg;q=0.5";
    const response = await ask("/v1/enhance?strength=0&enhancer=" + encodeURIComponent(plainOne()), {
      method: "POST",
      body: file,
      headers: { Accept: accept, "Content-Type": "application/octet-stream" },
      signal,
    });
    const blob = await response.blob();
    const seen = await createImageBitmap(blob);
    return { file, shown: blob, width: seen.width, height: seen.height, accept };
  } finally {
    URL.revokeObjectURL(url);
  }
}

/* Strength 0 needs an enhancer that doesn't enlarge; every server but one for that alone has one. */
const plainOne = () => (chosen().scale === 1 ? chosen() : offer.enhancers.find((e) => e.scale === 1) || chosen()).name;

async function present(opened) {
  for (const url of urls.splice(0)) URL.revokeObjectURL(url);
  photo = opened;
  result = null;
  const url = keep(opened.shown);
  $("after").removeAttribute("src");
  view.classList.add("first");
  view.hidden = false;
  $("tools").hidden = false;
  $("empty").hidden = true;
  $("another").hidden = false;
  body.dataset.state = "photo";
  await shown(url, $("before"), $("under"));
  const name = document.createElement("b");
  name.textContent = opened.file.name || "Pasted photo";
  $("file").replaceChildren(name, ` · ${opened.width} × ${opened.height} · ${bytes(opened.file.size)}`);
  $("before").alt = `Before: ${name.textContent}`;
  sized(1);
}

async function rework() {
  if (!photo) return;
  problem();
  const mine = busy("Enhancing …");
  const before = photo;
  try {
    const begun = performance.now();
    const response = await enhance(before.file, before.accept, 1, mine.signal);
    const blob = await response.blob();
    const enhancer = short(response.headers.get("Enhancekit-Enhancer"));
    const url = URL.createObjectURL(blob);
    mine.signal.throwIfAborted();
    const old = result;
    if (old) URL.revokeObjectURL(old.url);
    urls.push(url);
    await shown(url, $("after"));
    result = { blob, url, enhancer, warning: response.headers.get("Enhancekit-Warning") };
    $("after").alt = `After: enhanced by ${enhancer}`;
    $("note").textContent = result.warning ? plainly(result.warning) : "";
    const scale = chosen().scale;
    if (scale !== ratio) sized(scale);
    if (view.classList.contains("first")) reveal();
    status(`Enhanced by ${enhancer} in ${((performance.now() - begun) / 1000).toFixed(1)} s`);
    $("download").textContent = `Download ${format(photo.accept === "*/*" ? blob.type : photo.file.type)}`.trim();
  } catch (error) {
    failed(error);
  } finally {
    mine.end();
  }
}

function failed(error) {
  if (error.name === "AbortError") return;
  status("");
  problem(error.title || "That didn't work", error.message);
}

async function download() {
  if (!photo || !result) return;
  problem();
  let blob = result.blob;
  if (strength() < 1 || photo.accept !== "*/*") {
    const mine = busy("Preparing the file …");
    try {
      blob = await (await enhance(photo.file, "*/*", strength(), mine.signal)).blob();
      status("Saved.");
    } catch (error) {
      failed(error);
      return;
    } finally {
      mine.end();
    }
  }
  const link = document.createElement("a");
  const suffixes = offer.formats.find((f) => f.media_type === blob.type)?.suffixes || [""];
  const [, stem, suffix] = (photo.file.name || "photo").match(/^(.*?)(\.[^.]*)?$/);
  const fits = suffix && suffixes.includes(suffix.toLowerCase());
  link.href = URL.createObjectURL(blob);
  link.download = `${stem}-${result.enhancer}${fits ? suffix : suffixes.at(-1)}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/* Looking at it */

const viewer = new Viewer(view, {
  onzoom: (percent) => {
    $("zoom").textContent = `${percent}%`;
  },
  // the tools below, and some air where there is enough of it
  room: () => (view.clientWidth > 600 ? { side: 28, below: 74 } : { side: 0, below: 68 }),
});
viewer.wheel(true);

function reveal() {
  view.classList.remove("first");
  if (calm.matches) {
    viewer.split(50);
    return;
  }
  const begun = performance.now();
  const step = (now) => {
    const t = Math.min(1, (now - begun) / 650);
    viewer.split(100 - 50 * (1 - (1 - t) ** 3));
    if (t < 1) requestAnimationFrame(step);
  };
  viewer.split(100);
  requestAnimationFrame(step);
}

function sized(scale) {
  ratio = scale;
  viewer.sized(photo.width * scale, photo.height * scale);
}

$("in").addEventListener("click", () => viewer.zoomTo(viewer.scale * 1.25));
$("out").addEventListener("click", () => viewer.zoomTo(viewer.scale / 1.25));
$("fit").addEventListener("click", () => viewer.fit());
$("full").addEventListener("click", () => viewer.full());
$("original").addEventListener("click", () => {
  const on = view.classList.toggle("originally");
  $("original").setAttribute("aria-pressed", on);
});

/* Ways in */

const pick = () => $("picker").click();
$("choose").addEventListener("click", pick);
$("another").addEventListener("click", pick);
$("picker").addEventListener("change", () => {
  const [file] = $("picker").files;
  $("picker").value = "";
  if (file) open(file);
});

let inside = 0;
const files = (event) => [...(event.dataTransfer?.items || [])].some((i) => i.kind === "file");
addEventListener("dragenter", (event) => {
  if (!files(event)) return;
  inside++;
  body.classList.add("dragging");
});
addEventListener("dragleave", () => {
  inside = Math.max(0, inside - 1);
  if (!inside) body.classList.remove("dragging");
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  body.classList.remove("dragging");
  const [file] = event.dataTransfer.files;
  if (file) open(file);
});
addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files || [];
  if (file) open(file);
});

$("enhancer").addEventListener("change", () => {
  describe();
  rework();
});
$("strength").addEventListener("input", strengthen);
$("panel").addEventListener("submit", (event) => {
  event.preventDefault();
  download();
});

try {
  offer = await (await ask("/v1/enhancers")).json();
  fillEnhancers();
  const names = offer.formats.map((f) => (f.name === "WEBP" ? "WebP" : f.name === "HEIF" ? "HEIC" : f.name));
  $("limits").textContent = `${names.slice(0, -1).join(", ")} or ${names.at(-1)}, up to ${bytes(offer.limits.bytes)}`;
  body.dataset.ready = "true";
} catch (error) {
  failed(error);
}
