/** What is asked for, and its place in the address: a search can be shared by copying it. */

import type { Query } from "./api";

export interface Part {
  key: number;
  kind: "text" | "item" | "file";
  label: string;
  modality: string;
  weight: number;
  gallery?: string;
  id?: string;
  handle?: string;
}

export interface Asked {
  parts: Part[];
  /** Galleries that are searched; empty is all. */
  galleries: string[];
  filter: string;
  k: number;
  view: "search" | "map";
}

export const NOTHING: Asked = { parts: [], galleries: [], filter: "", k: 12, view: "search" };

let keys = 0;
export const newKey = (): number => ++keys;

/** The parts as the service takes them. */
export function toQueries(parts: Part[]): Query[] {
  return parts.map((part): Query => {
    if (part.kind === "text") return { text: part.label, weight: part.weight };
    if (part.kind === "file") return { handle: part.handle!, weight: part.weight };
    return { gallery: part.gallery!, id: part.id!, weight: part.weight };
  });
}

/** Label of the part that weighs most, of which a match is explained; empty where there is one part only. */
export function heaviest(parts: Part[]): string {
  if (parts.length < 2) return "";
  return parts.reduce((best, part) => (part.weight > best.weight ? part : best)).label;
}

/** Write a search into the part of the address behind `#`. Uploaded files live in the service only and are left out. */
export function toAddress(asked: Asked): string {
  const out = new URLSearchParams();
  for (const part of asked.parts) {
    const weight = part.weight === 1 ? "" : String(part.weight);
    if (part.kind === "text") out.append("t", `${weight}|${part.label}`);
    if (part.kind === "item") out.append("i", `${weight}|${part.gallery}|${part.id}`);
  }
  for (const name of asked.galleries) out.append("g", name);
  if (asked.filter) out.set("f", asked.filter);
  if (asked.k !== NOTHING.k) out.set("k", String(asked.k));
  if (asked.view !== NOTHING.view) out.set("view", asked.view);
  return out.toString();
}

/** Read a search back from an address; what does not fit is passed over. */
export function fromAddress(address: string): Asked {
  const given = new URLSearchParams(address.replace(/^#/, ""));
  const parts: Part[] = [];
  const weightOf = (text: string): number => {
    const value = text === "" ? 1 : Number(text);
    return Number.isFinite(value) && value !== 0 ? Math.max(-2, Math.min(2, value)) : 1;
  };
  for (const [name, value] of given) {
    const [weight, first, ...rest] = value.split("|");
    if (name === "t" && first !== undefined) {
      const label = [first, ...rest].join("|");
      if (label) parts.push({ key: newKey(), kind: "text", label, modality: "text", weight: weightOf(weight) });
    }
    if (name === "i" && first && rest.length) {
      const id = rest.join("|");
      const modality = first.split("/").pop() ?? "";
      parts.push({ key: newKey(), kind: "item", label: id, modality, weight: weightOf(weight), gallery: first, id });
    }
  }
  const k = Number(given.get("k"));
  return {
    parts,
    galleries: given.getAll("g"),
    filter: given.get("f") ?? "",
    k: Number.isInteger(k) && k >= 1 && k <= 500 ? k : NOTHING.k,
    view: given.get("view") === "map" ? "map" : "search",
  };
}

const SUFFIXES: Record<string, string> = {
  png: "image", jpg: "image", jpeg: "image", webp: "image", gif: "image", bmp: "image", tif: "image", tiff: "image",
  wav: "audio", flac: "audio", mp3: "audio", ogg: "audio", opus: "audio", m4a: "audio", aac: "audio", aiff: "audio",
  ply: "point_cloud", obj: "point_cloud", stl: "point_cloud", off: "point_cloud", glb: "point_cloud",
  npy: "point_cloud", npz: "point_cloud",
  mp4: "video", mov: "video", webm: "video", mkv: "video", avi: "video",
};

/** Modality of a file by its name, among those that the service can embed; a video is taken for its sound or picture. */
export function modalityOf(name: string, known: string[]): string | null {
  const found = SUFFIXES[name.split(".").pop()?.toLowerCase() ?? ""];
  if (!found) return null;
  if (known.includes(found)) return found;
  if (found === "video") return ["audio", "image"].find((each) => known.includes(each)) ?? null;
  return null;
}

export const WORDS: Record<string, [string, string]> = {
  text: ["text", "Texts"], image: ["picture", "Pictures"], audio: ["sound", "Sounds"],
  point_cloud: ["3D shape", "3D shapes"], video: ["video", "Videos"],
};
export const one = (modality: string): string => WORDS[modality]?.[0] ?? modality;
export const many = (modality: string): string => WORDS[modality]?.[1] ?? modality;
