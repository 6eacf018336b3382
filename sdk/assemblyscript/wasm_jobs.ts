// The SDK for guests in AssemblyScript, for version 1 of the guest ABI: typed
// handlers, CBOR (RFC 8949), failures, logging and heartbeats.
//
// Copy this file next to yours. A guest exports `alloc`, and passes the arguments
// of its exports to its handlers:
//
//     import { run } from "./wasm_jobs";
//     export { alloc } from "./wasm_jobs";
//
//     export function exec(at: usize, size: usize): u64 { return run("exec", square, at, size); }
//
//     function square(n: u32): u64 { return u64(n) * n; }
//
// An input that does not fit the type of the handler makes the call fail
// permanently, with a message that names the place: `chunk.items[2].name: missing`.
// AssemblyScript has no exceptions, so a failure is recorded: everything read after
// it is empty, and the result of the handler is ignored.
//
// Everything that a handler keeps in memory is gone before the next call. Only
// globals that the handler of `setup` sets stay.

// Failures.

/** How the host treats a failed call. */
export enum Kind {
  /** No other attempt could succeed. */
  Permanent = 0,
  /** Another attempt may succeed; it is counted. */
  Retryable = 1,
  /** Try again later, without counting a failure; at most 100 times for a chunk. */
  Requeue = 2,
}

/** Why a call failed. */
export class Failure {
  constructor(public kind: Kind, public message: string) {}
}

// Of the current call; the first failure counts.
let failure: Failure | null = null;

/**
 * Makes the current call fail, and returns a value that the handler can return:
 * `return fail<f64>("no readings")`. The host cuts the message at 4 KiB.
 */
export function fail<T>(message: string, kind: Kind = Kind.Permanent): T {
  if (failure === null) failure = new Failure(kind, message);
  return nothing<T>();
}

/** Reports whether the current call has failed. */
export function failed(): bool {
  return failure !== null;
}

// The zero of a type, for a value that is not used.
// @ts-ignore: decorator
@inline
function nothing<T>(): T {
  if (isVoid<T>()) return;
  // @ts-ignore: cast
  if (!isReference<T>()) return <T>0;
  return changetype<T>(0);
}

// Reading.

const UINT: u8 = 0;
const NEGINT: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const UNDEFINED: u8 = 0xf7;
const HALF: u8 = 0xf9;
const SINGLE: u8 = 0xfa;
const DOUBLE: u8 = 0xfb;
const BREAK: u8 = 0xff;

// How deep arrays, maps and tags may nest: the host's limit for an output, plus the
// two arrays around it in the input of `aggregate`.
const MAX_DEPTH: i32 = 258;

// The number of elements left in an array or map that ends with a break.
const OPEN: u64 = u64.MAX_VALUE;

/**
 * Reads items one after another. It never reads past the end and never trusts a
 * length. It keeps the first error; every item after it is empty.
 */
export class Reader {
  at: usize;
  end: usize;
  depth: i32 = 0;
  error: string | null = null; // the reason
  path: string = ""; // the place, as in ".items[2].name"

  // Of the last head.
  major: u8 = 0;
  arg: u64 = 0; // value, length, count, tag or bits
  indefinite: bool = false; // a string, array or map that ends with a break

  private start: usize;

  // The bytes must stay in place while the reader is used; owner keeps them.
  constructor(start: usize, size: usize, private owner: Uint8Array | null = null) {
    this.at = this.start = start;
    this.end = start + size;
  }

  static of(bytes: Uint8Array): Reader {
    return new Reader(bytes.dataStart, bytes.length, bytes);
  }

  get ok(): bool {
    return this.error === null;
  }

  /** Sets the error, unless there is one already. */
  fail(what: string): void {
    if (this.error === null) this.error = what;
  }

  /** Adds to the error, if there is one, that it is in the value of a key. */
  inKey(key: string): void {
    if (this.error !== null) this.path = "." + key + this.path;
  }

  /** Adds to the error, if there is one, that it is in an element of an array. */
  inIndex(index: i32): void {
    if (this.error !== null) this.path = "[" + index.toString() + "]" + this.path;
  }

  private malformed(what: string): bool {
    this.fail("malformed CBOR: " + what + " (byte " + (this.at - this.start).toString() + ")");
    return false;
  }

  /** An error with the kind of the next item, and the wanted one. */
  want(what: string): void {
    const first = this.peek();
    this.fail("want " + what + ", got " + kindOf(first));
  }

  /** The next byte. If there is none, that is an error, and it is a break. */
  peek(): u8 {
    if (this.error !== null) return BREAK;
    if (this.at < this.end) return load<u8>(this.at);
    this.malformed("truncated");
    return BREAK;
  }

  /** Skips bytes and returns their address; 0 = there are not so many. */
  take(size: u64): usize {
    if (this.error !== null) return 0;
    if (size > u64(this.end - this.at)) {
      this.malformed("truncated");
      return 0;
    }
    const from = this.at;
    this.at += usize(size);
    return from;
  }

