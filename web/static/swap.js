// Parts of this page, made anew by the server and put in the place of the old ones. Our own pages only: what came from
// strangers is escaped there.

// A server that takes longer is taken for one that is away: the next change asks again.
const PATIENCE_MS = 30_000;
const FOCUSABLE = "a[href], button, summary, [tabindex]";

let swapped = Promise.resolve();

// One after the other: an answer that comes late never puts what is older in the place of what is newer.
export function swap(...ids) {
  swapped = swapped.then(() => renew(ids));
  return swapped;
}

async function renew(ids) {
  const html = await thisPage();
  if (html === undefined) return;
  const page = new DOMParser().parseFromString(html, "text/html");
  for (const id of ids) {
    const [old, fresh] = [document.getElementById(id), page.getElementById(id)];
    if (old && fresh) replace(old, document.adoptNode(fresh));
  }
}

// Where the server is away, or goes away in the middle, the page stays as it is.
async function thisPage() {
  try {
    const response = await fetch(location.href, {
      headers: { Accept: "text/html" },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    return response.ok ? await response.text() : undefined;
  } catch {
    return undefined;
  }
}

// What was open stays open, and who was at some place in it stays there.
function replace(old, fresh) {
  const details = fresh.querySelectorAll("details");
  old.querySelectorAll("details").forEach((each, index) => details[index] && (details[index].open = each.open));
  // What has not changed is left alone: an alert that is put there again is told again.
  if (old.isEqualNode(fresh)) return;
  const scrolled = [...old.querySelectorAll(".scroll[id]")].map(({ id, scrollLeft }) => [id, scrollLeft]);
  const focused = old.contains(document.activeElement);
  const place = [...old.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  old.replaceWith(fresh);
  for (const [id, left] of scrolled) document.getElementById(id)?.scrollTo({ left });
  if (!focused) return;
  const again = fresh.querySelectorAll(FOCUSABLE)[place];
  if (again && !again.disabled) return again.focus({ preventScroll: true });
  fresh.tabIndex = -1;
  fresh.focus({ preventScroll: true });
}
