// How large the slice is drawn and which part of it is seen: wheel, fingers, buttons.

const LARGEST = 24; // times the size that fits

// Canvas pixels a slice pixel, and where the slice's corner lies.
function geometry() {
  const { slice, zoom, centre } = shown;
  const scale = zoom * Math.min(canvas.width / slice.width, canvas.height / slice.height);
  return {
    scale,
    left: canvas.width / 2 - centre[1] * slice.width * scale,
    top: canvas.height / 2 - centre[0] * slice.height * scale,
  };
}

// Zooms so that what lies under this point of the canvas (CSS pixels) stays there.
function zoomAt(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  if (!shown.slice) return;
  const { slice } = shown;
  const dots = canvas.width / canvas.clientWidth;
  const before = geometry();
  const under = [(y * dots - before.top) / before.scale, (x * dots - before.left) / before.scale];
  shown.zoom = Math.min(LARGEST, Math.max(1, shown.zoom * factor));
  const { scale } = geometry();
  shown.centre = [
    (under[0] + (canvas.height / 2 - y * dots) / scale) / slice.height,
    (under[1] + (canvas.width / 2 - x * dots) / scale) / slice.width,
  ];
  move(0, 0);
}

// Moves the slice by CSS pixels; some of it always stays in the middle.
function move(x, y) {
  if (!shown.slice) return;
  const { scale } = geometry();
  const dots = canvas.width / canvas.clientWidth;
  const margin = 0.5 / shown.zoom;
  const kept = (share) => Math.min(1 - margin, Math.max(margin, share));
  shown.centre = [
    kept(shown.centre[0] - (y * dots) / scale / shown.slice.height),
    kept(shown.centre[1] - (x * dots) / scale / shown.slice.width),
  ];
  draw();
}

function fit() {
  shown.zoom = 1;
  shown.centre = [0.5, 0.5];
  draw();
}

const pointers = new Map(); // fingers on the canvas: one moves, two zoom

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
});
canvas.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const now = [event.offsetX, event.offsetY];
  pointers.set(event.pointerId, now);
  if (pointers.size === 1) move(now[0] - before[0], now[1] - before[1]);
  if (pointers.size !== 2) return;
  const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
  const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
  zoomAt(apart(now) / Math.max(apart(before), 1), other[0], other[1]);
});
for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, (event) => pointers.delete(event.pointerId));
}
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomAt(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener("dblclick", fit);

byId("in").addEventListener("click", () => zoomAt(1.5));
byId("out").addEventListener("click", () => zoomAt(1 / 1.5));
byId("fit").addEventListener("click", fit);
