"use strict";
// Shows the volumes of this page with NiiVue, and draws the outlines of the label maps and the
// crosshair over its slices. A map holds the depth of nested regions: 1 whole tumour, 2 core too,
// 3 enhancing too.

const facts = JSON.parse(document.getElementById("facts").textContent);
const lines = document.getElementById("lines");
const SLICES = {axial: 0, coronal: 1, sagittal: 2, render: 4};
// Of an axial, a coronal and a sagittal slice: the axes across and up, and the one it is cut along.
const AXES = [[0, 1, 2], [0, 2, 1], [1, 2, 0]];
const PENS = {truth: {width: 1.6, dash: []}, prediction: {width: 2.4, dash: [5, 4]}};
const ENDS = ["left", "right", "back", "front", "down", "up"];
// Where slices and the rendering lie on a wide and on a narrow screen: left, top, width, height.
const WIDE = {axial: [0, 0, 0.45, 1], coronal: [0.45, 0, 0.25, 0.5], sagittal: [0.7, 0, 0.3, 0.5],
  render: [0.45, 0.5, 0.55, 0.5]};
const NARROW = {coronal: [0, 0, 0.5, 0.5], sagittal: [0.5, 0, 0.5, 0.5],
  axial: [0, 0.5, 0.5, 0.5], render: [0.5, 0.5, 0.5, 0.5]};
const narrow = matchMedia("(max-width: 40rem)");
// Of each region in 3-D, a voxel's opacity: the outer ones let the inner ones through.
const OPACITY = [0.05, 0.12, 1];
const CROSSHAIR = {colour: "rgb(150, 150, 150)", gap: 14};
const UNCUT = 2;  // a clip plane this far out cuts nothing

const nv = new niivue.Niivue({
  logLevel: "silent",
  backColor: [0, 0, 0, 1],
  crosshairWidth: 0,  // drawn below: NiiVue's own vanishes on small tiles
  fontColor: [0.75, 0.75, 0.75, 1],
  clipPlaneColor: [0, 0, 0, 0],
  isRadiologicalConvention: true,
  isForceMouseClickToVoxelCenters: true,
  dragMode: niivue.DRAG_MODE.windowing,
  dragAndDropEnabled: false,
  // Keys would change what the controls of the page show.
  viewModeHotKey: "",
  clipPlaneHotKey: "",
  cycleClipPlaneHotKey: "",
});
const scans = {};
const solids = {none: []};  // of each map its regions, a volume each
const cells = {};  // the voxels of each map, axes right, front and head
const outlines = new Map();  // those of each slice, once it was shown

function chosen(name) {
  return [...document.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value);
}

function volume(name, look) {
  const base64 = document.querySelector(`[data-volume="${name}"]`).textContent;
  return niivue.NVImage.loadFromBase64({base64, name: `${name}.nii.gz`, ...look});
}

// A region is what is deeper in its map than the regions around it.
function region(name, depth) {
  return volume(name, {colormap: facts.regions[depth], cal_min: depth + 0.5, cal_max: depth + 0.6,
    opacity: OPACITY[depth]});
}

// Lay the chosen scan under the regions that the 3-D rendering shows.
function showVolumes() {
  const scan = scans[chosen("modality")[0]];
  nv.volumes = [scan, ...solids[chosen("solid")[0] || "none"]];
  nv.setVolume(scan, 0);
}

function showView() {
  const view = chosen("view")[0];
  nv.clearCustomLayout();
  if (view !== "all") {
    nv.setSliceType(SLICES[view]);
    return;
  }
  const places = Object.entries(narrow.matches ? NARROW : WIDE);
  nv.setSliceType(nv.sliceTypeMultiplanar);
  nv.setCustomLayout(places.map(([type, position]) => ({sliceType: SLICES[type], position})));
}

function size() {
  return nv.volumes[0].dimsRAS.slice(1, 4);
}

function voxelAt(fractions) {
  return size().map((length, axis) =>
    Math.min(length - 1, Math.max(0, Math.floor(fractions[axis] * length))));
}