  /** Reads a head; false = there is none. */
  head(): bool {
    const first = this.peek();
    if (this.error !== null) return false;
    const info = first & 31;
    this.major = first >> 5;
    this.arg = info;
    this.indefinite = info == 31;
    if (info > 27 && info < 31) return this.malformed("reserved additional information");
    if (this.indefinite && (this.major < BYTES || this.major > MAP)) {
      return this.malformed(this.major == SIMPLE ? "break outside an item of indefinite length" : "indefinite length");
    }
    this.at++;
    if (info < 24 || this.indefinite) return true;
    const width = 1 << (info - 24);
    const from = this.take(width);
    if (from == 0) return false;
    this.arg = 0;
    for (let i = 0; i < width; i++) this.arg = this.arg << 8 | load<u8>(from + i);
    if (first == 0xf8 && this.arg < 32) return this.malformed("simple value below 32 in two bytes");
    return true;
  }

  private headOf(major: u8, what: string): bool {
    if (this.peek() >> 5 == major && this.error === null) return this.head();
    this.want(what);
    return false;
  }

  /** Reads a string of a major type; what is the name of the type in messages. */
  private string(major: u8, what: string): Span {
    if (!this.headOf(major, what)) return new Span(0, 0);
    if (!this.indefinite) return new Span(this.take(this.arg), this.error === null ? usize(this.arg) : 0);
    const joined = new Writer();
    while (this.peek() != BREAK) {
      if (!this.head()) break;
      if (this.major != major || this.indefinite) {
        this.malformed("invalid part of a string: want a string of its type");
        break;
      }
      const from = this.take(this.arg);
      if (from != 0) joined.raw(from, usize(this.arg));
    }
    this.take(1);
    return this.error === null ? new Span(joined.start, joined.size) : new Span(0, 0);
  }

  /** The bytes of a byte string. */
  bytes(): Span {
    return this.string(BYTES, "a byte string");
  }

  /** The bytes of a text, which are UTF-8. */
  utf8(): Span {
    const s = this.string(TEXT, "a text");
    if (!isUTF8(s.at, s.size)) this.fail("text that is not UTF-8");
    return s;
  }

  /** The bytes of a text or byte string, without checks. */
  anyString(): Span {
    return this.string(this.peek() >> 5 == TEXT ? TEXT : BYTES, "a text or byte string");
  }

  text(): string {
    const s = this.utf8();
    return this.error === null ? s.text() : "";
  }

  private deeper(): bool {
    return ++this.depth <= MAX_DEPTH || this.malformed("nested deeper than 258 levels");
  }

  private enter(major: u8, what: string): u64 {
    if (!this.headOf(major, what) || !this.deeper()) return 0;
    if (this.indefinite) return OPEN;
    if (this.arg <= u64(this.end - this.at) / (major == MAP ? 2 : 1)) return this.arg;
    this.malformed("truncated");
    return 0;
  }

  /** Enters an array and returns the number of elements left, for `more`. */
  array(): u64 {
    return this.enter(ARRAY, "an array");
  }

  /** Enters a map and returns the number of pairs left, for `more`. */
  map(): u64 {
    return this.enter(MAP, "a map");
  }

  /**
   * Reports whether another element or pair follows; the caller reads or skips it,
   * and subtracts one from left. Leaves the array or map after the last one.
   */
  more(left: u64): bool {
    if (this.error !== null) return false;
    if (left == OPEN ? this.peek() != BREAK : left != 0) return true;
    this.depth--;
    if (left == OPEN) this.take(1);
    return false;
  }

  /** Reads a tag's number; read the tagged item next, and then call untag. */
  tag(): u64 {
    if (!this.headOf(TAG, "a tag")) return 0;
    this.deeper();
    return this.arg;
  }

  untag(): void {
    this.depth--;
  }

  /** Skips one item, with everything inside, and returns its bytes. */
  skip(): Span {
    const from = this.at;
    const major = this.peek() >> 5;
    if (this.error !== null) return new Span(0, 0);
    if (major == ARRAY || major == MAP) {
      for (let left = this.enter(major, ""); this.more(left); left = less(left)) {
        this.skip();
        if (major == MAP) this.skip();
      }
    } else if (major == TAG) {
      this.tag();
      this.skip();
      this.untag();
    } else if (major == BYTES || major == TEXT) {
      this.string(major, "");
    } else {
      this.head();
    }
    return new Span(from, this.error === null ? this.at - from : 0);
  }

  /** Reads an integer between two bounds. */
  signed(least: i64, most: i64, name: string): i64 {
    if (!this.integer()) return 0;
    const value = this.major == UINT ? i64(this.arg) : -1 - i64(this.arg);
    if (this.arg <= u64(i64.MAX_VALUE) && value >= least && value <= most) return value;
    this.unfit(name);
    return 0;
  }

  unsigned(most: u64, name: string): u64 {
    if (!this.integer()) return 0;
    if (this.major == UINT && this.arg <= most) return this.arg;
    this.unfit(name);
    return 0;
  }

