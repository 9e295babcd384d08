// The dialog that shows one slice.

const byId = (id) => document.getElementById(id);

// A column's values have the same digits: a Dice of 1 is written 1.000.
for (const column of data.columns) {
  const { digits } = column;
  column.format = new Intl.NumberFormat("en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

function writtenIn(column, value) {
  return value === null ? "–" : column.format.format(value);
}

const hasTruth = !data.above.length;
const viewer = byId("viewer");
const canvas = byId("canvas");
const shown = {
  order: [], // places in data.slices, as the table has them
  place: 0, // in order
  slice: null,
  mask: null,
  paths: {},
  layer: null,
  zoom: 1,
  centre: [0.5, 0.5], // shares of height and width
};

function threshold() {
  return Number(byId("threshold").value);
}

async function show(place) {
  if (place < 0 || place >= shown.order.length) return;
  shown.place = place;
  const index = shown.order[place];
  let slice = null;
  let problem = "";
  try {
    slice = await loadSlice(index);
  } catch (error) {
    problem = `This slice cannot be shown (${error.message}).`;
  }
  if (shown.order[shown.place] !== index) return; // another was asked for meanwhile
  shown.slice = slice;
  describe(data.slices[index], problem);
  if (!slice) return clear();
  shown.paths.truth = outlineOf(slice.truth, slice.height, slice.width);
  applyThreshold();
}

// No number or picture of the slice before may stand under another's name.
function clear() {
  for (const id of ["dice", "tp", "fp", "fn"]) setNumber(id, null, "–");
  canvas.width = canvas.height = 1;
}

function describe(item, problem) {
  byId("name").textContent = item.id;
  byId("place").textContent = `${shown.place + 1} of ${shown.order.length}`;
  byId("previous").disabled = shown.place === 0;
  byId("next").disabled = shown.place === shown.order.length - 1;
  byId("note").textContent = problem || item.note;
  const rows = [
    ...data.columns.map((column) => [column.label, writtenIn(column, item.values[column.key])]),
    ["Pixels", item.grid.join(" × ")],
    ["Shown as", item.size.join(" × ")],
    ["Patient", item.patient ?? "unknown"],
    ["Source", item.source],
  ];
  byId("values").replaceChildren(
    ...rows.flatMap(([name, value]) => [element("dt", name), element("dd", value)]),
  );
  const own = item.values.dice ?? null;
  setNumber("own", own, own === null ? "–" : own.toFixed(3));
  byId("ownthreshold").textContent = hasTruth ? `computed before, ${data.decision}` : "at the slider's threshold";
  canvas.setAttribute("aria-label", `Slice ${item.id} with overlay`);
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

// Of a scan without truth: millilitres, or pixels where a voxel's size is unknown.
function setVolume(id, pixels) {
  const ml = data.voxel === null ? null : pixels * data.voxel;
  setNumber(id, ml ?? pixels, ml === null ? `${Math.round(pixels).toLocaleString("en")} px` : `${ml.toFixed(ml < 10 ? 2 : ml < 1000 ? 1 : 0)} ml`);
}

function setNumber(id, value, text) {
  byId(id).value = value ?? "";
  byId(id).textContent = text;
}

// Everything that hangs on the threshold.
function applyThreshold() {
  const { slice } = shown;
  const level = threshold();
  byId("thresholdvalue").textContent = `${(level / 255).toFixed(2)} (above ${level} of 255)`;
  if (!slice) return;
  shown.mask = maskAt(slice, level);
  shown.paths.mask = outlineOf(shown.mask, slice.height, slice.width);
  const counts = countPixels(shown.mask, slice.truth);
  for (const name of ["tp", "fp", "fn"]) setNumber(name, counts[name], `${counts[name].toLocaleString("en")} px`);
  if (hasTruth) setNumber("dice", diceOf(counts), diceOf(counts).toFixed(3));
  else {
    const [rows, columns] = data.slices[shown.order[shown.place]].grid;
    setVolume("dice", (counts.fp * rows * columns) / (slice.height * slice.width));
    setVolume("own", data.above[level]);
  }
  colour();
}

// Everything that hangs on the kind of overlay.
function colour() {
  const kind = document.querySelector("input[name=overlay]:checked").value;
  byId("ramp").hidden = kind !== "probability";
  if (!shown.slice) return;
  shown.layer = null;
  if (kind === "probability") shown.layer = probabilityLayer(shown.slice);
  if (kind === "agreement") shown.layer = agreementLayer(shown.slice, shown.mask);
  draw();
}

function draw() {
  byId("opacityvalue").textContent = `${byId("opacity").value} %`;
  if (!shown.slice || !viewer.open) return;
  const dots = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * dots);
  canvas.height = Math.round(canvas.clientHeight * dots);
  const { scale, left, top } = geometry();
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, left, top);
  context.imageSmoothingQuality = "high";
  context.drawImage(shown.slice.picture, 0, 0);
  if (shown.layer) {
    context.imageSmoothingEnabled = false;
    context.globalAlpha = byId("opacity").value / 100;
    context.drawImage(shown.layer, 0, 0);
    context.globalAlpha = 1;
  }
  const style = getComputedStyle(document.documentElement);
  for (const name of ["mask", "truth"]) {
    if (!byId(name).checked) continue;
    // A wide dark line below: a bright one alone vanishes on bone.
    stroke(context, shown.paths[name], (4 * dots) / scale, "rgb(0 0 0 / 80%)");
    stroke(context, shown.paths[name], (1.6 * dots) / scale, style.getPropertyValue(`--${name}`));
  }
}

function stroke(context, path, width, colour) {
  context.lineCap = "round";
  context.lineWidth = width;
  context.strokeStyle = colour;
  context.stroke(path);
}

// Opens the slice at this place of an order of places in data.slices.
async function openViewer(order, place) {
  shown.order = order;
  shown.slice = null;
  viewer.showModal();
  canvas.focus();
  fit();
  await show(place);
}

new ResizeObserver(draw).observe(canvas);

byId("previous").addEventListener("click", () => show(shown.place - 1));
byId("next").addEventListener("click", () => show(shown.place + 1));
byId("close").addEventListener("click", () => viewer.close());
byId("threshold").addEventListener("input", applyThreshold);
byId("opacity").addEventListener("input", draw);
for (const name of ["truth", "mask"]) byId(name).addEventListener("change", draw);
for (const choice of document.getElementsByName("overlay")) choice.addEventListener("change", colour);
// Whoever drags a control with the mouse goes on with the arrows to other slices.
viewer.addEventListener("pointerup", (event) => {
  if (event.target.closest("label")) setTimeout(() => canvas.focus()); // after the click's own focus
});

viewer.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=range], input[type=radio]")) return; // arrows are theirs
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = event.shiftKey ? 40 : 0;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const keys = {
    ArrowLeft: () => (step ? move(step, 0) : show(shown.place - 1)),
    ArrowRight: () => (step ? move(-step, 0) : show(shown.place + 1)),
    ArrowUp: () => (step ? move(0, step) : show(shown.place - 1)),
    ArrowDown: () => (step ? move(0, -step) : show(shown.place + 1)),
    "+": () => zoomAt(1.5),
    "=": () => zoomAt(1.5),
    "-": () => zoomAt(1 / 1.5),
    0: fit,
    t: () => byId("truth").click(),
  };
  if (!(key in keys)) return;
  event.preventDefault();
  keys[key]();
});

byId("threshold").value = Math.floor(255 * data.threshold);
const ramp = byId("ramp").querySelector("canvas");
ramp.getContext("2d").drawImage(paint(1, 256, (i) => [...RAMP_COLOURS[i], 255]), 0, 0);
applyThreshold();
draw();
colour();
