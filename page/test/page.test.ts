import { describe, expect, it } from "vitest";
import { inside } from "../src/map";
import { peaksOf, pointsOf } from "../src/media";
import { fromAddress, heaviest, modalityOf, NOTHING, toAddress, toQueries } from "../src/state";

describe("the address", () => {
  it("gives a search back", () => {
    const address = "t=|a dog | at night&i=-1|picture/image|a|b.png&g=sound/audio&f=year > 2010&k=24&view=map";
    const asked = fromAddress(`#${address}`);
    expect(asked.parts.map(({ label, weight }) => [label, weight])).toEqual([["a dog | at night", 1], ["a|b.png", -1]]);
    expect(fromAddress(toAddress(asked)).parts.map((part) => ({ ...part, key: 0 }))).toEqual(
      asked.parts.map((part) => ({ ...part, key: 0 })),
    );
    expect([asked.galleries, asked.filter, asked.k, asked.view]).toEqual([["sound/audio"], "year > 2010", 24, "map"]);
  });
  it("passes over what does not fit", () => {
    expect(fromAddress("#k=-3&view=other&i=x&t=")).toEqual(NOTHING);
    expect(fromAddress("#t=NaN|dog&t=99|cat").parts.map((part) => part.weight)).toEqual([1, 2]);
  });
  it("leaves uploaded files out", () => {
    const part = { key: 1, kind: "file" as const, label: "dog.wav", modality: "audio", weight: 1, handle: "h" };
    expect(toAddress({ ...NOTHING, parts: [part] })).toBe("");
    expect(toQueries([part])).toEqual([{ handle: "h", weight: 1 }]);
  });
});

it("a match is explained by the part that weighs most, the first of equal ones", () => {
  const parts = fromAddress("#t=|dog&t=-1|cat&t=2|night&t=2|day").parts;
  expect([heaviest(parts), heaviest(parts.slice(0, 1)), heaviest(parts.slice(0, 2))]).toEqual(["night", "", "dog"]);
});

describe("files", () => {
  it("are told by their name among what can be embedded", () => {
    expect(modalityOf("A.PNG", ["text", "image"])).toBe("image");
    expect(modalityOf("a.wav", ["text", "image"])).toBeNull();
    expect(modalityOf("a.mp4", ["audio"])).toBe("audio");
    expect(modalityOf("noname", ["audio"])).toBeNull();
  });
});

describe("decoding", () => {
  it("finds the peaks of a sound", () => {
    const data = new DataView(new ArrayBuffer(44 + 8));
    [0, -32768, 16384, 0].forEach((value, i) => data.setInt16(44 + 2 * i, value, true));
    expect(peaksOf(data, 2)).toEqual([1, 0.5]);
    expect(peaksOf(new DataView(new ArrayBuffer(10)), 2)).toEqual([]);
  });
  it("reads points", () => {
    const data = new ArrayBuffer(4 + 15);
    const view = new DataView(data);
    view.setUint32(0, 1, true);
    view.setFloat32(8, 0.5, true);
    view.setUint8(17, 200);
    const cloud = pointsOf(data);
    expect([[...cloud.xyz], [...cloud.rgb]]).toEqual([[0, 0.5, 0], [0, 200, 0]]);
  });
});

it("a loop holds what is inside it", () => {
  const square: [number, number][] = [[0, 0], [1, 0], [1, 1], [0, 1]];
  expect([inside([0.5, 0.5], square), inside([1.5, 0.5], square)]).toEqual([true, false]);
});