  private integer(): bool {
    if (this.peek() >> 5 <= NEGINT) return this.head();
    this.want("an integer");
    return false;
  }

  private unfit(name: string): void {
    let value = this.arg.toString();
    if (this.major == NEGINT) value = this.arg < OPEN ? "-" + (this.arg + 1).toString() : "-1 - " + value;
    this.fail(value + " does not fit " + name);
  }

  /** Reads a float, or an integer that a float can hold exactly. */
  f64(): f64 {
    const first = this.peek();
    if (this.error !== null) return 0;
    if (first >= HALF && first <= DOUBLE) return this.float();
    if (first >> 5 > NEGINT) {
      this.want("a float");
      return 0;
    }
    if (!this.head()) return 0;
    const float = f64(this.arg); // 2^64 for large ones, which is not a u64
    const exact = float < 18446744073709551616.0 && u64(float) == this.arg;
    if (!exact || (this.major == NEGINT && float >= 9007199254740992.0)) this.unfit("f64");
    return this.major == NEGINT ? -1.0 - float : float;
  }

  f32(): f32 {
    const value = this.f64();
    if (value == value && f64(f32(value)) != value) this.fail(value.toString() + " does not fit f32");
    return f32(value);
  }

  private float(): f64 {
    const first = this.peek();
    if (!this.head()) return 0;
    if (first == HALF) return widened(u32(this.arg));
    if (first == SINGLE) return f64(reinterpret<f32>(u32(this.arg)));
    return reinterpret<f64>(this.arg);
  }

  bool(): bool {
    const first = this.peek();
    if (first == TRUE || first == FALSE) this.at++;
    else this.want("a boolean");
    return first == TRUE;
  }

  /** Reads null or undefined, if one of them is next. */
  nullish(): bool {
    const first = this.peek();
    if (first != NULL && first != UNDEFINED) return false;
    this.at++;
    return true;
  }

  /** An error if more bytes follow an item that should be the only one. */
  finish(): void {
    if (this.error === null && this.at < this.end) {
      this.fail("more bytes follow the item (byte " + (this.at - this.start).toString() + ")");
    }
  }

  /** The message of the error; root is the name of the whole item in it. */
  message(root: string): string {
    let place = root + this.path;
    if (place.startsWith(".")) place = place.substring(1);
    const what = this.error;
    return (place.length ? place + ": " : "") + (what === null ? "" : what);
  }
}

/** One element or pair less. */
// @ts-ignore: decorator
@inline
export function less(left: u64): u64 {
  return left == OPEN ? left : left - 1;
}

/** Bytes in memory that their owner keeps. */
export class Span {
  constructor(public at: usize, public size: usize) {}

  text(): string {
    return String.UTF8.decodeUnsafe(this.at, this.size);
  }

  copy(): Uint8Array {
    const bytes = new Uint8Array(i32(this.size));
    memory.copy(bytes.dataStart, this.at, this.size);
    return bytes;
  }

  equals(other: Span): bool {
    return this.size == other.size && memory.compare(this.at, other.at, this.size) == 0;
  }
}

function kindOf(first: u8): string {
  if (first == FALSE || first == TRUE) return "a boolean";
  if (first == NULL) return "null";
  if (first == UNDEFINED) return "undefined";
  if (first >= HALF && first <= DOUBLE) return "a float";
  if (first == BREAK) return "a break";
  switch (first >> 5) {
    case UINT: return "an unsigned integer";
    case NEGINT: return "a negative integer";
    case BYTES: return "a byte string";
    case TEXT: return "a text";
    case ARRAY: return "an array";
    case MAP: return "a map";
    case TAG: return "a tag";
    default: return "a simple value";
  }
}

// The forms of UTF-8 (RFC 3629, section 4): no surrogates, nothing longer than
// needed, nothing above U+10FFFF.
function isUTF8(at: usize, size: usize): bool {
  const end = at + size;
  while (at < end) {
    const first = load<u8>(at++);
    if (first < 0x80) continue;
    if (first < 0xc2 || first > 0xf4) return false;
    const more: usize = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    if (end - at < more) return false;
    const second = load<u8>(at);
    if (first == 0xe0 && second < 0xa0 || first == 0xed && second > 0x9f) return false;
    if (first == 0xf0 && second < 0x90 || first == 0xf4 && second > 0x8f) return false;
    for (let i: usize = 0; i < more; i++) if (load<u8>(at + i) >> 6 != 2) return false;
    at += more;
  }
  return true;
}

// The value of a float of 16 bits (RFC 8949, appendix D).
function widened(half: u32): f64 {
  const exponent = half >> 10 & 31;
  const mantissa = half & 1023;
  let value: f64;
  if (exponent == 0) value = f64(mantissa) * 0.000000059604644775390625; // 2^-24
  else if (exponent == 31) value = mantissa ? NaN : Infinity;
  else value = f64(reinterpret<f32>((exponent + 112) << 23 | mantissa << 13));
  return half >> 15 ? -value : value;
}

