/** How items are seen and heard: pictures, sounds with their waveform, shapes that turn, texts as lines. */

import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";

/** The bytes of an item, asked for when it comes near the screen. */
function useMedia(gallery: string, id: string, element: { current: HTMLElement | null }): Blob | "none" | null {
  const [blob, setBlob] = useState<Blob | "none" | null>(null);
  useEffect(() => {
    let here = true;
    setBlob(null);
    const watcher = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      watcher.disconnect();
      api.media(gallery, id).then((found) => here && setBlob(found), () => here && setBlob("none"));
    }, { rootMargin: "200px" });
    if (element.current) watcher.observe(element.current);
    return () => { here = false; watcher.disconnect(); };
  }, [gallery, id]);
  return blob;
}

function useAddress(blob: Blob | "none" | null): string | null {
  const [address, setAddress] = useState<string | null>(null);
  useEffect(() => {
    if (!(blob instanceof Blob)) { setAddress(null); return; }
    const made = URL.createObjectURL(blob);
    setAddress(made);
    // An element that is on its way out may still ask for it: it is let go when nobody can.
    return () => void setTimeout(() => URL.revokeObjectURL(made), 10_000);
  }, [blob]);
  return address;
}

export function Picture({ gallery, id }: { gallery: string; id: string }) {
  const box = useRef<HTMLDivElement>(null);
  const blob = useMedia(gallery, id, box);
  const address = useAddress(blob);
  return (
    <div class="media" ref={box}>
      {address ? <img src={address} alt={`picture ${id}`} /> : <Missing blob={blob} id={id} />}
    </div>
  );
}

function Missing({ blob, id }: { blob: Blob | "none" | null; id: string }) {
  return <div class="missing">{blob === "none" ? id : ""}</div>;
}

let playing: HTMLAudioElement | null = null;

export function Sound({ gallery, id }: { gallery: string; id: string }) {
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const audio = useRef<HTMLAudioElement>(null);
  const [on, setOn] = useState(false);
  const [share, setShare] = useState(0);
  const blob = useMedia(gallery, id, box);
  const address = useAddress(blob);
  const [peaks, setPeaks] = useState<number[]>([]);
  useEffect(() => {
    if (blob instanceof Blob) blob.arrayBuffer().then((data) => setPeaks(peaksOf(new DataView(data), 96)));
  }, [blob]);
  useEffect(() => { if (canvas.current) drawWave(canvas.current, peaks, share); }, [peaks, share]);
  const toggle = (event: Event) => {
    event.stopPropagation();
    const player = audio.current;
    if (!player) return;
    if (playing && playing !== player) playing.pause();
    playing = player;
    if (player.paused) void player.play(); else player.pause();
  };
  return (
    <div class={address ? "media sound ready" : "media sound"} ref={box}>
      {blob === "none" ? <Missing blob={blob} id={id} /> : <canvas ref={canvas} width={288} height={96} aria-hidden="true" />}
      {address && (
        <>
          <audio
            ref={audio} src={address} preload="auto"
            onPlay={() => setOn(true)} onPause={() => setOn(false)} onEnded={() => setShare(0)}
            onTimeUpdate={(event) => setShare(event.currentTarget.currentTime / (event.currentTarget.duration || 1))}
          />
          <button type="button" class="play" onClick={toggle} aria-label={`${on ? "Pause" : "Play"} sound ${id}`}>
            {on ? "❚❚" : "▶"}
          </button>
        </>
      )}
    </div>
  );
}

/** Largest swing of each of `count` stretches of a 16-bit mono wav with the plain 44-byte header. */
export function peaksOf(wav: DataView, count: number): number[] {
  const samples = Math.max(0, Math.floor((wav.byteLength - 44) / 2));
  if (!samples) return [];
  return Array.from({ length: count }, (_, part) => {
    let peak = 0;
    const end = Math.floor(((part + 1) * samples) / count);
    for (let i = Math.floor((part * samples) / count); i < end; i++) {
      peak = Math.max(peak, Math.abs(wav.getInt16(44 + 2 * i, true)) / 32768);
    }
    return peak;
  });
}

