// Updates the parts of a page with the HTML that the server sends when they change.
'use strict';
(() => {
  const parts = new Map();
  document.querySelectorAll('[data-live]').forEach(e => parts.set(e.dataset.live, e));
  const state = document.getElementById('connection');
  if (!parts.size || !window.EventSource) return;
  const url = new URL(location.href);
  url.hash = '';
  url.searchParams.set('live', '1');
  const source = new EventSource(url);
  source.onopen = () => { state.textContent = 'live'; };
  source.onerror = () => { state.textContent = 'no connection: the page may be old'; };
  source.onmessage = event => {
    for (const [name, html] of Object.entries(JSON.parse(event.data))) {
      const part = parts.get(name);
      if (part) replace(part, html);
    }
  };

  // replace keeps the focus, and the state of folded parts.
  function replace(part, html) {
    const focus = part.contains(document.activeElement) ? key(document.activeElement) : null;
    const open = new Map([...part.querySelectorAll('details')].map(d => [d.dataset.key, d.open]));
    part.innerHTML = html; // the server escapes everything, and the policy allows no script in it
    part.querySelectorAll('details').forEach(d => { if (open.has(d.dataset.key)) d.open = open.get(d.dataset.key); });
    if (focus) {
      const again = [...part.querySelectorAll('a, summary, [tabindex]')].find(e => key(e) === focus);
      if (again) again.focus({ preventScroll: true });
    }
  }

  function key(element) {
    return element.getAttribute('href') || element.textContent;
  }
})();