// The float of 16 bits with the value of a float of 32 bits; -1 = there is none.
function narrowed(value: f32): i32 {
  const bits = reinterpret<u32>(value);
  const sign = i32(bits >> 16 & 0x8000);
  const exponent = i32(bits >> 23 & 255) - 127;
  const mantissa = i32(bits & 0x7fffff);
  if (exponent == -127) return mantissa ? -1 : sign;
  if (exponent == 128) return mantissa ? -1 : sign | 0x7c00;
  if (exponent >= -14 && exponent <= 15) return mantissa & 0x1fff ? -1 : sign | (exponent + 15) << 10 | mantissa >> 13;
  if (exponent < -24 || exponent > 0) return -1;
  const full = mantissa | 0x800000;
  return full & ((1 << (-1 - exponent)) - 1) ? -1 : sign | full >> (-1 - exponent);
}

// Writing.

/**
 * Writes items one after another, heads and floats in their shortest form. If you
 * write maps by hand, sort their keys.
 */
export class Writer {
  start: usize = 0;
  size: usize = 0;
  private capacity: usize = 0;

  /** Makes room for size more bytes, and returns their address. */
  private reserve(size: usize): usize {
    if (size > this.capacity - this.size) {
      const capacity = max<u64>(2 * u64(this.capacity), 64) + size;
      if (capacity > u32.MAX_VALUE) unreachable();
      this.capacity = usize(capacity);
      this.start = this.start ? heap.realloc(this.start, this.capacity) : heap.alloc(this.capacity);
    }
    const to = this.start + this.size;
    this.size += size;
    return to;
  }

  raw(from: usize, size: usize): void {
    memory.copy(this.reserve(size), from, size);
  }

  head(major: u8, arg: u64): void {
    const log = arg < 24 ? -1 : arg <= 0xff ? 0 : arg <= 0xffff ? 1 : arg <= 0xffffffff ? 2 : 3;
    this.big(major << 5 | (log < 0 ? u8(arg) : u8(24 + log)), arg, log < 0 ? 0 : 1 << log);
  }

  // A byte, and then the lower bytes of a number, big-endian.
  private big(first: u8, value: u64, width: i32): void {
    const to = this.reserve(1 + width);
    store<u8>(to, first);
    for (let i = 1; i <= width; i++) store<u8>(to + i, u8(value >> (8 * (width - i))));
  }

  unsigned(value: u64): void {
    this.head(UINT, value);
  }

  signed(value: i64): void {
    if (value < 0) this.head(NEGINT, u64(~value));
    else this.head(UINT, u64(value));
  }

  f64(value: f64): void {
    const single = f32(value);
    if (value != value) return this.big(HALF, 0x7e00, 2);
    if (f64(single) != value) return this.big(DOUBLE, reinterpret<u64>(value), 8);
    const half = narrowed(single);
    if (half >= 0) this.big(HALF, half, 2);
    else this.big(SINGLE, reinterpret<u32>(single), 4);
  }

  bool(value: bool): void {
    this.big(value ? TRUE : FALSE, 0, 0);
  }

  null(): void {
    this.big(NULL, 0, 0);
  }

  simple(value: u8): void {
    this.head(SIMPLE, value);
  }

  bytes(bytes: Span): void {
    this.head(BYTES, bytes.size);
    this.raw(bytes.at, bytes.size);
  }

  utf8(bytes: Span): void {
    this.head(TEXT, bytes.size);
    this.raw(bytes.at, bytes.size);
  }

  /** Writes a text. A text with half a surrogate pair is invalid, and traps. */
  text(text: string): void {
    const size = usize(String.UTF8.byteLength(text));
    this.head(TEXT, size);
    String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, this.reserve(size), false, String.UTF8.ErrorMode.ERROR);
  }

  array(size: u64): void {
    this.head(ARRAY, size);
  }

  map(size: u64): void {
    this.head(MAP, size);
  }

  tag(tag: u64): void {
    this.head(TAG, tag);
  }

  span(): Span {
    return new Span(this.start, this.size);
  }

  free(): void {
    if (this.start) heap.free(this.start);
    this.start = this.size = this.capacity = 0;
  }
}

// A map's encoded pairs, one after another, before sorting.
class Pairs {
  private writer: Writer = new Writer();
  private ends: Array<usize> = []; // of a key and its value, in turn

  // The caller writes a key and ends it; then its value, and ends that.
  begin(): Writer {
    return this.writer;
  }

  end(): void {
    this.ends.push(this.writer.size);
  }

  // Writes the map with its keys in the order of their bytes (RFC 8949, 4.2.1).
  write(w: Writer): void {
    const pairs: Array<Pair> = [];
    let from: usize = 0;
    for (let i = 0; i < this.ends.length; i += 2) {
      pairs.push(new Pair(this.writer.start + from, this.ends[i] - from, this.ends[i + 1] - from));
      from = this.ends[i + 1];
    }
    pairs.sort((a, b) => a.compare(b));
    w.map(pairs.length);
    for (let i = 0; i < pairs.length; i++) w.raw(pairs[i].at, pairs[i].size);
    this.writer.free();
  }
}

