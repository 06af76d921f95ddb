// The picture of one slice: prompts by mouse, touch or keys, slices by wheel, keys or slider.
const stage = element.querySelector('.pv-stage');
const image = element.querySelector('.pv-image');
const canvas = element.querySelector('.pv-canvas');
const frame = element.querySelector('.pv-frame');
const range = element.querySelector('.pv-range');
const counter = element.querySelector('.pv-count');
const hint = element.querySelector('.pv-hint');
const TOOLS = ['plus', 'minus', 'box', 'brush', 'eraser'];
let leaving = false, missed = 0, beating = 0;
let state = {}, corner = null, drag = null, cross = null, keyed = false, wanted = null, waiting = 0;

function tool() {
  const chosen = document.querySelector('#ps-tool input:checked');
  return chosen ? chosen.value : 'plus';
}

function fit() {
  if (!state.width) return;
  const room = frame.getBoundingClientRect();
  const scale = Math.min(room.width / state.width, room.height / state.height);
  const width = Math.floor(state.width * scale), height = Math.floor(state.height * scale);
  if (stage.style.width !== width + 'px' || stage.style.height !== height + 'px') {
    stage.style.width = width + 'px';
    stage.style.height = height + 'px';
  }
  const dense = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * dense);
  canvas.height = Math.round(height * dense);
  draw();
}

function show() {
  try { state = JSON.parse(props.value || '{}'); } catch (error) { state = {}; }
  if (state.ended) gone('gone');
  if (state.every && !beating) beating = setInterval(beat, state.every);
  const open = Boolean(state.src);
  element.querySelector('.pv-empty').hidden = open;
  element.querySelector('.pv-empty').textContent = state.empty || '';
  stage.hidden = !open;
  range.disabled = !open;
  waiting = 0;
  if (!open) { counter.textContent = ''; hint.textContent = ''; return; }
  image.src = state.src;
  for (const [n, name] of ['left', 'right', 'top', 'bottom'].entries())
    element.querySelector('.pv-' + name).textContent = state.letters[n];
  frame.setAttribute('aria-label', state.label);
  stage.dataset.index = state.index;
  stage.dataset.axis = state.axis;
  stage.dataset.version = state.version;
  range.max = state.count - 1;
  range.setAttribute('aria-label', state.slice);
  if (wanted === null || wanted === state.index) {
    wanted = null;
    range.value = state.index;
    counter.textContent = (state.index + 1) + ' / ' + state.count;
  } else {
    ask();
  }
  hint.textContent = state.hint;
  fit();
}

// The page asks now and then whether its visit is still held, and says so when it is not.
async function beat() {
  if (!element.isConnected) { clearInterval(beating); return; }
  const asked = state.visit;
  if (!asked) return;
  try {
    const answer = await fetch(new URL('promptseg/visits/' + asked, document.baseURI), { cache: 'no-store' });
    if (!answer.ok) throw new Error(answer.status);
    missed = 0;
    const { alive } = await answer.json();
    if (asked === state.visit) gone(alive && !state.ended ? null : 'gone');
  } catch (error) {
    if (++missed > 1) gone('lost');
  }
}

function gone(why) {
  let notice = document.querySelector('#ps-gone');
  for (const part of document.querySelectorAll('#ps-header, #ps-body')) part.inert = Boolean(why);
  if (!why) { if (notice) notice.remove(); return; }
  if (!notice) {
    notice = document.createElement('div');
    notice.id = 'ps-gone';
    notice.setAttribute('role', 'alertdialog');
    notice.innerHTML = '<div><strong></strong><p></p><button type="button"></button></div>';
    notice.querySelector('button').addEventListener('click', () => { leaving = true; location.reload(); });
    document.body.append(notice);
  }
  if (notice.dataset.why === why) return;
  notice.dataset.why = why;
  notice.querySelector('strong').textContent = state.texts[why];
  notice.querySelector('p').textContent = state.texts[why + '_why'];
  notice.querySelector('button').textContent = state.texts.reload;
  notice.querySelector('button').hidden = why === 'lost';
  if (why !== 'lost') notice.querySelector('button').focus();
}

function onLeave(event) {
  if (!element.isConnected) { window.removeEventListener('beforeunload', onLeave); return; }
  if (!state.unsaved || leaving) return;
  event.preventDefault();
  event.returnValue = '';
}

function go(index) {
  if (!state.src) return;
  wanted = Math.min(Math.max(index, 0), state.count - 1);
  range.value = wanted;
  counter.textContent = (wanted + 1) + ' / ' + state.count;
  ask();
}

// One request at a time; the slice asked for last is the one that is shown in the end.
function ask() {
  if (wanted === null || (waiting && Date.now() - waiting < 2000)) return;
  if (wanted === state.index) { wanted = null; return; }
  waiting = Date.now();
  trigger('look', { index: wanted });
}

function at(event) {
  const area = stage.getBoundingClientRect();
  return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height]
    .map((share) => Math.min(Math.max(share, 0), 1));
}

function send(prompt) {
  trigger('prompt', { index: state.index, axis: state.axis, ...prompt });
}

