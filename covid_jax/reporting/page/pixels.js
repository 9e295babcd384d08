"use strict";
// Slices as the file holds them, to pixels; masks, counts and outlines from those.

const data = JSON.parse(document.getElementById("data").textContent);
const loaded = new Promise((done) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", done);
  else done();
});

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

async function inflate(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The slice at this place of data.slices: {picture, probability, truth, height, width}.
async function loadSlice(index) {
  await loaded; // pixels stand behind the scripts, so that the table need not wait for them
  const [height, width] = data.slices[index].size;
  const block = document.getElementById(`pixels-${index}`);
  if (!block) throw new Error("the file is incomplete: copy it again");
  const [picture, maps] = block.textContent.split(",");
  const plain = await inflate(bytes(maps));
  const pixels = height * width;
  const probability = plain.slice(0, pixels);
  // Differences are added up again, modulo 256 as they were taken.
  for (let i = 0; i < pixels; i++) if (i % width) probability[i] += probability[i - 1];
  for (let i = width; i < pixels; i++) probability[i] += probability[i - width];
  const bits = plain.subarray(pixels);
  const truth = new Uint8Array(pixels);
  for (let i = 0; i < pixels; i++) truth[i] = (bits[i >> 3] >> (7 - (i & 7))) & 1;
  const blob = new Blob([bytes(picture)], { type: "image/jpeg" });
  return { picture: await createImageBitmap(blob), probability, truth, height, width };
}

// Above the threshold, as in the library: at 255 nothing is.
function maskAt(slice, threshold) {
  return slice.probability.map((value) => (value > threshold ? 1 : 0));
}

function countPixels(mask, truth) {
  let [tp, fp, fn] = [0, 0, 0];
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] && truth[i]) tp++;
    else if (mask[i]) fp++;
    else if (truth[i]) fn++;
  }
  return { tp, fp, fn };
}

// 1 where both masks are empty: the slice is right.
function diceOf({ tp, fp, fn }) {
  return tp + fp + fn ? (2 * tp) / (2 * tp + fp + fn) : 1;
}

// The edges between the mask and its outside, in pixels; neighbours on one line are one stroke.
function outlineOf(mask, height, width) {
  const path = new Path2D();
  const at = (row, column) =>
    row >= 0 && row < height && column >= 0 && column < width && mask[row * width + column];
  const strokes = (lines, length, isEdge, point) => {
    for (let line = 0; line <= lines; line++) {
      let start = -1;
      for (let i = 0; i <= length; i++) {
        const edge = i < length && isEdge(line, i);
        if (edge && start < 0) start = i;
        if (!edge && start >= 0) {
          path.moveTo(...point(line, start));
          path.lineTo(...point(line, i));
          start = -1;
        }
      }
    }
  };
  strokes(height, width, (r, c) => at(r, c) != at(r - 1, c), (r, c) => [c, r]);
  strokes(width, height, (c, r) => at(r, c) != at(r, c - 1), (c, r) => [c, r]);
  return path;
}

// Dark violet through rose to light yellow: lighter is more probable, for every eye.
const RAMP = [[64, 20, 120], [150, 30, 150], [215, 70, 110], [245, 150, 70], [255, 228, 60]];

function rampColour(value) {
  const place = (value / 255) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[low].map((part, i) => part + (place - low) * (RAMP[low + 1][i] - part));
}
const RAMP_COLOURS = Array.from({ length: 256 }, (_, value) => rampColour(value));

// A canvas of the slice's size; colour(i) gives red, green, blue, alpha of a pixel, or nothing.
function paint(height, width, colour) {
  const canvas = document.createElement("canvas");
  canvas.height = height;
  canvas.width = width;
  const image = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    const found = colour(i);
    if (found) image.data.set(found, 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function probabilityLayer({ probability, height, width }) {
  return paint(height, width, (i) => {
    const value = probability[i];
    return value && [...RAMP_COLOURS[value], Math.min(255, 3 * value)];
  });
}

function agreementLayer({ truth, height, width }, mask) {
  const { hit, false_alarm, miss } = data.colours;
  return paint(height, width, (i) => {
    if (!mask[i] && !truth[i]) return null;
    return [...(!truth[i] ? false_alarm : mask[i] ? hit : miss), 255];
  });
}