class Pair {
  constructor(public at: usize, public keySize: usize, public size: usize) {}

  compare(other: Pair): i32 {
    const order = memory.compare(this.at, other.at, min(this.keySize, other.keySize));
    return order ? order : i32(this.keySize) - i32(other.keySize);
  }
}

// Types.

/**
 * Reads an item as a type: integers, floats, bool, string, Uint8Array (a byte
 * string), Array, Map, a nullable one of these, and the types in this file. Other
 * classes need a method `fields(f: Fields): void`, or `decode(r: Reader): void` and
 * `encode(w: Writer): void`.
 */
export function decode<T>(r: Reader): T {
  if (isNullable<T>()) {
    // @ts-ignore: cast
    if (r.nullish()) return null;
    return changetype<T>(decode<nonnull<T>>(r));
  } else if (isBoolean<T>()) {
    // @ts-ignore: cast
    return <T>r.bool();
  } else if (isInteger<T>()) {
    // @ts-ignore: cast
    if (isSigned<T>()) return <T>r.signed(minValue<T>(), maxValue<T>(), nameof<T>());
    // @ts-ignore: cast
    return <T>r.unsigned(<u64>maxValue<T>(), nameof<T>());
  } else if (isFloat<T>()) {
    // @ts-ignore: cast
    if (sizeof<T>() == 4) return <T>r.f32();
    // @ts-ignore: cast
    return <T>r.f64();
  } else if (isString<T>()) {
    return changetype<T>(r.text());
  } else if (isArray<T>()) {
    return decodeArray<T>(r);
  } else if (idof<T>() == idof<Uint8Array>()) {
    return changetype<T>(r.bytes().copy());
  } else {
    return decodeObject<T>(r);
  }
}

// @ts-ignore: decorator
@inline
function minValue<T>(): i64 {
  return i64.MIN_VALUE >> (64 - 8 * sizeof<T>());
}

// @ts-ignore: decorator
@inline
function maxValue<T>(): i64 {
  return isSigned<T>() ? i64.MAX_VALUE >> (64 - 8 * sizeof<T>()) : i64(u64.MAX_VALUE >> (64 - 8 * sizeof<T>()));
}

function decodeArray<T>(r: Reader): T {
  const items = instantiate<T>(0);
  let i = 0;
  for (let left = r.array(); r.more(left); left = less(left)) {
    // @ts-ignore: T is an Array
    const item = decode<valueof<T>>(r);
    r.inIndex(i++);
    // @ts-ignore: T is an Array
    if (r.ok) items.push(item);
  }
  return items;
}

function decodeObject<T>(r: Reader): T {
  const value = instantiate<T>();
  if (value instanceof Map) {
    // @ts-ignore: T is a Map
    decodeMap<indexof<T>, valueof<T>>(changetype<Map<indexof<T>, valueof<T>>>(value), r);
    // @ts-ignore: T has it
  } else if (isDefined(value.fields)) {
    const f = Fields.reading(r);
    // @ts-ignore: T has it
    value.fields(f);
    f.finish();
    // @ts-ignore: T has it
  } else if (isDefined(value.decode)) {
    // @ts-ignore: T has it
    value.decode(r);
  } else {
    ERROR("give the class a method fields(f: Fields): void, or decode(r: Reader): void");
  }
  return value;
}

// A duplicate key is an error.
function decodeMap<K, V>(map: Map<K, V>, r: Reader): void {
  for (let left = r.map(); r.more(left); left = less(left)) {
    const from = r.at;
    const key = decode<K>(r);
    r.inKey("(key)");
    if (!r.ok) return;
    const encoded = new Span(from, r.at - from);
    const twice = map.has(key);
    if (twice) r.fail("duplicate key");
    const value = decode<V>(r);
    if (!r.ok) return r.inKey(keyName(encoded));
    map.set(key, value);
  }
}

// The text of an encoded key, or its bytes in hex.
function keyName(key: Span): string {
  const r = new Reader(key.at, key.size);
  const text = r.text();
  if (r.ok) return text;
  let hex = "0x";
  for (let i: usize = 0; i < min<usize>(key.size, 16); i++) {
    hex += (load<u8>(key.at + i) >> 4).toString(16) + (load<u8>(key.at + i) & 15).toString(16);
  }
  return hex;
}

