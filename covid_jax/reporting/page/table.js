// The table of slices, the picks above it, figures that grow, light and dark.

const table = byId("table");
const sorting = { column: null, descending: false };

const text = (label, of) => ({ label, of, text: true });
const columns = [
  text("Slice", (item) => item.id),
  ...(data.slices.some((item) => item.patient !== null) ? [text("Patient", (item) => item.patient)] : []),
  ...(new Set(data.slices.map((item) => item.source)).size > 1 ? [text("Source", (item) => item.source)] : []),
  ...data.columns.map((column) => ({ ...column, of: (item) => item.values[column.key] })),
  ...(data.slices.some((item) => item.note) ? [text("Note", (item) => item.note)] : []),
];

function head(column) {
  const cell = document.createElement("th");
  cell.scope = "col";
  if (!column.text) cell.className = "number";
  const button = element("button", column.label);
  button.type = "button";
  button.addEventListener("click", () => {
    sorting.descending = sorting.column === column && !sorting.descending;
    sorting.column = column;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", sorting.descending ? "descending" : "ascending");
    arrange();
  });
  cell.append(button);
  return cell;
}

function row(item, index) {
  const made = document.createElement("tr");
  made.tabIndex = -1;
  made.dataset.index = index;
  made.setAttribute("aria-label", `Open slice ${item.id}`);
  for (const column of columns) {
    const value = column.of(item);
    const cell = element("td", column.text ? (value ?? "unknown") : writtenIn(column, value));
    cell.className = column.text ? "name" : "number";
    if (column.text) cell.title = value ?? "";
    if (column.key === "dice" && value !== null) {
      const bar = document.createElement("i");
      bar.style.setProperty("--share", value);
      cell.classList.add("bar");
      cell.append(bar);
    }
    made.append(cell);
  }
  return made;
}

const rows = data.slices.map(row);
const names = new Intl.Collator("en", { numeric: true });

// Undefined values come last, whichever way the rest is sorted.
function compare(a, b) {
  const [left, right] = [a, b].map((i) => sorting.column.of(data.slices[i]));
  if (left === null || right === null) return (left === null) - (right === null);
  const order = sorting.column.text ? names.compare(left, right) : left - right;
  return sorting.descending ? -order : order;
}

function passes(item) {
  const wanted = byId("text").value.trim().toLowerCase();
  const texts = [item.id, item.patient ?? "unknown", item.source, item.note];
  if (!texts.some((text) => text.toLowerCase().includes(wanted))) return false;
  const [low, high] = ["low", "high"].map((id) => byId(id).valueAsNumber);
  const dice = item.values.dice ?? null;
  if (dice === null) return Number.isNaN(low) && Number.isNaN(high);
  return !(dice < low) && !(dice > high);
}

let order = [];
let reached = null;

// Of all rows the tab key stops at one only: the first, or where one was last.
function reachable(row) {
  if (reached) reached.tabIndex = -1;
  row.tabIndex = 0;
  reached = row;
}

function arrange() {
  order = data.slices.flatMap((item, index) => (passes(item) ? [index] : []));
  if (sorting.column) order.sort(compare);
  table.tBodies[0].replaceChildren(...order.map((index) => rows[index]));
  if (order.length) reachable(rows[order[0]]);
  byId("count").textContent = `${order.length} of ${data.slices.length} slices`;
}

function openRow(target) {
  const found = target.closest("tbody tr");
  if (found) openViewer(order, order.indexOf(Number(found.dataset.index)));
}

table.addEventListener("click", (event) => openRow(event.target));
table.tBodies[0].addEventListener("focusin", (event) => reachable(event.target.closest("tr")));
table.addEventListener("keydown", (event) => {
  const here = event.target.closest("tbody tr");
  if (!here) return;
  const next = { ArrowDown: here.nextElementSibling, ArrowUp: here.previousElementSibling };
  if (event.key === "Enter" || event.key === " ") openRow(here);
  else if (event.key in next) next[event.key]?.focus();
  else return;
  event.preventDefault();
});
// Back in the table, one stands on the slice that was seen last.
viewer.addEventListener("close", () => rows[shown.order[shown.place]]?.focus());

table.tHead.rows[0].append(...columns.map(head));

// Columns are shown by groups, the first one to begin with: all of them are wider than a screen.
const groups = [...new Set(data.columns.map((column) => column.group))];
const switches = groups.map((group, place) => {
  const made = document.createElement("input");
  made.type = "checkbox";
  made.defaultChecked = place === 0;
  const label = document.createElement("label");
  label.append(made, group);
  byId("groups").append(label);
  return made;
});
byId("groups").hidden = groups.length < 2;

function showGroups() {
  const hidden = columns.map(({ group }) => Boolean(group) && !switches[groups.indexOf(group)].checked);
  for (const { cells } of [table.tHead.rows[0], ...rows]) {
    hidden.forEach((isHidden, place) => (cells[place].hidden = isHidden));
  }
}

showGroups();
byId("groups").addEventListener("change", showGroups);
byId("filters").addEventListener("input", arrange);
byId("filters").addEventListener("reset", () => setTimeout(() => [arrange(), showGroups()]));
byId("filters").addEventListener("submit", (event) => event.preventDefault());
arrange();

// Slices worth a first look: found, missed and false pixels at the threshold of the evaluation.
async function drawPick(canvas, index) {
  const slice = await loadSlice(index);
  const mask = maskAt(slice, Math.floor(255 * data.threshold));
  canvas.width = slice.width;
  canvas.height = slice.height;
  const context = canvas.getContext("2d");
  context.drawImage(slice.picture, 0, 0);
  context.globalAlpha = 0.6;
  context.drawImage(hasTruth ? agreementLayer(slice, mask) : probabilityLayer(slice), 0, 0);
}

for (const { label, id } of data.picks) {
  const index = data.slices.findIndex((item) => item.id === id);
  const item = data.slices[index];
  const button = document.createElement("button");
  button.type = "button";
  const canvas = document.createElement("canvas");
  const dice = item.values.dice ?? null;
  const score = hasTruth ? `, Dice ${dice === null ? "–" : dice.toFixed(3)}` : "";
  button.append(canvas, element("span", `${label}: ${item.id}${score}`));
  button.addEventListener("click", () => {
    const places = order.includes(index) ? order : data.slices.map((_, place) => place);
    openViewer(places, places.indexOf(index));
  });
  byId("picks").append(button);
  drawPick(canvas, index).catch(() => canvas.remove());
}
if (data.picks.length && hasTruth) {
  const key = document.querySelector("#viewer .key").cloneNode(true);
  for (const number of key.querySelectorAll("data")) number.remove();
  byId("picks").append(key);
}

for (const button of document.querySelectorAll("figure button")) {
  button.addEventListener("click", () => button.parentElement.classList.toggle("wide"));
}

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const theme = byId("theme");

function setTheme(isDark) {
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  theme.setAttribute("aria-pressed", isDark);
}
setTheme(dark.matches);
dark.addEventListener("change", (event) => setTheme(event.matches));
theme.addEventListener("click", () => setTheme(theme.getAttribute("aria-pressed") !== "true"));
