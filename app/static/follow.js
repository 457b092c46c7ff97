// Server-sent events with a way back: back-off with jitter, and at once when the machine is on line or the tab is seen.

const FIRST = 500, LONGEST = 15000, SILENCE = 20000; // milliseconds

/** Follow `address`. `onSections(kind, sections)` gets what comes, `onState("live" | "lost", seconds)` how it stands. */
export function follow(address, onSections, onState) {
  let source, last = "", wait = FIRST, silence, retry;

  function open() {
    clearTimeout(retry);
    source?.close();
    source = new EventSource(last ? `${address}?last=${encodeURIComponent(last)}` : address);
    for (const kind of ["state", "changes", "beat"]) source.addEventListener(kind, (event) => take(kind, event));
    source.onerror = lost;
    listen();
  }
  function take(kind, event) {
    wait = FIRST;
    listen();
    onState("live");
    if (kind !== "beat") {
      last = event.lastEventId;
      onSections(kind, JSON.parse(event.data));
    }
  }
  function listen() {
    clearTimeout(silence);
    silence = setTimeout(lost, SILENCE);
  }
  function lost() {
    source.close();
    clearTimeout(silence);
    clearTimeout(retry);
    const pause = wait * (0.75 + Math.random() / 2);
    onState("lost", Math.max(1, Math.round(pause / 1000)));
    retry = setTimeout(open, pause);
    wait = Math.min(wait * 2, LONGEST);
  }
  function soon() {
    if (document.visibilityState === "visible" && source.readyState === EventSource.CLOSED) open();
  }
  addEventListener("online", soon);
  document.addEventListener("visibilitychange", soon);
  open();
}