function drawWave(canvas: HTMLCanvasElement, peaks: number[], share: number): void {
  const pen = canvas.getContext("2d");
  if (!pen) return;
  const style = getComputedStyle(canvas);
  const { width, height } = canvas;
  pen.clearRect(0, 0, width, height);
  const top = Math.max(0.05, ...peaks);
  peaks.forEach((peak, i) => {
    const tall = Math.max(2, (peak / top) * (height - 12));
    pen.fillStyle = i / peaks.length < share ? style.getPropertyValue("--accent") : style.getPropertyValue("--faint");
    pen.fillRect((i * width) / peaks.length, (height - tall) / 2, width / peaks.length - 1, tall);
  });
}

export function Shape({ gallery, id }: { gallery: string; id: string }) {
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const blob = useMedia(gallery, id, box);
  useEffect(() => {
    if (!(blob instanceof Blob)) return;
    let frame = 0;
    let here = true;
    let angle = 0.6;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    blob.arrayBuffer().then((data) => {
      const cloud = pointsOf(data);
      const turn = () => {
        if (!here || !canvas.current) return;
        drawCloud(canvas.current, cloud, angle);
        angle += 0.012;
        // Only what is on the screen turns.
        if (!still) frame = requestAnimationFrame(turn);
      };
      turn();
    });
    return () => { here = false; cancelAnimationFrame(frame); };
  }, [blob]);
  return (
    <div class="media" ref={box}>
      {blob === "none" ? <Missing blob={blob} id={id} />
        : <canvas ref={canvas} width={240} height={240} role="img" aria-label={`3D shape ${id}, turning`} />}
    </div>
  );
}

export interface Cloud { xyz: Float32Array; rgb: Uint8Array; radius: number }

/** The service's form of a shape: a count, float32 xyz, bytes rgb. */
export function pointsOf(data: ArrayBuffer): Cloud {
  const count = new DataView(data).getUint32(0, true);
  const xyz = new Float32Array(data, 4, 3 * count);
  let radius = 1e-9;
  for (let i = 0; i < count; i++) radius = Math.max(radius, Math.hypot(xyz[3 * i], xyz[3 * i + 1], xyz[3 * i + 2]));
  return { xyz, rgb: new Uint8Array(data, 4 + 12 * count, 3 * count), radius };
}

function drawCloud(canvas: HTMLCanvasElement, { xyz, rgb, radius }: Cloud, angle: number): void {
  const pen = canvas.getContext("2d");
  if (!pen) return;
  const { width, height } = canvas;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const scale = (0.47 * Math.min(width, height)) / radius;
  const [cos, sin, tilt] = [Math.cos(angle), Math.sin(angle), 0.35];
  const order = Array.from({ length: xyz.length / 3 }, (_, i) => {
    const [x, y, z] = [xyz[3 * i], xyz[3 * i + 1], xyz[3 * i + 2]];
    const depth = -x * sin + z * cos;
    return [x * cos + z * sin, y * Math.cos(tilt) - depth * Math.sin(tilt), depth * Math.cos(tilt) + y * Math.sin(tilt), i];
  }).sort((a, b) => a[2] - b[2]);
  pen.clearRect(0, 0, width, height);
  for (const [x, y, depth, i] of order) {
    const near = (depth / radius + 1) / 2;
    const plain = rgb[3 * i] === rgb[3 * i + 1] && rgb[3 * i] === rgb[3 * i + 2];
    const light = dark ? 40 + 45 * near : 70 - 45 * near;
    pen.fillStyle = plain ? `hsl(172 45% ${light}%)` : `rgb(${rgb[3 * i]} ${rgb[3 * i + 1]} ${rgb[3 * i + 2]})`;
    const size = 1.4 + 1.6 * near;
    pen.fillRect(width / 2 + x * scale - size / 2, height / 2 - y * scale - size / 2, size, size);
  }
}

/** An item as its modality is shown. */
export function Media({ gallery, modality, id, text }: { gallery: string; modality: string; id: string; text?: string }) {
  if (modality === "image" || modality === "video") return <Picture gallery={gallery} id={id} />;
  if (modality === "audio") return <Sound gallery={gallery} id={id} />;
  if (modality === "point_cloud") return <Shape gallery={gallery} id={id} />;
  return <p class="line">{text ?? id}</p>;
}
