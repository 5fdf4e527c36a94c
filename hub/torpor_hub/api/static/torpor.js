// Refresh what a change concerns, and ask before what could lose something. Read before the body: no click comes before it.
(() => {
  const pending = new Map();
  const refresh = (name) => {
    clearTimeout(pending.get(name));
    pending.set(name, setTimeout(() => htmx.trigger(document.body, name), 80));
  };
  const listen = () => {
    const source = new EventSource(document.body.dataset.root + "api/v1/events");
    source.addEventListener("change", (event) => {
      const change = JSON.parse(event.data);
      refresh("torpor:" + change.kind);
      refresh("torpor:" + change.id);
    });
    // After a gap nobody knows what was missed: everything on the page is asked again.
    source.addEventListener("open", () => document.querySelectorAll("[hx-trigger*='torpor:']").forEach((part) => {
      refresh(part.getAttribute("hx-trigger").split(" ")[0]);
    }));
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
    });
  };
  const ask = (text, yes) => new Promise((resolve) => {
    const dialog = document.getElementById("confirm");
    document.getElementById("confirm-text").textContent = text;
    document.getElementById("confirm-yes").textContent = yes;
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
  document.addEventListener("htmx:confirm", (event) => {
    const button = event.detail.triggeringEvent && event.detail.triggeringEvent.submitter;
    if (!button || !button.dataset.confirm) return;
    event.preventDefault();
    ask(button.dataset.confirm, button.dataset.yes || "Yes").then((sure) => sure && event.detail.issueRequest(true));
  });
  document.addEventListener("htmx:configRequest", (event) => {
    const button = event.detail.triggeringEvent && event.detail.triggeringEvent.submitter;
    if (!button) return;
    if (button.name) event.detail.parameters[button.name] = button.value;
    if (button.dataset.vals) Object.assign(event.detail.parameters, JSON.parse(button.dataset.vals));
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.requestConfig.verb === "post") document.getElementById("error").textContent = "";
  });
  document.addEventListener("htmx:sendError", () => {
    document.getElementById("error").innerHTML = '<div class="problem"><strong>The platform does not answer.</strong> <span>It is asked again by itself.</span></div>';
  });
  document.addEventListener("htmx:responseError", (event) => {
    let text = "The platform answered " + event.detail.xhr.status + ".";
    try { const problem = JSON.parse(event.detail.xhr.responseText); text = problem.detail + " " + problem.next_step; } catch { /* not a problem document */ }
    const box = document.createElement("div");
    box.className = "problem";
    box.textContent = text;
    document.getElementById("error").replaceChildren(box);
  });
  document.addEventListener("DOMContentLoaded", listen);
})();
