"use strict";
// Writes every instant of the page in the zone of this browser. Without this script they stay in UTC.
document.addEventListener("DOMContentLoaded", () => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local";
  const two = (number) => String(number).padStart(2, "0");
  const day = (at) => [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join("-");
  const clock = (at) => [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
  const today = day(new Date());
  for (const time of document.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const whole = `${day(at)} ${clock(at)}`;
    if (time.dataset.as === "clock") time.textContent = clock(at).slice(0, 5);
    if (time.dataset.as === "instant") time.textContent = day(at) === today ? clock(at) : whole;
    time.title = `${whole} ${zone}, ${time.title}`;
    const theirs = time.nextElementSibling;
    if (theirs && theirs.dataset.clock === whole) theirs.hidden = true;
  }
  for (const words of document.querySelectorAll("[data-zone]")) {
    words.textContent = `Times are in the zone of this browser, ${zone.replaceAll("_", " ")}.`;
  }
});
