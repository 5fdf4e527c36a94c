/** The card of one job. Everything that it says comes from the kernel; it sends one message: {type: "cancel"}. */

const element = (tag, className, attributes = {}) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

const button = (text, className) => {
  const node = element("button", `torpor-button ${className ?? ""}`, { type: "button" });
  node.textContent = text;
  return node;
};

export const duration = (seconds) => {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
};

const label = (phase) => (phase ? phase[0] + phase.slice(1).toLowerCase() : "");

function makeHead() {
  const head = element("div", "torpor-head");
  const dot = element("span", "torpor-dot", { "aria-hidden": "true" });
  const name = element("span", "torpor-name");
  const phase = element("span", "torpor-phase", { role: "status" });
  const time = element("span", "torpor-time");
  const actions = element("span", "torpor-actions");
  head.append(dot, name, phase, time, actions);
  return { head, name, phase, time, actions };
}

function makeCancel(model, actions) {
  const ask = button("Cancel", "torpor-quiet");
  const sure = element("span", "torpor-sure", { role: "group", "aria-label": "Cancel this job?" });
  const question = element("span", "torpor-question");
  question.textContent = "Cancel this job?";
  const yes = button("Cancel job", "torpor-danger");
  const no = button("Keep it", "torpor-quiet");
  sure.append(question, yes, no);
  const close = (focus) => {
    sure.replaceWith(ask);
    if (focus) ask.focus();
  };
  ask.addEventListener("click", () => {
    ask.replaceWith(sure);
    no.focus();
  });
  no.addEventListener("click", () => close(true));
  sure.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    close(true);
  });
  yes.addEventListener("click", () => {
    model.send({ type: "cancel" });
    ask.disabled = true;
    ask.textContent = "Cancelling…";
    close(false);
  });
  actions.append(ask);
  return {
    show(state) {
      actions.hidden = state.finished;
      if (state.phase === "CANCELLING") {
        ask.disabled = true;
        ask.textContent = "Cancelling…";
      }
    },
    again() {
      ask.disabled = false;
      ask.textContent = "Cancel";
    },
  };
}

function showWords(words, state) {
  const said = JSON.stringify([state.position, state.message, state.next_step, state.notice, state.parts]);
  if (words.dataset.said === said) return; // a selection stays, and a screen reader is not told twice
  words.dataset.said = said;
  words.replaceChildren();
  const line = (text, className) => {
    if (!text) return;
    const node = element("p", className);
    node.textContent = text;
    words.append(node);
  };
  if (state.position) line(`Number ${state.position} in the queue`, "torpor-position");
  line(state.message, "torpor-message");
  line(state.next_step, "torpor-next");
  line(state.notice, "torpor-next");
  if (!state.parts?.length) return;
  const list = element("ul", "torpor-parts");
  for (const part of state.parts) {
    const item = element("li");
    item.textContent = part;
    list.append(item);
  }
  words.append(list);
}

function showOutcome(place, outcome) {
  place.replaceChildren();
  place.hidden = !outcome?.kind;
  if (place.hidden) return;
  place.dataset.kind = outcome.kind;
  const title = element("div", "torpor-label");
  title.textContent = { value: "Result", exception: "Exception", note: "Result" }[outcome.kind];
  const type = element("span", "torpor-type");
  type.textContent = outcome.title;
  title.append(type);
  place.append(title);
  if (!outcome.text) return;
  const text = element(outcome.kind === "note" ? "p" : "pre", "torpor-text", { tabindex: "0" });
  text.textContent = outcome.text;
  place.append(text);
}

function makeLog() {
  const place = element("details", "torpor-log");
  place.open = true;
  const title = element("summary", "torpor-label");
  title.textContent = "Log";
  const text = element("pre", "torpor-text", { tabindex: "0", role: "log", "aria-label": "Log" });
  place.append(title, text);
  const show = (log) => {
    place.hidden = !log;
    const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
    text.textContent = log;
    if (atEnd) text.scrollTop = text.scrollHeight;
  };
  place.addEventListener("toggle", () => (text.scrollTop = text.scrollHeight));
  return { place, show, toEnd: () => (text.scrollTop = text.scrollHeight) };
}

function render({ model, el }) {
  const card = element("section", "torpor-card");
  const { head, name, phase, time, actions } = makeHead();
  const words = element("div", "torpor-words", { "aria-live": "polite" });
  const notice = element("div", "torpor-notice", { role: "alert" });
  const outcome = element("div", "torpor-outcome");
  const foot = element("div", "torpor-foot");
  const log = makeLog();
  const cancel = makeCancel(model, actions);
  card.append(head, notice, words, outcome, log.place, foot);
  el.append(card);

  let heard = Date.now();
  const showTime = () => {
    const state = model.get("state");
    const since = state.running ? (Date.now() - heard) / 1000 : 0;
    time.textContent = state.elapsed_s == null ? "" : duration(state.elapsed_s + since);
  };
  const showState = () => {
    const state = model.get("state");
    heard = Date.now();
    card.dataset.tone = state.tone;
    card.dataset.live = state.finished ? "no" : "yes";
    card.setAttribute("aria-label", `Job ${state.name}`);
    name.textContent = state.name;
    if (phase.textContent !== label(state.phase)) phase.textContent = label(state.phase);
    showWords(words, state);
    const attempt = state.attempt > 1 ? `attempt ${state.attempt}` : "";
    foot.textContent = [state.id, state.kind, state.amount, attempt].filter(Boolean).join(" · ");
    cancel.show(state);
    showTime();
  };
  const showNotice = () => {
    notice.textContent = model.get("notice");
    notice.hidden = !notice.textContent;
    if (!notice.hidden) cancel.again();
  };
  const showLog = () => log.show(model.get("log"));
  const showResult = () => showOutcome(outcome, model.get("outcome"));
  const shown = { state: showState, notice: showNotice, log: showLog, outcome: showResult };
  for (const [trait, show] of Object.entries(shown)) {
    show();
    model.on(`change:${trait}`, show);
  }
  requestAnimationFrame(log.toEnd);
  const clock = setInterval(showTime, 1000);
  return () => {
    clearInterval(clock);
    for (const [trait, show] of Object.entries(shown)) model.off(`change:${trait}`, show);
  };
}

export default { render };
