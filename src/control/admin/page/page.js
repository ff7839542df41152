// Keeps the page as it is now: asks for it again every two seconds and puts in what has changed. All there is to see is in
// the HTML; nothing here makes any of it, and nothing is asked of anybody but this port.

const EVERY = 2000; // milliseconds
const AFTER_FAILURE = 5000;
const AFTER_TYPING = 250;
const PATIENCE = 15000;
const LIVE = ["page", "phase"]; // what is put in anew, by id

const pause = document.getElementById("pause");
const contact = document.getElementById("contact");
let next = 0;
let asked = 0;

/** Makes `old` look like `fresh`, touching only what differs, so that focus, selection and scrolling stay. */
function morph(old, fresh) {
    for (const { name, value } of fresh.attributes) {
        if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
        if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    if (old instanceof HTMLInputElement) {
        if (old !== document.activeElement) old.value = fresh.getAttribute("value") ?? "";
        return;
    }
    const byId = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
    let place = old.firstChild;
    for (const node of [...fresh.childNodes]) {
        const known = node.id ? byId.get(node.id) : undefined;
        const same = known ?? (place && isLike(place, node) ? place : undefined);
        if (!same) {
            old.insertBefore(document.importNode(node, true), place);
            continue;
        }
        if (same === place) {
            place = place.nextSibling;
        } else {
            old.insertBefore(same, place);
        }
        if (same.nodeType === Node.ELEMENT_NODE) morph(same, node);
        else if (same.data !== node.data) same.data = node.data;
    }
    while (place) {
        const gone = place;
        place = place.nextSibling;
        gone.remove();
    }
}

/** Whether one can become the other; what has an id only becomes what has the same. */
function isLike(one, other) {
    return one.nodeType === other.nodeType && one.nodeName === other.nodeName && !one.id && !other.id;
}

/** Says something once, also to who does not see it. */
function say(text, isLost = false) {
    if (contact.textContent !== text) contact.textContent = text;
    contact.classList.toggle("lost", isLost);
}

async function refresh() {
    clearTimeout(next);
    const turn = ++asked;
    let wait = EVERY;
    try {
        const signal = AbortSignal.timeout(PATIENCE);
        const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store", signal });
        if (!answer.ok) throw new Error(await answer.text());
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (turn !== asked) return;
        for (const id of LIVE) morph(document.getElementById(id), fresh.getElementById(id));
        document.title = fresh.title;
        if (contact.classList.contains("lost")) say("");
    } catch {
        if (turn !== asked) return;
        say("No contact: what you see is old", true);
        wait = AFTER_FAILURE;
    }
    next = setTimeout(tick, wait);
}

function isPaused() {
    return pause.getAttribute("aria-pressed") === "true";
}

function tick() {
    if (!isPaused() && !document.hidden) refresh();
}

/** Shows what the controls say. The address has it all, as it would without this script. */
function show(form, button) {
    const view = new URLSearchParams();
    // The last of a name counts: a button that was pressed, after what was there before.
    for (const [name, value] of new FormData(form, button)) view.set(name, value);
    for (const [name, value] of [...view]) if (value === "" || (name === "sort" && value === "age")) view.delete(name);
    const query = view.toString();
    history.replaceState(null, "", query ? `/?${query}` : "/");
    return refresh();
}

async function close(button) {
    const { close: id, client } = button.dataset;
    if (!confirm(`Close connection ${id} of ${client}?`)) return;
    button.disabled = true;
    try {
        const answer = await fetch(`/connections/${encodeURIComponent(id)}`, { method: "DELETE" });
        say(answer.ok ? `Connection ${id} is closed` : (await answer.text()).trim());
    } catch {
        say("No contact: the connection is not closed", true);
    }
    refresh();
}

document.addEventListener("submit", (event) => {
    if (event.target.id !== "view") return;
    event.preventDefault();
    show(event.target, event.submitter);
});

let typing = 0;
document.addEventListener("input", (event) => {
    const form = event.target.form;
    if (form?.id !== "view") return;
    clearTimeout(typing);
    typing = setTimeout(() => show(form), AFTER_TYPING);
});

document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-close]");
    if (button) close(button);
});

pause.addEventListener("click", () => {
    pause.setAttribute("aria-pressed", String(!isPaused()));
    tick();
});

document.addEventListener("visibilitychange", tick);
document.documentElement.classList.add("scripted");
next = setTimeout(tick, EVERY);
