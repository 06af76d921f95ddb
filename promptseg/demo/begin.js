() => {
  // Work is kept under a secret of this tab, which a reload keeps; tabs opened later may ask for it.
  const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, '0')).join('');
  let secrets = [];
  try {
    const own = sessionStorage.getItem('promptseg') || fresh();
    sessionStorage.setItem('promptseg', own);
    const known = (localStorage.getItem('promptseg') || '').split(' ').filter(Boolean);
    secrets = [own, ...known.filter((one) => one !== own)].slice(0, 8);
    localStorage.setItem('promptseg', secrets.join(' '));
  } catch (error) { secrets = [fresh()]; }
  return [/^zh/i.test(navigator.language) ? 'zh' : 'en', secrets.join(' ')];
}
