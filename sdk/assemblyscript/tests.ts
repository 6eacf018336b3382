// Tests of the SDK that need no host: make -C sdk/assemblyscript test. Each
// exported function test... runs on an instance of its own; tests.mjs passes bytes
// to preferred.
import {
  alloc as room, AnyString, decode, encode, Entry, fail, failed, Fields, heartbeat, Id, Items, Kind, Level, log, Raw,
  Reader, Span, test, Value, Writer,
} from "./wasm_jobs";

export function alloc(size: usize): usize { return room(size); }

class Item {
  name: string = "";
  size: u8 = 7;
  site: string | null = null;
  celsius: f64 = 0;
  fields(f: Fields): void {
    this.name = f.field("name", this.name);
    this.size = f.optional("size", this.size);
    this.site = f.optional("site", this.site);
    this.celsius = f.field("temp-c", this.celsius);
  }
}

class Chunk {
  id: Id = new Id();
  items: Array<Item> = [];
  limits: Map<string, i8> = new Map();
  fields(f: Fields): void {
    this.id = f.field("id", this.id);
    this.items = f.field("items", this.items);
    this.limits = f.field("limits", this.limits);
  }
}

function unhex(text: string): Uint8Array {
  const digits = text.replaceAll(" ", "");
  const bytes = new Uint8Array(digits.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = u8(parseInt(digits.substr(2 * i, 2), 16));
  return bytes;
}

function hex(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i++) text += (bytes[i] >> 4).toString(16) + (bytes[i] & 15).toString(16);
  return text;
}

// The result of reading an item as a type and writing it, or the error.
function again<T>(item: string): string {
  const r = Reader.of(unhex(item));
  const value = decode<T>(r);
  r.finish();
  if (!r.ok) return r.message("");
  return written<T>(value);
}

function written<T>(value: T): string {
  const w = new Writer();
  encode<T>(value, w);
  return hex(w.span().copy());
}

function same(got: string, want: string): void {
  assert(got == want, "got " + got + ", want " + want);
}

function nothingOf(chunk: Chunk): void {}

function reason(item: string): string {
  const f = test<Chunk, void>("exec", nothingOf, unhex(item)).failure;
  return f === null ? "" : f.message;
}

const FULL = "a3 626964 6178 656974656d73 82 a3 646e616d65 6161 6473697a65 03 6674656d702d63 f93e00 a3 646e616d65 6161 6473697a65 07 6674656d702d63 f93e00 666c696d697473 a2 6162 20 626161 02";

export function testFieldsGoBothWays(): void {
  same(again<Chunk>(FULL), FULL.replaceAll(" ", ""));
  const item = new Item();
  item.name = "a";
  item.site = "x";
  same(written(item), "a4646e616d656161647369746561786473697a65076674656d702d63f90000");
}

export function testErrorsSayWhere(): void {
  same(reason("01"), "chunk: want a map, got an unsigned integer");
  same(reason("a0"), "chunk.id: missing");
  same(reason("a1 626964 20"), "chunk.id: want an unsigned integer or a text, got a negative integer");
  same(reason("a2 626964 00 626964 00"), "chunk.id: duplicate key");
  same(reason("a2 626964 00 656974656d73 82 a2 646e616d65 60 6674656d702d63 00 a0"), "chunk.items[1].name: missing");
  same(reason("a2 626964 00 656974656d73 81 a2 646e616d65 60 6674656d702d63 6178"), "chunk.items[0].temp-c: want a float, got a text");
  same(reason("a2 626964 00 656974656d73 81 a2 646e616d65 60 6473697a65 190100"), "chunk.items[0].size: 256 does not fit u8");
  same(reason("a3 626964 00 656974656d73 80 666c696d697473 a2 6161 00 6161 00"), "chunk.limits.a: duplicate key");
  same(reason("a3 626964 00 656974656d73 80 666c696d697473 a1 6161 38ff"), "chunk.limits.a: -256 does not fit i8");
  same(reason("a3 626964 00 656974656d73 80 666c696d697473 a1 01 38ff"), "chunk.limits.(key): want a text, got an unsigned integer");
  same(reason("a1 626964 61ff"), "chunk.id: text that is not UTF-8");
  same(reason("a3 626964 00 656974656d73 80 666c696d697473 a0 00"), "chunk: more bytes follow the item (byte 20)");
  same(reason("a3 626964 00"), "chunk: malformed CBOR: truncated (byte 1)");
}

export function testOtherKeysAreSkipped(): void {
  const item = "bf 01 9f820102ff 6161 a1c10203 646e616d65 7f6161ff 6674656d702d63 fb3ff8000000000000 ff";
  same(again<Item>(item), "a3646e616d6561616473697a65076674656d702d63f93e00");
}

export function testIntegersFitOrFail(): void {
  same(again<u8>("18ff"), "18ff");
  same(again<u8>("190100"), "256 does not fit u8");
  same(again<i8>("387f"), "387f");
  same(again<i8>("3880"), "-129 does not fit i8");
  same(again<i64>("3b7fffffffffffffff"), "3b7fffffffffffffff");
  same(again<i64>("3b8000000000000000"), "-9223372036854775809 does not fit i64");
  same(again<i64>("3bffffffffffffffff"), "-1 - 18446744073709551615 does not fit i64");
  same(again<u64>("1bffffffffffffffff"), "1bffffffffffffffff");
  same(again<i64>("1b8000000000000000"), "9223372036854775808 does not fit i64");
  same(again<u64>("20"), "-1 does not fit u64");
  same(again<u32>("f93c00"), "want an integer, got a float");
  same(again<i32>("1b0000000000000017"), "17");
  same(again<i32>("3a7fffffff"), "3a7fffffff");
}

