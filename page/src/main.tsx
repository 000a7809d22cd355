/** The page: asks what the service holds, keeps the search in the address, shows results or the map. */

import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { MapView } from "./map";
import { Media } from "./media";
import { QueryBar } from "./query";
import { Results } from "./results";
import { type Asked, type Part, fromAddress, heaviest, many, modalityOf, newKey, one, toAddress, toQueries } from "./state";
import "./page.css";

type Pick = (gallery: string, modality: string, id: string, label: string) => void;

function Page() {
  const [known, setKnown] = useState<api.Spaces | null>(null);
  const [locked, setLocked] = useState(false);
  const [asked, setAsked] = useState<Asked>(() => fromAddress(location.hash));
  const [results, setResults] = useState<api.Result[]>([]);
  const [busy, setBusy] = useState("");
  const [fault, setFault] = useState("");
  const [over, setOver] = useState(false);
  const latest = useRef<AbortController | null>(null);

  const tell = (error: Error) => {
    if (error instanceof api.Fault && error.status === 401) setLocked(true);
    else if (error.name !== "AbortError") setFault(error.message);
  };
  const enter = () => api.spaces().then((found) => { setKnown(found); setLocked(false); setFault(""); }, tell);
  useEffect(() => { void enter(); }, []);
  useEffect(() => {
    const read = () => setAsked(fromAddress(location.hash));
    addEventListener("popstate", read);
    return () => removeEventListener("popstate", read);
  }, []);
  useEffect(() => {
    const keys = (event: KeyboardEvent) => {
      const typing = /input|select|textarea/i.test((event.target as HTMLElement).tagName);
      if (event.key === "/" && !typing) { event.preventDefault(); document.getElementById("text")?.focus(); }
      if (event.key.startsWith("Arrow") && (event.target as HTMLElement).matches?.("[data-pick]")) step(event);
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  }, []);

  const change = (next: Asked) => {
    const address = `#${toAddress(next)}`;
    if (address !== location.hash) history.pushState(null, "", address);
    setAsked(next);
  };
  const wanted = JSON.stringify([toQueries(asked.parts), asked.galleries, asked.filter, asked.k]);
  useEffect(() => {
    latest.current?.abort();
    setFault("");
    if (!known || !asked.parts.length) { setResults([]); setBusy(""); return; }
    const control = (latest.current = new AbortController());
    setBusy("Searching…");
    const galleries = asked.galleries.length ? asked.galleries : undefined;
    const request = { queries: toQueries(asked.parts), galleries, k: asked.k, filter: asked.filter || undefined };
    const started = performance.now();
    api.search(request, control.signal).then(
      (found) => {
        setResults(found);
        const count = found.reduce((sum, each) => sum + each.hits.length, 0);
        setBusy(`${count} ${count === 1 ? "hit" : "hits"} in ${Math.round(performance.now() - started)} ms`);
      },
      (error: Error) => { if (error.name !== "AbortError") { setResults([]); setBusy(""); } tell(error); },
    );
  }, [known, wanted]);

  const takeFiles = async (files: File[]) => {
    if (!known) return;
    const added: Part[] = [];
    for (const file of files.slice(0, 8)) {
      const modality = modalityOf(file.name, known.queries);
      if (!modality) {
        setFault(`${file.name} is none of ${known.queries.filter((each) => each !== "text").map(one).join(", ")} by its name.`);
        continue;
      }
      setBusy(`Encoding ${file.name}…`);
      try {
        const handle = await api.upload(file, modality);
        added.push({ key: newKey(), kind: "file", label: file.name, modality, weight: 1, handle });
      } catch (error) { setBusy(""); tell(error as Error); }
    }
    if (added.length) change({ ...asked, view: "search", parts: [...asked.parts, ...added] });
  };
  const pick: Pick = (gallery, modality, id, label) => {
    change({ ...asked, view: "search", parts: [{ key: newKey(), kind: "item", label, modality, weight: 1, gallery, id }] });
    scrollTo({ top: 0 });
  };

  if (locked) return <Locked onToken={(token) => { api.setToken(token); void enter(); }} />;
  return (
    <div class={over ? "page over" : "page"}
      onDragOver={(event) => { event.preventDefault(); setOver(true); }}
      onDragLeave={(event) => { if (event.relatedTarget === null) setOver(false); }}
      onDrop={(event) => { event.preventDefault(); setOver(false); void takeFiles([...(event.dataTransfer?.files ?? [])]); }}>
      <header>
        <h1>isthmus</h1>
        {known && <span class="bridge" title={`${known.bridge.method}, ${known.bridge.dim} dimensions`}>{known.bridge.name}</span>}
        <nav aria-label="Views">
          {(["search", "map"] as const).map((view) => (
            <button key={view} type="button" aria-pressed={asked.view === view} onClick={() => change({ ...asked, view })}>
              {view === "search" ? "Search" : "Map"}
            </button>
          ))}
        </nav>
      </header>
      <main>
        {known && <QueryBar known={known} asked={asked} busy={busy} onChange={change} onFiles={(files) => void takeFiles(files)} />}
        {fault && <p class="fault" role="alert">{fault}</p>}
        {known && asked.view === "map" && <MapView known={known} onPick={pick} />}
        {known && asked.view === "search" && asked.parts.length > 0 && (
          <Results results={results} queries={toQueries(asked.parts)} explains={known.explains} whose={heaviest(asked.parts)} onPick={pick} />
        )}
        {known && asked.view === "search" && asked.parts.length === 0 && <Welcome known={known} onPick={pick} />}
      </main>
      <footer>
        {known && <>isthmus {known.version} · {known.bridge.method} · everything stays on this machine</>}
      </footer>
    </div>
  );
}

/** Move the focus through the hits: left and right by one, up and down to the card above or below. */
function step(event: KeyboardEvent): void {
  const all = [...document.querySelectorAll<HTMLElement>("[data-pick]")];
  const here = all.indexOf(event.target as HTMLElement);
  const at = (element: HTMLElement) => element.getBoundingClientRect();
  let next: HTMLElement | undefined;
  if (event.key === "ArrowRight") next = all[here + 1];
  if (event.key === "ArrowLeft") next = all[here - 1];
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const from = at(all[here]);
    const sign = event.key === "ArrowDown" ? 1 : -1;
    const beyond = all.filter((each) => (at(each).top - from.top) * sign > 8);
    next = beyond.sort((a, b) => Math.hypot(at(a).left - from.left, 3 * (at(a).top - from.top)) - Math.hypot(at(b).left - from.left, 3 * (at(b).top - from.top)))[0];
  }
  if (next) { event.preventDefault(); next.focus(); }
}