function draw() {
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const put = ([x, y]) => [x * canvas.width, y * canvas.height];
  pen.lineWidth = 2 * (window.devicePixelRatio || 1);
  pen.lineCap = pen.lineJoin = 'round';
  if (corner) {
    const [x0, y0] = put(corner), [x1, y1] = put(cross || corner);
    pen.strokeStyle = '#ffffff';
    pen.strokeRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
  }
  if (drag && drag.path) {
    pen.strokeStyle = drag.positive ? '#5adc6e' : '#f05050';
    pen.lineWidth *= 2.5;
    pen.globalAlpha = 0.8;
    pen.beginPath();
    drag.path.forEach((place, n) => n ? pen.lineTo(...put(place)) : pen.moveTo(...put(place)));
    pen.stroke();
    pen.globalAlpha = 1;
  }
  if (cross && keyed) {
    const [x, y] = put(cross);
    pen.strokeStyle = state.colour || '#ffffff';
    pen.beginPath();
    pen.moveTo(x, 0); pen.lineTo(x, canvas.height);
    pen.moveTo(0, y); pen.lineTo(canvas.width, y);
    pen.stroke();
  }
}

function endBox(last) {
  const first = corner;
  corner = drag = null;
  hint.textContent = state.hint;
  if (first[0] !== last[0] && first[1] !== last[1]) send({ kind: 'box', first, last });
  draw();
}

stage.addEventListener('contextmenu', (event) => event.preventDefault());
stage.addEventListener('dragstart', (event) => event.preventDefault());
stage.addEventListener('pointerdown', (event) => {
  if (!state.src || event.button === 1) return;
  frame.focus({ preventScroll: true });
  event.preventDefault();
  const place = at(event), name = tool(), right = event.button === 2;
  cross = place;
  keyed = false;
  if (name === 'box' && !right) {
    if (corner) { endBox(place); return; }
    corner = place;
    hint.textContent = state.second;
    drag = { from: [event.clientX, event.clientY], box: true };
  } else if (name === 'brush' || name === 'eraser') {
    drag = { path: [place], positive: name === 'brush' && !right };
  } else {
    send({ kind: 'point', at: place, positive: name !== 'minus' && !right });
    return;
  }
  stage.setPointerCapture(event.pointerId);
  draw();
});
stage.addEventListener('pointermove', (event) => {
  if (!corner && !drag) return;
  cross = at(event);
  if (drag && drag.path) drag.path.push(cross);
  draw();
});
stage.addEventListener('pointerup', (event) => {
  if (!drag) return;
  const done = drag;
  drag = null;
  if (done.path) {
    send({ kind: 'stroke', path: done.path, positive: done.positive });
  } else if (Math.hypot(event.clientX - done.from[0], event.clientY - done.from[1]) > 6) {
    endBox(at(event));
  }
  draw();
});
frame.addEventListener('wheel', (event) => {
  if (!state.src || !event.deltaY) return;
  event.preventDefault();
  go((wanted === null ? state.index : wanted) + Math.sign(event.deltaY));
}, { passive: false });
range.addEventListener('input', () => go(Number(range.value)));

function moveCross(event) {
  const step = (event.ctrlKey ? 0.002 : 0.01);
  const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step],
    ArrowDown: [0, step] }[event.key];
  const from = cross || [0.5, 0.5];
  cross = from.map((share, n) => Math.min(Math.max(share + by[n], 0), 1));
  keyed = true;
  draw();
}

function enter(event) {
  if (!cross) return;
  const place = [cross[0], cross[1]];
  if (tool() === 'box') {
    if (corner) { endBox(place); return; }
    corner = place;
    hint.textContent = state.second;
  } else {
    send({ kind: 'point', at: place, positive: tool() !== 'minus' && !event.shiftKey });
  }
}

function press(id) {
  const button = document.querySelector('#' + id);
  if (button && !button.disabled) button.click();
}

function onKey(event) {
  if (!element.isConnected) { document.removeEventListener('keydown', onKey); return; }
  const target = event.target;
  const inside = target === frame || frame.contains(target);
  if (!inside && target.closest &&
      target.closest('input, textarea, select, button, [contenteditable], [role=listbox], [role=tab]'))
    return;
  if (!state.src || frame.offsetParent === null) return;
  const step = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10 };
  const now = wanted === null ? state.index : wanted;
  if (event.shiftKey && event.key.startsWith('Arrow')) moveCross(event);
  else if (event.ctrlKey || event.metaKey) {
    if (event.key === 'z') press('ps-undo'); else if (event.key === 'y') press('ps-redo'); else return;
  } else if (event.altKey) return;
  else if (event.key in step) go(now + step[event.key]);
  else if (event.key === 'Home') go(0);
  else if (event.key === 'End') go(state.count - 1);
  else if (event.key === 'Enter' && inside) enter(event);
  else if (event.key === 'Escape') { corner = drag = cross = null; keyed = false; hint.textContent = state.hint; draw(); }
  else if (event.key >= '1' && event.key <= '5') {
    const choice = document.querySelector('#ps-tool input[value="' + TOOLS[event.key - 1] + '"]');
    if (choice) choice.click();
    frame.focus({ preventScroll: true });
  } else return;
  event.preventDefault();
}
document.addEventListener('keydown', onKey);
window.addEventListener('beforeunload', onLeave);
window.addEventListener('pageshow', (event) => { if (event.persisted) beat(); });
document.addEventListener('visibilitychange', () => { if (!document.hidden) beat(); });
new ResizeObserver(fit).observe(frame);
watch('value', show);
show();
