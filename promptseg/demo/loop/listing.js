// The worklist or the versions: a click opens a case or uses a version. While the tab is seen, what
// others did and how a training goes is asked for now and then, which does not count as use.
const root = element.querySelector('.pk-root'), part = element.closest('[id^=ps-]').id.slice(3);
const EVERY_MS = 4000;
let state = {}, shown = null;

function draw(html) {
  if (html === shown) return;
  shown = html;
  const at = document.activeElement, inside = root.contains(at) ? at.dataset : null;
  const top = (root.querySelector('.pk-scroll') || {}).scrollTop;
  root.innerHTML = html;
  const scrolled = root.querySelector('.pk-scroll');
  if (scrolled && top) scrolled.scrollTop = top;
  if (!inside) return;
  for (const one of root.querySelectorAll('button'))
    if (one.dataset.case === inside.case && one.dataset.version === inside.version) one.focus();
}

function show() {
  try { state = JSON.parse(props.value || '{}'); } catch (error) { state = {}; }
  draw(state.html || '');
}

async function ask() {
  if (!element.isConnected) { clearInterval(asking); return; }
  if (!state.visit || document.hidden || root.offsetParent === null) return;
  try {
    const asked = state.visit;
    const answer = await fetch(new URL('promptseg/cases/' + asked + '/' + part, document.baseURI), { cache: 'no-store' });
    const { html } = await answer.json();
    if (asked === state.visit && typeof html === 'string') draw(html);
  } catch (error) { /* The picture says when the server cannot be reached. */ }
}

root.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.case !== undefined) trigger('open', { case: button.dataset.case });
  if (button.dataset.version !== undefined) trigger('revert', { version: Number(button.dataset.version) });
});
const asking = setInterval(ask, EVERY_MS);
watch('value', show);
show();
