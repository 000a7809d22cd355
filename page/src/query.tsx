/** What is searched for: texts, files and items, each with a weight that may be negative. */

import { useRef, useState } from "preact/hooks";
import type { Spaces } from "./api";
import { type Asked, type Part, many, newKey, one } from "./state";

interface Props {
  known: Spaces;
  asked: Asked;
  busy: string;
  onChange: (asked: Asked) => void;
  onFiles: (files: File[]) => void;
}

export function QueryBar({ known, asked, busy, onChange, onFiles }: Props) {
  const [draft, setDraft] = useState("");
  const [more, setMore] = useState(asked.filter !== "" || asked.galleries.length > 0);
  const chooser = useRef<HTMLInputElement>(null);
  const add = (event: Event) => {
    event.preventDefault();
    const label = draft.trim();
    if (!label) return;
    const part: Part = { key: newKey(), kind: "text", label, modality: "text", weight: 1 };
    setDraft("");
    onChange({ ...asked, view: "search", parts: [...asked.parts, part] });
  };
  const change = (part: Part, weight: number) =>
    onChange({ ...asked, parts: asked.parts.map((each) => (each.key === part.key ? { ...each, weight } : each)) });
  const drop = (part: Part) => onChange({ ...asked, parts: asked.parts.filter((each) => each.key !== part.key) });
  const kinds = known.queries.filter((each) => each !== "text").map(one);
  const words = known.queries.includes("text") ? ["Type a text", ...(kinds.length ? ["drop a file"] : [])] : ["Drop a file"];
  return (
    <div class="asking">
      <form role="search" onSubmit={add}>
        <input
          type="search" name="text" value={draft} autocomplete="off" enterkeyhint="search" id="text"
          disabled={!known.queries.includes("text")} aria-label="Text to search by"
          placeholder={words.join(" or ")}
          onInput={(event) => setDraft(event.currentTarget.value)}
        />
        <button type="submit" class="go">Search</button>
        {kinds.length > 0 && (
          <>
            <button type="button" title={kinds.join(", ")} onClick={() => chooser.current?.click()}>Open a file</button>
            <input ref={chooser} type="file" multiple hidden aria-label="File to search by"
              onChange={(event) => { onFiles([...(event.currentTarget.files ?? [])]); event.currentTarget.value = ""; }} />
          </>
        )}
        <button type="button" aria-expanded={more} onClick={() => setMore(!more)}>Filters</button>
      </form>
      {asked.parts.length > 0 && (
        <ul class="parts" aria-label="What is searched for">
          {asked.parts.map((part) => (
            <li key={part.key} class={part.weight < 0 ? "minus" : ""}>
              <span class="kind">{one(part.modality)}</span>
              <span class="label" title={part.label}>{part.label}</span>
              <label>
                <span class="hidden">weight of {part.label}</span>
                <select value={String(part.weight)} onChange={(event) => change(part, Number(event.currentTarget.value))}>
                  {[...new Set([2, 1, 0.5, -0.5, -1, part.weight])].map((value) => (
                    <option key={value} value={String(value)}>{value > 0 ? `× ${value}` : `minus ${-value}`}</option>
                  ))}
                </select>
              </label>
              <button type="button" onClick={() => drop(part)} aria-label={`Remove ${part.label}`}>×</button>
            </li>
          ))}
          <li class="bare"><button type="button" onClick={() => onChange({ ...asked, parts: [] })}>Clear</button></li>
        </ul>
      )}
      {more && <Filters known={known} asked={asked} onChange={onChange} />}
      <p class="status" role="status">{busy}</p>
    </div>
  );
}

function Filters({ known, asked, onChange }: Pick<Props, "known" | "asked" | "onChange">) {
  const [filter, setFilter] = useState(asked.filter);
  const columns = [...new Set(known.galleries.flatMap((each) => each.columns))].filter((name) => !name.endsWith("_path"));
  const toggle = (name: string) => {
    const all = known.galleries.map((each) => each.name);
    const now = asked.galleries.length ? asked.galleries : all;
    const next = now.includes(name) ? now.filter((each) => each !== name) : [...now, name];
    onChange({ ...asked, galleries: next.length === all.length ? [] : next });
  };
  return (
    <div class="filters">
      <fieldset>
        <legend>Search in</legend>
        {known.galleries.map((each) => (
          <label key={each.name}>
            <input type="checkbox" checked={!asked.galleries.length || asked.galleries.includes(each.name)}
              onChange={() => toggle(each.name)} />
            {many(each.modality)} <small>{each.name}, {each.items.toLocaleString()}</small>
          </label>
        ))}
      </fieldset>
      <form onSubmit={(event) => { event.preventDefault(); onChange({ ...asked, filter: filter.trim() }); }}>
        <label>
          Only items where
          <input name="filter" value={filter} spellcheck={false} autocomplete="off"
            placeholder={columns.length ? `${columns[0]} = "…"` : 'year > 2010 and label in ("dog", "cat")'}
            onInput={(event) => setFilter(event.currentTarget.value)} />
        </label>
        <button type="submit">Apply</button>
        <label>
          Hits
          <select value={String(asked.k)} onChange={(event) => onChange({ ...asked, k: Number(event.currentTarget.value) })}>
            {[...new Set([6, 12, 24, 60, asked.k])].sort((a, b) => a - b).map((k) => <option key={k} value={String(k)}>{k}</option>)}
          </select>
        </label>
        <p class="quiet">{columns.length ? `Columns: ${columns.join(", ")}` : "These galleries have no metadata to filter by."}</p>
      </form>
    </div>
  );
}
