/** The service as the page asks it: types of its answers, and the token where one is needed. */

export interface GalleryInfo { name: string; modality: string; items: number; columns: string[] }
export interface Estimate { verdict?: string; quality?: number; low?: number; high?: number }
export interface Spaces {
  bridge: { name: string; method: string; dim: number; estimate?: Estimate | null };
  galleries: GalleryInfo[];
  queries: string[];
  editable: boolean;
  explains: boolean;
  version: string;
}
export interface Item { id: string; metadata: Record<string, unknown> }
export interface Hit { id: string; score: number; metadata: Record<string, unknown> }
export interface Result { gallery: string; modality: string; hits: Hit[] }
export interface Concept { text: string; share: number }
export interface Explanation { exact: boolean; basis: string; concepts: Concept[] }
export interface MapData {
  galleries: string[];
  x: number[];
  y: number[];
  gallery: number[];
  ids: string[];
  columns: Record<string, (string | number | null)[]>;
}
export type Query = { weight: number } & (
  | { text: string }
  | { gallery: string; id: string }
  | { handle: string }
);

/** A fault that the service told, in its own words. */
export class Fault extends Error {
  constructor(readonly status: number, message: string) { super(message); }
}

const KEY = "isthmus-token";

export function setToken(token: string): void {
  sessionStorage.setItem(KEY, token);
}

async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const token = sessionStorage.getItem(KEY);
  const headers = new Headers(init.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const answer = await fetch(path, { ...init, headers }).catch(() => {
    throw new Fault(0, "The service does not answer. Is it still running?");
  });
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Fault(answer.status, String(told.message ?? `The service answered ${answer.status}.`));
  }
  return answer;
}

function post(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const headers = { "Content-Type": "application/json" };
  return ask(path, { method: "POST", body: JSON.stringify(body), headers, signal });
}

export async function spaces(): Promise<Spaces> {
  return (await ask("spaces")).json();
}

export interface SearchRequest { queries: Query[]; galleries?: string[]; k: number; filter?: string }

export async function search(request: SearchRequest, signal?: AbortSignal): Promise<Result[]> {
  return (await (await post("search", request, signal)).json()).results;
}

export async function explain(queries: Query[], gallery: string, id: string): Promise<Explanation> {
  return (await post("explain", { queries, gallery, id })).json();
}

/** Embeds a file; the handle stands for it in searches. */
export async function upload(file: File, modality: string): Promise<string> {
  const path = `embed?modality=${encodeURIComponent(modality)}&name=${encodeURIComponent(file.name)}`;
  const headers = { "Content-Type": "application/octet-stream" };
  return (await (await ask(path, { method: "POST", body: file, headers })).json()).handle;
}

/** The first items of a gallery. */
export async function items(gallery: string, limit: number): Promise<Item[]> {
  return (await (await ask(`items?${new URLSearchParams({ gallery, limit: String(limit) })}`)).json()).items;
}

export async function map(): Promise<MapData> {
  return (await ask("map")).json();
}

const waiting: (() => void)[] = [];
let running = 0;

/** What an item looks or sounds like. At most four are asked for at once: a page of sixty does not flood the service. */
export async function media(gallery: string, id: string): Promise<Blob> {
  if (running >= 4) await new Promise<void>((go) => waiting.push(go));
  running += 1;
  try {
    const where = new URLSearchParams({ gallery, id });
    return await (await ask(`media?${where}`)).blob();
  } finally {
    running -= 1;
    waiting.shift()?.();
  }
}
