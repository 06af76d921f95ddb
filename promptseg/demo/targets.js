// The list of targets; a click or Enter chooses the one that prompts are for.
element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-target]');
  if (row) trigger('choose', { target: Number(row.dataset.target) });
});
