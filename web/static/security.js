// How safe a solar system is, as the game shows it; an empty place that waits for it where it is not known.

export function security(status, systemId) {
  const element = document.createElement("span");
  element.className = "security";
  if (status === null) {
    element.dataset.securityOf = systemId;
    return element;
  }
  element.classList.add(status >= 0.5 ? "high" : status > 0 ? "low" : "null");
  const said = document.createElement("span");
  said.className = "visually-hidden";
  said.textContent = "security ";
  element.append(said, status.toFixed(1));
  return element;
}