// The closed lines around what is deeper than `depth` in one slice, as points (across, up) in
// voxels: the middles of the voxel edges between inside and outside, in order.
function trace(name, type, position, depth) {
  const [u, v, w] = AXES[type];
  const lengths = size();
  const steps = [1, lengths[0], lengths[0] * lengths[1]];
  const [wide, high] = [lengths[u], lengths[v]];
  const inside = (x, y) => x >= 0 && y >= 0 && x < wide && y < high
    && cells[name][x * steps[u] + y * steps[v] + position * steps[w]] > depth;
  const ahead = new Map();  // from each corner to the next ones, with the inside on one side
  const edge = (x, y, toX, toY) => {
    const from = y * (wide + 1) + x;
    if (!ahead.has(from)) ahead.set(from, []);
    ahead.get(from).push(toY * (wide + 1) + toX);
  };
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      if (!inside(x, y)) continue;
      if (!inside(x, y - 1)) edge(x, y, x + 1, y);
      if (!inside(x + 1, y)) edge(x + 1, y, x + 1, y + 1);
      if (!inside(x, y + 1)) edge(x + 1, y + 1, x, y + 1);
      if (!inside(x - 1, y)) edge(x, y + 1, x, y);
    }
  }
  const corner = (at) => [at % (wide + 1), Math.floor(at / (wide + 1))];
  const loops = [];
  while (ahead.size) {
    const first = ahead.keys().next().value;
    const points = [];
    let at = first;
    do {
      const onward = ahead.get(at);
      const next = onward.pop();
      if (!onward.length) ahead.delete(at);
      const [[x, y], [toX, toY]] = [corner(at), corner(next)];
      points.push([(x + toX) / 2, (y + toY) / 2]);
      at = next;
    } while (at !== first);
    loops.push(points);
  }
  return loops;
}

function outlinesOf(name, type, position) {
  const key = `${name} ${type} ${position}`;
  if (!outlines.has(key)) {
    outlines.set(key, facts.regions.map((_, depth) => trace(name, type, position, depth)));
  }
  return outlines.get(key);
}

// How a tile of NiiVue's canvas shows voxels: pixel = offset + scale * voxel, across and up.
function tileScale(tile, index) {
  const [left, top, width, height] = tile.leftTopWidthHeight;
  const ends = [0.25, 0.75].map((part) => {
    const [x, y] = [left + part * width, top + part * height];
    return {at: [x, y], fractions: nv.screenXY2TextureFrac(x, y, index, false)};
  });
  return [0, 1].map((side) => {
    const axis = AXES[tile.axCorSag][side];
    const [from, to] = ends.map((end) => end.fractions[axis] * size()[axis]);
    const scale = (ends[1].at[side] - ends[0].at[side]) / (to - from);
    return {scale, offset: ends[0].at[side] - from * scale};
  });
}

function drawCrosshair(pen, tile, x, y, pixels) {
  const [left, top, width, height] = tile.leftTopWidthHeight;
  const gap = CROSSHAIR.gap * pixels;
  pen.lineWidth = pixels;
  pen.strokeStyle = CROSSHAIR.colour;
  pen.beginPath();
  for (const [fromX, fromY, toX, toY] of [
    [left, y, x - gap, y], [x + gap, y, left + width, y],
    [x, top, x, y - gap], [x, y + gap, x, top + height]]) {
    pen.moveTo(fromX, fromY);
    pen.lineTo(toX, toY);
  }
  pen.stroke();
}

function drawMap(pen, name, tile, voxel, across, up, pixels) {
  pen.lineWidth = PENS[name].width * pixels;
  pen.setLineDash(PENS[name].dash.map((length) => length * pixels));
  const type = tile.axCorSag;
  outlinesOf(name, type, voxel[AXES[type][2]]).forEach((loops, depth) => {
    pen.strokeStyle = `rgb(${facts.colours[depth]})`;
    pen.beginPath();
    for (const loop of loops) {
      loop.forEach(([x, y], step) => pen[step ? "lineTo" : "moveTo"](
        across.offset + across.scale * x, up.offset + up.scale * y));
      pen.closePath();
    }
    pen.stroke();
  });
}

