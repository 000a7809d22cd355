/** Results: one group a gallery, so that no modality crowds out another; each hit with its score and why. */

import { useEffect, useState } from "preact/hooks";
import * as api from "./api";
import { Media } from "./media";
import { many } from "./state";

interface Props {
  results: api.Result[];
  queries: api.Query[];
  explains: boolean;
  /** Which of several parts the reasons are of; empty where there is one. */
  whose: string;
  onPick: (gallery: string, modality: string, id: string, label: string) => void;
}

export function Results({ results, queries, explains, whose, onPick }: Props) {
  return (
    <>
      {results.map((result) => (
        <section key={result.gallery} class="group" aria-label={`${many(result.modality)} of ${result.gallery}`}>
          <h2>{many(result.modality)} <small>{result.gallery}</small></h2>
          {result.hits.length === 0 && <p class="quiet">Nothing here fits the filter.</p>}
          <ol class={`hits ${result.modality}`}>
            {result.hits.map((hit, rank) => (
              <Card key={hit.id} hit={hit} rank={rank + 1} result={result} queries={queries} explains={explains} whose={whose} onPick={onPick} />
            ))}
          </ol>
        </section>
      ))}
    </>
  );
}

interface CardProps extends Omit<Props, "results"> { hit: api.Hit; rank: number; result: api.Result }

function Card({ hit, rank, result, queries, explains, whose, onPick }: CardProps) {
  const [open, setOpen] = useState(false);
  const text = typeof hit.metadata.text === "string" ? hit.metadata.text : undefined;
  const label = text ?? hit.id;
  return (
    <li class="card">
      <Media gallery={result.gallery} modality={result.modality} id={hit.id} text={text} />
      <div class="foot">
        <button
          type="button" class="pick" data-pick
          onClick={() => onPick(result.gallery, result.modality, hit.id, label)}
          aria-label={`${rank}. ${label}, score ${hit.score.toFixed(3)}: search by it`}
        >
          <span class="rank">{rank}</span>
          <span class="name">{result.modality === "text" ? "search by it" : label}</span>
        </button>
        <span class="score" title="cosine with the query; higher is better">
          <span class="bar" style={{ width: `${Math.max(0, Math.min(1, hit.score)) * 100}%` }} />
          <span class="figure">{hit.score.toFixed(3)}</span>
        </span>
        {explains && (
          <button type="button" class="why" aria-expanded={open} onClick={() => setOpen(!open)}
            aria-label={`Why ${label}?`}>why</button>
        )}
      </div>
      <Columns metadata={hit.metadata} />
      {open && <Why queries={queries} whose={whose} gallery={result.gallery} id={hit.id} />}
    </li>
  );
}

function Columns({ metadata }: { metadata: Record<string, unknown> }) {
  const shown = Object.entries(metadata).filter(([name, value]) => name !== "text" && value !== null && value !== "");
  if (!shown.length) return null;
  return <p class="columns">{shown.slice(0, 4).map(([name, value]) => `${name}: ${String(value)}`).join(" · ")}</p>;
}

function Why({ queries, whose, gallery, id }: { queries: api.Query[]; whose: string; gallery: string; id: string }) {
  const [found, setFound] = useState<api.Explanation | string | null>(null);
  useEffect(() => {
    let here = true;
    api.explain(queries, gallery, id).then(
      (answer) => here && setFound(answer),
      (fault: Error) => here && setFound(fault.message),
    );
    return () => { here = false; };
  }, [JSON.stringify(queries), gallery, id]);
  if (found === null) return <p class="quiet">Looking…</p>;
  if (typeof found === "string") return <p class="quiet">{found}</p>;
  const most = Math.max(1e-9, ...found.concepts.map((concept) => concept.share));
  return (
    <div class="reasons">
      <ul aria-label="Shared meanings that carry the match">
        {found.concepts.map((concept) => (
          <li key={concept.text}>
            <span class="fill" style={{ width: `${Math.max(1, (concept.share / most) * 100)}%` }} />
            <span class="what" title={concept.text}>{concept.text}</span>
            <span class="share">{Math.round(concept.share * 100)} %</span>
          </li>
        ))}
      </ul>
      {whose && <p class="quiet">Of what weighs most here, “{whose}”.</p>}
      <p class="quiet">{found.exact ? "Exact" : "An approximation"}: from {found.basis}.</p>
    </div>
  );
}
