// Name and colour of the chosen target. Each change names the target that it was typed for, and when.
const name = element.querySelector('.pn-name'), colour = element.querySelector('.pn-colour');
let state = {};

function show() {
  try { state = JSON.parse(props.value || '{}'); } catch (error) { state = {}; }
  if (name.value !== state.name) name.value = state.name || '';
  colour.value = state.colour || '#26c6da';
  name.setAttribute('aria-label', state.name_label || '');
  colour.setAttribute('aria-label', state.colour_label || '');
  name.title = state.name_label || '';
  colour.title = state.colour_label || '';
}

function tell() {
  if (name.value === state.name && colour.value === state.colour) return;
  state.name = name.value;
  state.colour = colour.value;
  trigger('rename', { target: state.target, name: name.value, colour: colour.value, at: performance.timeOrigin + performance.now() });
}

name.addEventListener('input', tell);
colour.addEventListener('input', tell);
watch('value', show);
show();