/** Writes a value of any type that decode reads. */
export function encode<T>(value: T, w: Writer): void {
  if (isNullable<T>()) {
    if (value === null) w.null();
    else encode<nonnull<T>>(changetype<nonnull<T>>(value), w);
  } else if (isBoolean<T>()) {
    // @ts-ignore: cast
    w.bool(<bool>value);
  } else if (isInteger<T>()) {
    // @ts-ignore: cast
    if (isSigned<T>()) w.signed(<i64>value);
    // @ts-ignore: cast
    else w.unsigned(<u64>value);
  } else if (isFloat<T>()) {
    // @ts-ignore: cast
    w.f64(<f64>value);
  } else if (isString<T>()) {
    w.text(changetype<string>(value));
  } else if (isArray<T>()) {
    // @ts-ignore: T is an Array
    w.array(value.length);
    // @ts-ignore: T is an Array
    for (let i = 0; i < value.length; i++) encode<valueof<T>>(value[i], w);
  } else if (idof<T>() == idof<Uint8Array>()) {
    const bytes = changetype<Uint8Array>(value);
    w.bytes(new Span(bytes.dataStart, bytes.length));
  } else {
    encodeObject<T>(value, w);
  }
}

function encodeObject<T>(value: T, w: Writer): void {
  if (value instanceof Map) {
    // @ts-ignore: T is a Map
    encodeMap<indexof<T>, valueof<T>>(changetype<Map<indexof<T>, valueof<T>>>(value), w);
    // @ts-ignore: T has it
  } else if (isDefined(value.fields)) {
    const f = Fields.writing();
    // @ts-ignore: T has it
    value.fields(f);
    f.write(w);
    // @ts-ignore: T has it
  } else if (isDefined(value.encode)) {
    // @ts-ignore: T has it
    value.encode(w);
  } else {
    ERROR("give the class a method fields(f: Fields): void, or encode(w: Writer): void");
  }
}

function encodeMap<K, V>(map: Map<K, V>, w: Writer): void {
  const pairs = new Pairs();
  const keys = map.keys();
  const values = map.values();
  for (let i = 0; i < keys.length; i++) {
    encode<K>(keys[i], pairs.begin());
    pairs.end();
    encode<V>(values[i], pairs.begin());
    pairs.end();
  }
  pairs.write(w);
}

/**
 * The fields of a class that is a map with text keys. One method of the class
 * lists them, for reading and for writing:
 *
 *     fields(f: Fields): void {
 *       this.sensor = f.field("sensor", this.sensor);
 *       this.site = f.optional("site", this.site);
 *     }
 *
 * A missing or duplicate field, or one of another type, is an error that names it;
 * other keys are ignored.
 */
export class Fields {
  private pairs: Pairs | null = null; // the written fields
  private keys: Array<Span> = []; // of the map that is read
  private values: Array<usize> = []; // addresses of their values
  private end: usize = 0;

  constructor(private r: Reader) {}

  static writing(): Fields {
    const f = new Fields(new Reader(0, 0));
    f.pairs = new Pairs();
    return f;
  }

  static reading(r: Reader): Fields {
    const f = new Fields(r);
    for (let left = r.map(); r.more(left); left = less(left)) {
      if (r.peek() >> 5 == TEXT) {
        f.keys.push(r.utf8());
        f.values.push(r.at);
      } else {
        r.skip();
      }
      r.skip();
    }
    f.end = r.at;
    r.depth++; // the fields are within the map
    return f;
  }

  finish(): void {
    this.r.at = this.end;
    this.r.depth--;
  }

  write(w: Writer): void {
    this.pairs!.write(w);
  }

  /** Reads or writes a field, and returns its value. */
  field<T>(key: string, value: T): T {
    if (this.pairs !== null) {
      this.put<T>(key, value);
      return value;
    }
    if (!this.r.ok) return value;
    if (!this.find(key)) {
      this.r.fail("missing");
      this.r.inKey(key);
      return value;
    }
    return this.get<T>(key);
  }

  /**
   * Reads or writes a field that may be missing, and then keeps the value from the
   * class. A field that is null is not written, and null reads as missing.
   */
  optional<T>(key: string, value: T): T {
    if (this.pairs !== null) {
      if (!isReference<T>() || changetype<usize>(value) != 0) this.put<T>(key, value);
      return value;
    }
    if (!this.r.ok || !this.find(key) || this.r.nullish()) return value;
    return this.get<T>(key);
  }

  private put<T>(key: string, value: T): void {
    const pairs = this.pairs!;
    pairs.begin().text(key);
    pairs.end();
    encode<T>(value, pairs.begin());
    pairs.end();
  }

  private get<T>(key: string): T {
    const value = decode<T>(this.r);
    this.r.inKey(key);
    return value;
  }

  // Moves to the value of a key; false = there is none.
  private find(key: string): bool {
    const bytes = String.UTF8.encode(key);
    const wanted = new Span(changetype<usize>(bytes), bytes.byteLength);
    let found = 0;
    for (let i = 0; i < this.keys.length; i++) {
      if (!this.keys[i].equals(wanted)) continue;
      this.r.at = this.values[i];
      found++;
    }
    if (found > 1) this.r.fail("duplicate key");
    return found > 0;
  }
}

/** A chunk's id: an unsigned integer, or a text. */
export class Id {
  constructor(public number: u64 = 0, public text: string | null = null) {}

