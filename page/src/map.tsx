/** A map of the space in two dimensions: hover tells, a drawn loop lists, a click searches. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { many } from "./state";

const COLOURS = ["#0f7b6c", "#c2410c", "#4f46e5", "#a16207", "#be185d", "#0369a1", "#4d7c0f", "#7e22ce", "#57534e", "#b91c1c"];

/** The same, brighter: for a dark ground. */
const BRIGHT = ["#4cc9b0", "#fb923c", "#a5a0ff", "#facc15", "#f472b6", "#38bdf8", "#a3e635", "#d8b4fe", "#d6d3d1", "#f87171"];
const colours = (): string[] => (matchMedia("(prefers-color-scheme: dark)").matches ? BRIGHT : COLOURS);

interface Props {
  known: api.Spaces;
  onPick: (gallery: string, modality: string, id: string, label: string) => void;
}

type Point = [number, number];

export function MapView({ known, onPick }: Props) {
  const [data, setData] = useState<api.MapData | null>(null);
  const [fault, setFault] = useState("");
  const [by, setBy] = useState("");
  const [hover, setHover] = useState<{ index: number; x: number; y: number } | null>(null);
  const [loop, setLoop] = useState<Point[]>([]);
  const [chosen, setChosen] = useState<number[]>([]);
  const canvas = useRef<HTMLCanvasElement>(null);
  const drawing = useRef(false);

  useEffect(() => { api.map().then(setData, (error: Error) => setFault(error.message)); }, []);
  const groups = useMemo(() => (data ? groupsOf(data, known, by) : null), [data, by]);
  useEffect(() => {
    if (!data || !groups || !canvas.current) return;
    const paint = () => draw(canvas.current!, data, groups.of, new Set(chosen), loop);
    paint();
    const watcher = new ResizeObserver(paint);
    watcher.observe(canvas.current);
    return () => watcher.disconnect();
  }, [data, groups, chosen, loop]);

  if (fault) return <p class="fault" role="alert">{fault}</p>;
  if (!data || !groups) return <p class="quiet" role="status">Laying out the map…</p>;
  const modalityOf = (index: number) => known.galleries.find((each) => each.name === data.galleries[data.gallery[index]])?.modality ?? "";
  const nameOf = (index: number) => String(data.columns.text?.[index] ?? data.ids[index]);
  const pick = (index: number) => onPick(data.galleries[data.gallery[index]], modalityOf(index), data.ids[index], nameOf(index));
  const at = (event: PointerEvent): Point => {
    const box = canvas.current!.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const nearest = ([x, y]: Point): number => {
    const box = canvas.current!.getBoundingClientRect();
    let [best, least] = [-1, 12 ** 2];
    for (let i = 0; i < data.ids.length; i++) {
      const far = ((data.x[i] - x) * box.width) ** 2 + ((data.y[i] - y) * box.height) ** 2;
      if (far < least) [best, least] = [i, far];
    }
    return best;
  };
  const down = (event: PointerEvent) => { drawing.current = true; canvas.current!.setPointerCapture(event.pointerId); setLoop([at(event)]); };
  const move = (event: PointerEvent) => {
    const point = at(event);
    if (drawing.current) { setLoop([...loop, point]); return; }
    const index = nearest(point);
    setHover(index < 0 ? null : { index, x: point[0], y: point[1] });
  };
  const up = (event: PointerEvent) => {
    drawing.current = false;
    const path = [...loop, at(event)];
    setLoop([]);
    if (length(path) < 0.03) {
      const index = nearest(path[0]);
      if (index >= 0) pick(index);
    } else setChosen(data.ids.map((_, i) => i).filter((i) => inside([data.x[i], data.y[i]], path)));
  };
  const columns = Object.keys(data.columns).filter((name) => name !== "text");
  return (
    <div class="map">
      <div class="mapbar">
        <label>Colour by
          <select value={by} onChange={(event) => setBy(event.currentTarget.value)}>
            <option value="">modality</option>
            {columns.map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        </label>
        <ul class="legend">
          {groups.names.map((name, i) => <li key={name}><i style={{ background: colours()[i % COLOURS.length] }} />{name}</li>)}
        </ul>
      </div>
      <div class="canvas">
        <canvas ref={canvas} role="img" onPointerDown={down} onPointerMove={move} onPointerUp={up} onPointerLeave={() => setHover(null)}
          aria-label={`Map of ${data.ids.length} items. Items near each other mean alike. Draw a loop to list items.`} />
        {hover && (
          <div class="tip" style={{ left: `${hover.x * 100}%`, top: `${hover.y * 100}%` }}>
            {nameOf(hover.index)}<small>{data.galleries[data.gallery[hover.index]]}</small>
          </div>
        )}
      </div>
      <p class="quiet">Items near each other mean alike. Click one to search by it; draw a loop to list what is inside.
        Cosines count by the pair of modalities that they are of, so that none is an island; distances between far groups say little.</p>
      {chosen.length > 0 && (
        <section aria-label="Items inside the loop">
          <h2>{chosen.length} inside <button type="button" onClick={() => setChosen([])}>Clear</button></h2>
          <ul class="inside">
            {chosen.slice(0, 200).map((index) => (
              <li key={index}><button type="button" onClick={() => pick(index)}>{nameOf(index)}</button></li>
            ))}
          </ul>
        </section>
      )}
    </div>
  );
}

interface Groups { names: string[]; of: number[] }

/** The group of every item: its modality, or its value in a column (the nine commonest, the rest together). */
function groupsOf(data: api.MapData, known: api.Spaces, by: string): Groups {
  const values = data.ids.map((_, i) => {
    if (by) return String(data.columns[by][i] ?? "none");
    const gallery = data.galleries[data.gallery[i]];
    return many(known.galleries.find((each) => each.name === gallery)?.modality ?? gallery);
  });
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const names = [...counts].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  if (names.length > COLOURS.length) names.splice(COLOURS.length - 1, names.length, "other");
  const place = new Map(names.map((name, i) => [name, i]));
  return { names, of: values.map((value) => place.get(value) ?? names.length - 1) };
}

const length = (path: Point[]): number =>
  path.slice(1).reduce((sum, point, i) => sum + Math.hypot(point[0] - path[i][0], point[1] - path[i][1]), 0);

/** Whether a point lies inside a closed path (even-odd rule). */
export function inside([x, y]: Point, path: Point[]): boolean {
  let within = false;
  for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
    const [[ax, ay], [bx, by]] = [path[i], path[j]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  }
  return within;
}

function draw(canvas: HTMLCanvasElement, data: api.MapData, group: number[], chosen: Set<number>, loop: Point[]): void {
  const box = canvas.getBoundingClientRect();
  const scale = window.devicePixelRatio || 1;
  canvas.width = box.width * scale;
  canvas.height = box.height * scale;
  const pen = canvas.getContext("2d")!;
  pen.scale(scale, scale);
  const paints = colours();
  for (let i = 0; i < data.ids.length; i++) {
    pen.globalAlpha = chosen.size && !chosen.has(i) ? 0.15 : 0.75;
    pen.fillStyle = paints[group[i] % paints.length];
    pen.beginPath();
    pen.arc(data.x[i] * box.width, data.y[i] * box.height, chosen.has(i) ? 5 : 3.5, 0, 7);
    pen.fill();
  }
  if (loop.length > 1) {
    pen.globalAlpha = 1;
    pen.strokeStyle = getComputedStyle(canvas).color;
    pen.setLineDash([4, 4]);
    pen.beginPath();
    loop.forEach(([x, y], i) => (i ? pen.lineTo(x * box.width, y * box.height) : pen.moveTo(x * box.width, y * box.height)));
    pen.stroke();
  }
}