export function testFloatsAreExactOrFail(): void {
  same(again<f64>("1b0020000000000000"), "fa5a000000");
  same(again<f64>("1b0020000000000001"), "9007199254740993 does not fit f64");
  same(again<f64>("1bffffffffffffffff"), "18446744073709551615 does not fit f64");
  same(again<f64>("29"), "f9c900");
  same(again<f32>("fb3ff199999999999a"), "1.1 does not fit f32");
  same(again<f32>("f97e01"), "f97e00");
  same(again<f64>("f4"), "want a float, got a boolean");
}

export function testNullAndStrings(): void {
  same(again<string | null>("f7"), "f6");
  same(again<string | null>("6161"), "6161");
  same(again<bool>("f5"), "f5");
  same(again<bool>("f6"), "want a boolean, got null");
  same(again<string>("7f 6161 60 6162 ff"), "626162");
  same(again<string>("64f0908591"), "64f0908591");
  same(again<string>("4161"), "want a text, got a byte string");
  same(again<Uint8Array>("5f 4101 ff"), "4101");
  same(again<AnyString>("61ff"), "41ff");
  same(again<AnyString>("01"), "want a text or byte string, got an unsigned integer");
}

export function testTextIsUTF8(): void {
  const bad = ["80", "c0af", "c328", "e08080", "eda080", "edbfbf", "f0808080", "f4908080", "f5808080", "e6b0", "ff"];
  for (let i = 0; i < bad.length; i++) {
    same(again<string>((0x60 + bad[i].length / 2).toString(16) + bad[i]), "text that is not UTF-8");
  }
}

export function testMapsAreWrittenInOrder(): void {
  same(again<Map<i64, u8>>("a3 2001 186403 0a02"), "a30a021864032001");
  same(again<Map<string, string>>("a3 626161 60 6162 60 60 60"), "a3606061626062616160");
}

function sum(outputs: Items<Entry<u32>>): u32 {
  let total: u32 = 0;
  while (outputs.next()) total += outputs.value.output;
  return total;
}

export function testOutputsOneByOne(): void {
  same(hex(test("aggregate", sum, unhex("82 820004 82616109")).output), "0d");
  same(hex(test("aggregate", sum, unhex("9f 820004 9f616109ff ff")).output), "0d");
  same(hex(test("aggregate", sum, unhex("80")).output), "00");
  same(test("aggregate", sum, unhex("83 820004 8201f6 820201")).failure!.message, "outputs[1][1]: want an integer, got null");
  same(test("aggregate", sum, unhex("81 8104")).failure!.message, "outputs[0]: want an array of 2");
}

function fields(chunk: Raw): string | null {
  const text = chunk.tryField<string>("a");
  return text === null ? chunk.tryAs<string>() : text;
}

export function testFieldsOfRawItems(): void {
  same(hex(test("exec", fields, unhex("a2 6161 6178 6162 02")).output), "6178");
  same(hex(test("exec", fields, unhex("6179")).output), "6179");
  same(hex(test("exec", fields, unhex("a2 6161 6178 6161 6178")).output), "f6");
  same(hex(test("exec", fields, unhex("a1 6161 01")).output), "f6");
}

function refuse(n: u8): f64 {
  fail<void>("first", Kind.Retryable);
  assert(failed());
  return fail<f64>("second");
}

function work(n: u8): bool {
  log(Level.Warn, "näin");
  return heartbeat();
}

export function testFailuresAndTheHost(): void {
  const f = test("exec", refuse, unhex("01")).failure!;
  same(f.message, "first");
  assert(f.kind == Kind.Retryable);
  same(hex(test("exec", work, unhex("01")).output), "f5");
  same(test("merge", work, unhex("20")).failure!.message, "partials: -1 does not fit u8");
  same(test("exec", work, unhex("0101")).failure!.message, "chunk: more bytes follow the item (byte 1)");
}

function nested(open: string, levels: i32, close: string): string {
  return again<Value>(open.repeat(levels) + "00" + close.repeat(levels));
}

export function testNestingIsBounded(): void {
  const opens = ["81", "9f", "c1", "a100", "a1"], closes = ["", "ff", "", "", "00"];
  for (let i = 0; i < opens.length; i++) {
    assert(!nested(opens[i], 258, closes[i]).includes("malformed"), opens[i]);
    assert(nested(opens[i], 259, closes[i]).includes("malformed CBOR: nested deeper than 258 levels"), opens[i]);
    assert(nested(opens[i], 100000, closes[i]).includes("malformed CBOR: nested deeper than 258 levels"), opens[i]);
  }
}

export function testCollectionsLeaveWhatIsInUse(): void {
  for (let i = 0; i < 200; i++) {
    const r = Reader.of(unhex(FULL));
    const chunk = decode<Chunk>(r);
    __collect();
    same(written(chunk), FULL.replaceAll(" ", ""));
    const value = decode<Value>(Reader.of(unhex(FULL)));
    __collect();
    same(written(value), FULL.replaceAll(" ", ""));
  }
}

/** The preferred form of an item; 0 = it is not an item. Reads it in all other ways too. */
export function preferred(at: usize, size: usize): u64 {
  const r = new Reader(at, size);
  const value = decode<Value>(r);
  r.finish();
  const skipped = new Reader(at, size);
  skipped.skip();
  skipped.finish();
  assert(skipped.ok || !r.ok, "skipping fails where reading does not");
  const bytes = new Span(at, size).copy();
  test<Chunk, void>("exec", nothingOf, bytes);
  test("aggregate", sum, bytes);
  if (!r.ok) return 0;
  const w = new Writer();
  value.encode(w);
  return u64(w.start) << 32 | w.size;
}
