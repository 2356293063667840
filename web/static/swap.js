// Parts of this page, made anew by the server and put in the place of the old ones. Our own pages only: what came from
// strangers is escaped there.

const FOCUSABLE = "a[href], button, summary, [tabindex]";

export async function swap(...ids) {
  // Where the server is away, the page stays as it is.
  const response = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => undefined);
  if (!response?.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const id of ids) {
    const [old, fresh] = [document.getElementById(id), page.getElementById(id)];
    if (old && fresh) replace(old, document.adoptNode(fresh));
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
