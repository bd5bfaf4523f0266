// Before the first paint, so that a chosen theme does not flash: this one file is no module.
try {
  const chosen = localStorage.getItem('tintype.theme');
  if (chosen === 'dark' || chosen === 'light') document.documentElement.dataset.theme = chosen;
} catch {
  // a browser that keeps nothing here: the system's theme it is
}