  decode(r: Reader): void {
    const major = r.peek() >> 5;
    if (major == TEXT) this.text = r.text();
    else if (major == UINT) this.number = r.unsigned(u64.MAX_VALUE, "u64");
    else r.want("an unsigned integer or a text");
  }

  encode(w: Writer): void {
    if (this.text !== null) w.text(this.text!);
    else w.unsigned(this.number);
  }
}

/** One element of the input of `aggregate`. */
export class Entry<T> {
  id: Id = new Id();
  output: T = nothing<T>();

  decode(r: Reader): void {
    let left = r.array();
    let size = 0;
    for (; r.more(left); left = less(left)) {
      if (size == 0) this.id = decode<Id>(r);
      else if (size == 1) this.output = decode<T>(r);
      else r.skip();
      r.inIndex(size++);
    }
    if (size != 2) r.fail("want an array of 2");
  }
}

/**
 * An array that is read one element at a time: the input of `aggregate`, as
 * Items<Entry<Output>>, and of `merge`, as Items<Partial>.
 *
 *     while (outputs.next()) sum += outputs.value.output;
 */
export class Items<T> {
  value: T = nothing<T>();
  private raw: Uint8Array | null = null;
  private r: Reader = new Reader(0, 0);
  private left: u64 = 0;
  private index: i32 = 0;

  decode(r: Reader): void {
    if (r.peek() >> 5 != ARRAY) return r.want("an array");
    this.raw = r.skip().copy();
    if (!r.ok) return;
    this.r = Reader.of(this.raw!);
    this.left = this.r.array();
  }

  /**
   * Moves to the next element; false = there is none, or it has another type,
   * which makes the call fail.
   */
  next(): bool {
    const r = this.r;
    if (this.raw === null || !r.ok || !r.more(this.left)) {
      this.raw = null;
      return false;
    }
    this.left = less(this.left);
    const value = decode<T>(r);
    r.inIndex(this.index++);
    if (r.ok) this.value = value;
    else fail<void>(r.message(root));
    return r.ok;
  }
}

/**
 * The bytes of a byte string or of a text, which is not checked for UTF-8. It is
 * written as a byte string.
 */
export class AnyString {
  bytes: Uint8Array = new Uint8Array(0);

  decode(r: Reader): void {
    this.bytes = r.anyString().copy();
  }

  encode(w: Writer): void {
    encode<Uint8Array>(this.bytes, w);
  }
}

/** One item of any type, as its original bytes. */
export class Raw {
  bytes: Uint8Array = new Uint8Array(0);

  decode(r: Reader): void {
    this.bytes = r.skip().copy();
  }

  encode(w: Writer): void {
    w.raw(this.bytes.dataStart, this.bytes.length);
  }

  /** Reads the item as a type. If it has another type, the call fails. */
  as<T>(): T {
    const r = Reader.of(this.bytes);
    const value = decode<T>(r);
    r.finish();
    return r.ok ? value : fail<T>(r.message(root));
  }

  /** Reads the item as a type; null = it has another type. */
  tryAs<T>(): T | null {
    const r = Reader.of(this.bytes);
    const value = decode<T>(r);
    r.finish();
    return r.ok ? value : null;
  }

  /** Reads the value of a text key; null = there is none with that type. */
  tryField<T>(key: string): T | null {
    const r = Reader.of(this.bytes);
    const value = Fields.reading(r).field<T | null>(key, null);
    return r.ok ? value : null;
  }
}

/** The types of a Value. */
export enum Type { Uint, Negint, Bytes, Text, Array, Map, Tag, Simple, Float }

/**
 * One item of any type. It keeps tags, undefined, and the order and duplicates of
 * keys, but not the widths of heads and floats, nor the payloads of NaNs.
 */
export class Value {
  type: Type = Type.Simple;
  /** An integer (-1 - bits for Negint), a tag, a simple value, a float's bits. */
  bits: u64 = 22;
  /** Of Bytes, and of Text in UTF-8. */
  bytes: Uint8Array | null = null;
  /** Of an Array; of a Map, keys and values in turn; of a Tag, one. */
  items: Array<Value> = none;

  static null(): Value {
    return new Value();
  }

  static bool(value: bool): Value {
    const v = new Value();
    v.bits = value ? 21 : 20;
    return v;
  }

  /** The value of a text key in a map; null = there is none, or it is not a map. */
  get(key: string): Value | null {
    if (this.type != Type.Map) return null;
    for (let i = 0; i < this.items.length; i += 2) if (this.items[i].text == key) return this.items[i + 1];
    return null;
  }

  /** The text; null = it is not a text. */
  get text(): string | null {
    if (this.type != Type.Text) return null;
    return String.UTF8.decodeUnsafe(this.bytes!.dataStart, this.bytes!.length);
  }

