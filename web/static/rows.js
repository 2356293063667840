// Rows of the list of killmails, made from the page's own template, so that live rows look like those of the server.

import { entity, party } from "./names.js";
import { at } from "./place.js";
import { security } from "./security.js";

const PARTY = "character { id name } corporation { id name } faction { id name } shipType { id name }";

export const ROW = `id killmailTime isLoss isSolo isNpc attackerCount zkillboardUrl securityStatus
  solarSystem { id name } victim { ${PARTY} } finalBlow { ${PARTY} }`;

export function rowOf(killmail) {
  const row = document.getElementById("killmail-row").content.firstElementChild.cloneNode(true);
  const slot = (name) => row.querySelector(`[data-slot="${name}"]`);
  row.dataset.id = killmail.id;
  const ship = killmail.victim.shipType;
  slot("picture").src = `https://images.evetech.net/types/${ship.id}/icon?size=64`;
  const side = document.getElementById(killmail.isLoss ? "side-loss" : "side-kill");
  slot("side").replaceWith(side.content.cloneNode(true));
  slot("page").href = at(`killmails/${killmail.id}`);
  slot("page").append(entity(ship, "ship"));
  if (killmail.isNpc || killmail.isSolo) slot("tag").textContent = killmail.isNpc ? "NPC" : "Solo";
  else slot("tag").remove();
  slot("victim").append(party(killmail.victim));
  slot("system").append(entity(killmail.solarSystem, "system"));
  slot("security").replaceWith(security(killmail.securityStatus, killmail.solarSystem.id));
  slot("time").dateTime = killmail.killmailTime;
  slot("time").textContent = killmail.killmailTime.slice(0, 16).replace("T", " ");
  slot("final-blow").append(party(killmail.finalBlow));
  const count = killmail.attackerCount;
  slot("attackers").textContent = `${count.toLocaleString("en")} attacker${count === 1 ? "" : "s"}`;
  slot("zkillboard").href = killmail.zkillboardUrl;
  slot("id").textContent = killmail.id;
  return row;
}
