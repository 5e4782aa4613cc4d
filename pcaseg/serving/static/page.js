"use strict";

const WAIT_MS = 200; // after the last key
const AGAIN_MS = 500; // where the server is busy
const TRIES = 5;
const CAMERA_PX = 640;
const NOTES = {
  shipped: "These weights know rendered scenes alone, no photographs.",
  seeded: "These weights are drawn from a seed, not trained: the labels mean nothing.",
  "clip-only": "The aggregator's weights are drawn from a seed: the labels mean nothing.",
};

const $ = (id) => document.getElementById(id);
const percent = (share) => (share > 0 && share < 0.001 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

const state = {
  about: null,
  token: new URLSearchParams(location.hash.slice(1)).get("token") ?? "",
  picture: null, // {base64, bitmap, names}
  asked: 0, // number of the latest question; answers to others are dropped
  dropped: 0,
  asking: null, // its AbortController
  result: null, // {classes, colours, labels, size, ...}
  marked: null, // name of the class that is shown alone
  camera: null, // MediaStream
};

class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

async function request(path, options = {}) {
  const headers = state.token ? { Authorization: `Bearer ${state.token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer; is it still running?");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  if (response.status === 401) askForToken();
  throw new Refused(response.status, error ?? `The server answered ${response.status}.`);
}

/** Waits and asks again where the server is busy or still starting. */
async function patiently(path, options, current = () => true) {
  for (let tries = 1; ; tries++) {
    try {
      return await request(path, options);
    } catch (error) {
      if (![429, 503].includes(error.status) || tries === TRIES || !current()) throw error;
    }
    await pause(AGAIN_MS);
  }
}

async function connect() {
  try {
    for (;;) {
      try {
        state.about = await (await request("/api/about")).json();
        break;
      } catch (error) {
        if (error.status !== 503) throw error;
        $("about").textContent = "The bundle is being opened\u2026";
        await pause(AGAIN_MS);
      }
    }
  } catch (error) {
    complain(error);
    return;
  }
  const { model, backend, weights, version, classes, vocabularies, samples } = state.about;
  complain(null);
  $("token").hidden = true;
  $("about").textContent = `${model} on ${backend} \u00b7 pcaseg ${version}`;
  $("weights").textContent = NOTES[weights] ?? "";
  $("weights").hidden = !(weights in NOTES);
  $("vocabulary").replaceChildren(new Option("The names above", ""));
  for (const [name, count] of Object.entries(vocabularies)) $("vocabulary").add(new Option(`${name} (${count})`, name));
  if (classes && !$("names").value) setNames(classes);
  $("samples").replaceChildren(...samples.map(sampleButton));
}

function sampleButton(sample) {
  const button = document.createElement("button");
  const image = document.createElement("img");
  button.type = "button";
  image.src = sample.url;
  image.alt = `${sample.title}: ${sample.classes.join(", ")}`;
  button.append(image);
  button.addEventListener("click", async () => {
    const blob = await (await fetch(sample.url)).blob();
    $("vocabulary").value = "";
    setNames(sample.classes);
    await showBlob(blob, sample);
  });
  return button;
}

function askForToken() {
  $("token").hidden = false;
  $("token-text").focus();
}

function complain(error) {
  $("alert").hidden = !error;
  $("alert").textContent = error ? error.message : "";
}

/* Names */

function typedNames() {
  const text = $("names").value;
  const between = ["\n", ";"].find((mark) => text.includes(mark)) ?? (/:\s/.test(text) ? "\n" : ",");
  const parts = text.split(between);
  return parts.map((name) => name.trim()).filter(Boolean);
}

function setNames(names) {
  const lines = names.some((name) => /[,;]|:\s/.test(name));
  $("names").value = lines ? names.map((name) => `${name}\n`).join("") : names.join(", ");
}

let timer = 0;
function later() {
  clearTimeout(timer);
  timer = setTimeout(() => ask(), WAIT_MS);
}

/* Pictures */

async function showBlob(blob, sample = null) {
  stopCamera();
  let bitmap = null;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    // the server reads more kinds of files than browsers do
  }
  try {
    state.picture = { base64: await base64(await fitting(blob, bitmap)), bitmap };
  } catch (error) {
    complain(error);
    return;
  }
  $("kinds").hidden = !sample?.parts.length;
  state.sample = sample;
  state.result = null;
  drawPicture();
  await ask();
}

/** The file itself, or where the server takes none so large, a smaller JPEG of it. */
async function fitting(blob, bitmap) {
  const { body_bytes: bytes, pixels } = state.about?.limits ?? { body_bytes: 1 << 24, pixels: 1 << 24 };
  const most = 0.7 * bytes; // base64 takes four bytes for three
  if (!bitmap || (blob.size <= most && bitmap.width * bitmap.height <= pixels)) return blob;
  const scale = Math.min(1, 0.98 * Math.sqrt(pixels / (bitmap.width * bitmap.height)), 2048 / Math.max(bitmap.width, bitmap.height));
  return jpeg(bitmap, bitmap.width, bitmap.height, scale);
}

function jpeg(source, width, height, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
}

function base64(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error("The picture cannot be read; choose another."));
    reader.readAsDataURL(blob);
  });
}

function resize(width, height) {
  $("stage").classList.add("full");
  $("stage").style.setProperty("--ratio", width / height);
}

function drawPicture() {
  const { bitmap } = state.picture;
  const canvas = $("picture");
  const { width, height } = bitmap ?? state.result?.size ?? { width: 4, height: 3 };
  canvas.width = width;
  canvas.height = height;
  resize(width, height);
  if (bitmap) canvas.getContext("2d").drawImage(bitmap, 0, 0);
  if (!state.result) {
    $("overlay").width = $("overlay").width; // empties it
    $("legend").hidden = $("downloads").hidden = true;
  }
}

function drawOverlay() {
  const { classes, labels, colours, size } = state.result;
  const canvas = $("overlay");
  canvas.width = size.width;
  canvas.height = size.height;
  const picture = new ImageData(size.width, size.height);
  const pixels = new Uint32Array(picture.data.buffer);
  const paint = colours.map((colour, label) => {
    const value = parseInt(colour.slice(1), 16);
    const alpha = [null, classes[label].name].includes(state.marked) ? 0xff : 0x20;
    return ((alpha << 24) | ((value & 0xff) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
  });
  for (let i = 0; i < labels.length; i++) pixels[i] = paint[labels[i]];
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/* Questions */

function question(extra = {}) {
  const vocabulary = $("vocabulary").value;
  const chosen = vocabulary ? { vocabulary } : { classes: typedNames() };
  return { image: state.picture.base64, ...chosen, ...extra };
}

async function ask() {
  clearTimeout(timer);
  const number = ++state.asked;
  const current = () => number === state.asked;
  state.asking?.abort();
  if (!state.picture) return;
  if (!$("vocabulary").value && !typedNames().length) {
    state.result = null;
    drawPicture();
    complain(null);
    $("status").textContent = "Type class names to see labels.";
    return;
  }
  state.asking = new AbortController();
  const picture = state.picture;
  const start = performance.now();
  try {
    const options = { method: "POST", body: JSON.stringify(question()), signal: state.asking.signal };
    const result = await (await patiently("/api/segment", options, current)).json();
    result.labels = await unpacked(result.labels);
    if (!current()) {
      state.dropped++;
      return;
    }
    state.result = result;
    state.shown = picture;
    if (!result.classes.some((one) => one.name === state.marked)) state.marked = null;
    show(performance.now() - start);
  } catch (error) {
    if (error.name === "AbortError" || !current()) state.dropped++;
    else complain(error);
  }
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint16Array(await new Response(stream).arrayBuffer());
}

function show(tookMs) {
  const { classes, timings_ms: timings, backend, size, mean_confidence: mean } = state.result;
  complain(null);
  drawPicture();
  drawOverlay();
  drawLegend();
  $("legend").hidden = $("downloads").hidden = false;
  $("mean").textContent = `\u00b7 mean confidence ${percent(mean)}`;
  const stages = Object.entries(timings).map(([stage, ms]) => `${stage} ${ms.toFixed(0)}`);
  $("timings").textContent = `${backend} \u00b7 ${stages.join(" \u00b7 ")} \u00b7 answer ${tookMs.toFixed(0)} ms`;
  const found = classes.filter((one) => one.pixels).sort((a, b) => b.pixels - a.pixels);
  const said = found.slice(0, 3).map((one) => `${one.name} ${percent(one.share)}`).join(", ");
  const what = `${found.length} of ${classes.length} classes seen: ${said}`;
  $("status").textContent = `${size.width} \u00d7 ${size.height} pixels, ${what}`;
  $("picture").setAttribute("aria-label", `The picture with its labels; ${what}`);
}

function drawLegend() {
  const { classes, colours } = state.result;
  const kept = document.activeElement?.closest?.("tbody") ? document.activeElement.dataset.name : null;
  const rows = [...classes].sort((a, b) => b.pixels - a.pixels || a.label - b.label).map((one) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    const button = document.createElement("button");
    const swatch = document.createElement("i");
    head.scope = "row";
    button.type = "button";
    button.dataset.name = one.name;
    button.title = "Show it alone";
    button.setAttribute("aria-pressed", String(state.marked === one.name));
    swatch.style.backgroundColor = colours[one.label];
    button.append(swatch, one.name);
    button.addEventListener("click", () => mark(state.marked === one.name ? null : one.name));
    head.append(button);
    row.append(head, cell(percent(one.share)), cell(one.pixels ? percent(one.mean_confidence) : "\u2013"));
    row.classList.toggle("absent", !one.pixels);
    return row;
  });
  const body = $("legend").tBodies[0];
  const top = body.scrollTop;
  body.replaceChildren(...rows);
  body.scrollTop = top;
  if (kept !== null) [...body.querySelectorAll("button")].find((one) => one.dataset.name === kept)?.focus();
}

function cell(text) {
  const found = document.createElement("td");
  found.textContent = text;
  return found;
}

function mark(name) {
  state.marked = name;
  drawOverlay();
  drawLegend();
}

/* Camera */

async function toggleCamera() {
  if (state.camera) {
    stopCamera();
    return;
  }
  try {
    if (!navigator.mediaDevices) throw new Error("Browsers lend the camera to localhost and https alone.");
    state.camera = await navigator.mediaDevices.getUserMedia({ video: { width: CAMERA_PX, facingMode: "environment" } });
  } catch (error) {
    complain(new Error(`The camera cannot be used (${error.message}) Allow it, or choose a picture.`));
    return;
  }
  $("camera").setAttribute("aria-pressed", "true");
  $("camera").textContent = "Stop the camera";
  $("status").setAttribute("aria-live", "off"); // it would speak without end
  $("kinds").hidden = true;
  const video = $("video");
  video.srcObject = state.camera;
  await video.play();
  const { camera } = state;
  while (state.camera === camera) {
    const scale = Math.min(1, CAMERA_PX / Math.max(video.videoWidth, video.videoHeight));
    const blob = await jpeg(video, video.videoWidth, video.videoHeight, scale);
    const picture = { base64: await base64(blob), bitmap: await createImageBitmap(blob) };
    if (state.camera !== camera) break;
    state.picture = picture;
    if (!state.result) drawPicture();
    await ask();
    await (document.hidden ? pause(AGAIN_MS) : new Promise(requestAnimationFrame));
    if (!$("alert").hidden) await pause(AGAIN_MS);
  }
}

function stopCamera() {
  state.camera?.getTracks().forEach((track) => track.stop());
  state.camera = null;
  $("video").srcObject = null;
  $("camera").setAttribute("aria-pressed", "false");
  $("camera").textContent = "Use the camera";
  $("status").setAttribute("aria-live", "polite");
}

/* Downloads */

async function download(button) {
  const options = { file: button.dataset.file, opacity: Number($("opacity").value) };
  const body = JSON.stringify({ ...question(options), image: state.shown.base64 });
  try {
    const response = await patiently("/api/segment", { method: "POST", body });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = button.dataset.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (error) {
    complain(error);
  }
}

/* What people do */

$("names").addEventListener("input", () => {
  $("vocabulary").value = "";
  later();
});
$("vocabulary").addEventListener("change", async () => {
  const name = $("vocabulary").value;
  try {
    if (name) setNames((await (await request(`/api/vocabularies/${encodeURIComponent(name)}`)).json()).classes);
  } catch (error) {
    complain(error);
  }
  await ask();
});
for (const [id, key] of [["wholes", "classes"], ["parts", "parts"]]) {
  $(id).addEventListener("click", () => {
    $("vocabulary").value = "";
    setNames(state.sample[key]);
    ask();
  });
}
$("opacity").addEventListener("input", () => ($("overlay").style.opacity = $("opacity").value));
$("camera").addEventListener("click", toggleCamera);
$("file").addEventListener("change", () => {
  if ($("file").files.length) showBlob($("file").files[0]);
  $("file").value = ""; // so that the same file may be chosen again
});
for (const button of $("downloads").children) button.addEventListener("click", () => download(button));
$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  state.token = $("token-text").value.trim();
  connect();
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("stage").classList.add("over");
});
document.addEventListener("dragleave", () => $("stage").classList.remove("over"));
for (const [kind, key] of [["drop", "dataTransfer"], ["paste", "clipboardData"]]) {
  document.addEventListener(kind, (event) => {
    $("stage").classList.remove("over");
    const file = event[key]?.files[0];
    if (kind === "drop") event.preventDefault();
    if (file) showBlob(file);
    else if (kind === "drop") complain(new Error("That was no file; drop a picture's file."));
  });
}
$("stage").addEventListener("pointermove", (event) => {
  const box = $("overlay").getBoundingClientRect();
  const { size, labels, classes } = state.result ?? {};
  const x = size && Math.floor(((event.clientX - box.left) / box.width) * size.width);
  const y = size && Math.floor(((event.clientY - box.top) / box.height) * size.height);
  const inside = size && x >= 0 && y >= 0 && x < size.width && y < size.height;
  $("pointed").hidden = !inside;
  if (inside) $("pointed").textContent = classes[labels[y * size.width + x]].name;
});
$("stage").addEventListener("pointerleave", () => ($("pointed").hidden = true));

connect();