  decode(r: Reader): void {
    const first = r.peek();
    this.type = first >= HALF && first <= DOUBLE ? Type.Float : first >> 5;
    switch (this.type) {
      case Type.Bytes: this.bytes = r.bytes().copy(); break;
      case Type.Text: this.bytes = r.utf8().copy(); break;
      case Type.Array: this.elements(r, r.array(), false); break;
      case Type.Map: this.elements(r, r.map(), true); break;
      case Type.Float: this.bits = reinterpret<u64>(r.f64()); break;
      case Type.Tag:
        this.bits = r.tag();
        this.items = [decode<Value>(r)];
        r.untag();
        break;
      default:
        if (r.head()) this.bits = r.arg;
    }
  }

  private elements(r: Reader, left: u64, pairs: bool): void {
    this.items = [];
    for (; r.more(left); left = less(left)) {
      const from = r.at;
      this.items.push(decode<Value>(r));
      if (!pairs) {
        r.inIndex(this.items.length - 1);
        continue;
      }
      const key = new Span(from, r.at - from);
      if (!r.ok) return;
      this.items.push(decode<Value>(r));
      if (!r.ok) r.inKey(keyName(key));
    }
  }

  encode(w: Writer): void {
    switch (this.type) {
      case Type.Bytes: w.bytes(new Span(this.bytes!.dataStart, this.bytes!.length)); break;
      case Type.Text: w.utf8(new Span(this.bytes!.dataStart, this.bytes!.length)); break;
      case Type.Float: w.f64(reinterpret<f64>(this.bits)); break;
      case Type.Array: w.array(this.items.length); break;
      case Type.Map: w.map(this.items.length / 2); break;
      default: w.head(u8(this.type), this.bits);
    }
    for (let i = 0; i < this.items.length; i++) this.items[i].encode(w);
  }
}

const none: Array<Value> = [];

// The host.

// @ts-ignore: decorator
@external("wasm_jobs", "fail")
declare function hostFail(kind: u32, at: usize, size: usize): void;

// @ts-ignore: decorator
@external("wasm_jobs", "log")
declare function hostLog(level: i32, at: usize, size: usize): void;

// @ts-ignore: decorator
@external("wasm_jobs", "heartbeat")
declare function hostHeartbeat(): u32;

/** The level of a log line, as in Go's log/slog. */
export enum Level { Debug = -4, Info = 0, Warn = 4, Error = 8 }

/** Logs one line of at most 4 KiB; a call may log 1,000 lines and 64 KiB. */
export function log(level: i32, line: string): void {
  const bytes = String.UTF8.encode(line);
  hostLog(level, changetype<usize>(bytes), bytes.byteLength);
}

/**
 * Logs the message of a panic, and traps. To use it, a guest is compiled with
 * --use abort=wasm_jobs/panic.
 */
export function panic(message: string | null, file: string | null, line: u32, column: u32): void {
  log(Level.Error, "panic: " + (message !== null ? message : "abort") + " at " + (file !== null ? file : "?") + ":" + line.toString() + ":" + column.toString());
  unreachable();
}

/**
 * Tells the host that the guest still works, and renews the attempt's time limit.
 * After false the attempt has failed, and the handler should return.
 */
export function heartbeat(): bool {
  return hostHeartbeat() == 1;
}

/**
 * Memory for an input; 0 = there is none. It is never freed, because memory that a
 * call allocates ends with the call.
 */
export function alloc(size: usize): usize {
  return size < 1 << 30 ? heap.alloc(size) : 0;
}

// The name of the input of the current call in messages.
let root: string = "chunk";

/**
 * Calls a handler with the arguments of an export, and returns its result to the
 * host: null if it returns nothing.
 */
export function run<I, O>(name: string, handler: (input: I) => O, at: usize, size: usize): u64 {
  const output = call<I, O>(name, handler, new Reader(at, size));
  const f = failure;
  if (f === null) return u64(output.at) << 32 | output.size;
  const message = String.UTF8.encode(f.message);
  hostFail(f.kind, changetype<usize>(message), message.byteLength);
  return 0;
}

function call<I, O>(name: string, handler: (input: I) => O, r: Reader): Span {
  failure = null;
  root = name == "exec" ? "chunk" : name == "aggregate" ? "outputs" : name == "merge" ? "partials" : "context";
  const input = decode<I>(r);
  r.finish();
  const w = new Writer();
  if (!r.ok) {
    fail<void>(r.message(root));
  } else if (isVoid<O>()) {
    handler(input);
    w.null();
  } else {
    const output = handler(input);
    if (failure === null) encode<O>(output, w);
  }
  return w.span();
}

/** The result of a call. */
export class Outcome {
  constructor(public output: Uint8Array, public failure: Failure | null) {}
}

/** Runs a handler on encoded bytes, like the host: for tests. */
export function test<I, O>(name: string, handler: (input: I) => O, input: Uint8Array): Outcome {
  const output = call<I, O>(name, handler, Reader.of(input));
  return new Outcome(failure === null ? output.copy() : new Uint8Array(0), failure);
}