/** A name of many within a sentence: "Pictures" loses its capital, "3D shapes" keeps it. */
const inner = (words: string): string => (/^[A-Z][a-z]/.test(words) ? words[0].toLowerCase() + words.slice(1) : words);

interface StartersProps { gallery: api.GalleryInfo; onPick: Pick }

/** The first items of a gallery, to start a search from. */
function Starters({ gallery, onPick }: StartersProps) {
  const [items, setItems] = useState<api.Item[]>([]);
  useEffect(() => { api.items(gallery.name, 4).then(setItems, () => setItems([])); }, [gallery.name]);
  if (!items.length) return null;
  return (
    <ul class={`starters ${gallery.modality}`} aria-label={`${many(gallery.modality)} to start from`}>
      {items.map(({ id, metadata }) => {
        const text = typeof metadata.text === "string" ? metadata.text : undefined;
        const label = text ?? id;
        return (
          <li key={id} class="card">
            <Media gallery={gallery.name} modality={gallery.modality} id={id} text={text} />
            <button type="button" class="pick" onClick={() => onPick(gallery.name, gallery.modality, id, label)}
              aria-label={`Search by ${label}`}><span class="name">{gallery.modality === "text" ? "search by it" : label}</span></button>
          </li>
        );
      })}
    </ul>
  );
}

function Welcome({ known, onPick }: { known: api.Spaces; onPick: Pick }) {
  const { estimate } = known.bridge;
  return (
    <section class="welcome">
      <h2>One search over everything here</h2>
      <ul>
        {known.galleries.map((each) => (
          <li key={each.name}><strong>{each.items.toLocaleString()}</strong> {inner(many(each.modality))} <small>{each.name}</small></li>
        ))}
      </ul>
      <p>Type a text and press Enter, or drop a file anywhere on this page. Several things combine: a sound, plus
        “at night”, minus a picture. Click a hit to search by it, or start from one of
        the items below. <kbd>/</kbd> goes to the text, arrows move through hits.</p>
      {known.galleries.map((each) => <Starters key={each.name} gallery={each} onPick={onPick} />)}
      {estimate?.verdict && <p class="quiet">How well the spaces are joined, estimated without labels: {estimate.verdict}
        {typeof estimate.quality === "number" && ` (expected mAP ${estimate.quality.toFixed(2)})`}.</p>}
    </section>
  );
}

function Locked({ onToken }: { onToken: (token: string) => void }) {
  const [token, setToken] = useState("");
  return (
    <main class="locked">
      <h1>isthmus</h1>
      <form onSubmit={(event) => { event.preventDefault(); onToken(token.trim()); }}>
        <label>This service needs its token, printed where it was started.
          <input type="password" name="token" value={token} autocomplete="off" onInput={(event) => setToken(event.currentTarget.value)} />
        </label>
        <button type="submit" class="go">Enter</button>
      </form>
    </main>
  );
}

render(<Page />, document.getElementById("page")!);
