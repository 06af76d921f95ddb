// A list of which one is chosen, as the browser draws it: only a choice tells, passing by does not.
const select = element.querySelector('select'), caption = element.querySelector('span');
let state = {};

function show() {
  try { state = JSON.parse(props.value || '{}'); } catch (error) { state = {}; }
  caption.textContent = state.label || '';
  const choices = JSON.stringify(state.choices || []);
  if (select.dataset.choices !== choices) {
    select.dataset.choices = choices;
    select.replaceChildren(...(state.choices || []).map(([text, value]) => new Option(text, value)));
  }
  select.value = state.value;
}

select.addEventListener('change', () => trigger('choose', { value: select.value }));
watch('value', show);
show();