function drawTile(pen, tile, index) {
  const voxel = voxelAt(nv.scene.crosshairPos);
  const [across, up] = tileScale(tile, index);
  const [u, v] = AXES[tile.axCorSag];
  const pixels = nv.uiData.dpr || 1;
  pen.save();
  pen.beginPath();
  pen.rect(...tile.leftTopWidthHeight);
  pen.clip();
  drawCrosshair(pen, tile, across.offset + across.scale * (voxel[u] + 0.5),
    up.offset + up.scale * (voxel[v] + 0.5), pixels);
  for (const name of chosen("outline")) drawMap(pen, name, tile, voxel, across, up, pixels);
  pen.restore();
}

function drawLines() {
  lines.width = nv.canvas.width;
  lines.height = nv.canvas.height;
  if (!nv.volumes.length) return;
  const pen = lines.getContext("2d");
  pen.lineJoin = "round";
  nv.screenSlices.forEach((tile, index) => {
    if (AXES[tile.axCorSag]) drawTile(pen, tile, index);
  });
}

function tellPlace({mm, frac}) {
  const sides = [0, 1, 2].map((axis) =>
    `${Math.abs(mm[axis]).toFixed(1)} mm ${ENDS[2 * axis + (mm[axis] < 0 ? 0 : 1)]}`);
  const [x, y, z] = voxelAt(frac);
  const [wide, high] = size();
  const regions = facts.maps.map((name) => {
    const depth = cells[name][x + y * wide + z * wide * high];
    return `${name}: ${depth ? facts.regions[depth - 1] : "no tumour"}`;
  });
  document.getElementById("where").textContent = [sides.join(", "), ...regions].join(" · ");
}

function cut() {
  const depth = Number(document.getElementById("cut").value);
  // From the head downwards: the plane's normal points up.
  nv.setClipPlane([depth ? 0.5 - depth : UNCUT, 0, 90]);
}

function listen() {
  const on = (name, react) => document.querySelectorAll(`input[name="${name}"]`)
    .forEach((box) => box.addEventListener("change", react));
  on("modality", showVolumes);
  on("solid", showVolumes);
  on("outline", () => nv.drawScene());
  on("view", showView);
  narrow.addEventListener("change", showView);
  document.getElementById("cut").addEventListener("input", cut);
}

async function start() {
  await nv.attachToCanvas(document.getElementById("view"), false);
  facts.regions.forEach((name, depth) => {
    const [red, green, blue] = facts.colours[depth].map((part) => [part, part]);
    nv.addColormap(name, {R: red, G: green, B: blue, A: [0, 255], I: [0, 255]});
  });
  for (const name of facts.modalities) {
    scans[name] = await volume(name, {colormap: "gray", cal_min: 0, cal_max: 255});
  }
  for (const name of facts.maps) {
    solids[name] = await Promise.all(facts.regions.map((_, depth) => region(name, depth)));
    cells[name] = solids[name][0].img2RAS();
  }
  nv.overlayAlphaShader = 0;  // maps are solid in 3-D alone: on slices they are outlines
  const draw = nv.drawScene;
  nv.drawScene = () => {
    const said = draw.call(nv);
    drawLines();
    return said;
  };
  nv.onLocationChange = tellPlace;
  showVolumes();
  showView();
  cut();
  nv.scene.crosshairPos = nv.mm2frac(facts.start);
  nv.setRenderAzimuthElevation(140, 20);
  nv.createOnLocationChange();
  listen();
}

start().then(
  () => { document.body.dataset.state = "drawn"; },
  (error) => {
    document.body.dataset.state = "failed";
    document.getElementById("failed").hidden = false;
    document.getElementById("why").textContent = error.message;
  },
);
