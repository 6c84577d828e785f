"use strict";
// The page is complete without this; it only replaces the sections that changed.
(() => {
  const live = document.getElementById("live");
  const events = new EventSource(location.origin + "/events");
  events.onopen = () => { live.textContent = "live"; };
  events.onerror = () => { live.textContent = "no connection to the agent, trying again"; };
  events.onmessage = (e) => {
    live.textContent = "live";
    for (const [id, html] of Object.entries(JSON.parse(e.data))) {
      const section = document.getElementById(id);
      if (section) section.innerHTML = html;
    }
    const name = document.querySelector("h1"), state = name && name.querySelector("b");
    if (state) document.title = name.firstChild.textContent.trim() + ": " + state.textContent;
  };
})();
