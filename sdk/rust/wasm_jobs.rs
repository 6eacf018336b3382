//! The SDK for guests in Rust, for version 1 of the guest ABI: typed handlers,
//! CBOR (RFC 8949), failures, logging and heartbeats. It needs only std.
//!
//! Copy this file next to your `lib.rs`, and write `mod wasm_jobs;` at the top of
//! that. Then write functions, and export them:
//!
//! ```ignore
//! wasm_jobs::guest! { exec: square }
//!
//! fn square(n: u32) -> Result<u64, wasm_jobs::Failure> {
//!     Ok(u64::from(n) * u64::from(n))
//! }
//! ```
//!
//! An input that does not fit the type of the handler makes the call fail
//! permanently, with a message that names the place: `chunk.items[2].name: missing`.
//!
//! Everything that a handler keeps in memory is gone before the next call. Only
//! values in a [`Context`] that `setup` sets stay.
#![allow(dead_code, unused_imports, unused_macros)]

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Mutex;

// Failures.

/// How the host treats a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No other attempt could succeed.
    Permanent = 0,
    /// Another attempt may succeed; it is counted.
    Retryable = 1,
    /// Try again later, without counting a failure; at most 100 times for a chunk.
    Requeue = 2,
}

/// Why a call failed. The host cuts the message at 4 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: Kind,
    pub message: String,
}

pub fn permanent(message: impl Into<String>) -> Failure {
    Failure { kind: Kind::Permanent, message: message.into() }
}

pub fn retryable(message: impl Into<String>) -> Failure {
    Failure { kind: Kind::Retryable, message: message.into() }
}

pub fn requeue(message: impl Into<String>) -> Failure {
    Failure { kind: Kind::Requeue, message: message.into() }
}

/// Why bytes could not be read as a type, and at which place. `?` turns it into a
/// permanent [`Failure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    path: String, // as in ".items[2].name"; empty = the whole item
    what: String,
}

impl Error {
    pub fn new(what: impl Into<String>) -> Error {
        Error { path: String::new(), what: what.into() }
    }

    /// Adds to the error that it is in the value of a key.
    pub fn in_key(mut self, key: impl fmt::Display) -> Error {
        self.path = format!(".{}{}", key, self.path);
        self
    }

    /// Adds to the error that it is in an element of an array.
    pub fn in_index(mut self, index: usize) -> Error {
        self.path = format!("[{}]{}", index, self.path);
        self
    }

    /// Sets the name of the whole item in messages.
    fn of(mut self, name: &str) -> Error {
        self.path = format!("{}{}", name, self.path);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.path.trim_start_matches('.') {
            "" => f.write_str(&self.what),
            place => write!(f, "{}: {}", place, self.what),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        permanent(e.to_string())
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        permanent(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Failure {
        permanent(message)
    }
}

// Reading.

/// A type that can be read from CBOR.
pub trait Decode: Sized {
    fn decode(r: &mut Reader) -> Result<Self, Error>;

    /// The value of a field of the type if its key is missing; None = an error.
    fn missing() -> Option<Self> {
        None
    }
}

/// Reads bytes that are exactly one item.
pub fn from_slice<T: Decode>(bytes: &[u8]) -> Result<T, Error> {
    whole(bytes, "")
}

/// Reads bytes that are exactly one item, with the given name in messages.
fn whole<T: Decode>(bytes: &[u8], name: &'static str) -> Result<T, Error> {
    let mut r = Reader { name, ..Reader::new(bytes) };
    let value = T::decode(&mut r).map_err(|e| e.of(name))?;
    match r.at == bytes.len() {
        true => Ok(value),
        false => Err(Error::new(format!("more bytes follow the item (byte {})", r.at)).of(name)),
    }
}

const UINT: u8 = 0;
const NEGINT: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const FALSE: u64 = 20;
const TRUE: u64 = 21;
const NULL: u64 = 22;
const UNDEFINED: u64 = 23;
const BREAK: u8 = 0xff;

/// How deep arrays, maps and tags may nest: the host's limit for an output, plus
/// the two arrays around it in the input of `aggregate`.
const MAX_DEPTH: usize = 258;

/// Reads items one after another. It never reads past the end and never trusts a
/// length: malformed bytes are an error.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    name: &'static str, // of the whole item, in messages
}

struct Head {
    major: u8,
    info: u8,        // of the first byte
    arg: u64,        // value, length, count, tag or bits
    indefinite: bool, // a string, array or map that ends with a break
}

/// The elements or pairs of an array or map that are still to be read.
pub struct Left(Option<u64>); // None = up to a break

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0, depth: 0, name: "" }
    }

    /// The name of the next item, if it is the whole item.
    fn own_name(&self) -> &'static str {
        if self.at == 0 { self.name } else { "" }
    }

    fn peek(&self) -> Result<u8, Error> {
        self.bytes.get(self.at).copied().ok_or_else(|| self.malformed("truncated"))
    }

    fn malformed(&self, what: &str) -> Error {
        Error::new(format!("malformed CBOR: {} (byte {})", what, self.at))
    }

    /// An error with the kind of the next item, and the wanted one.
    pub fn want(&self, what: &str) -> Error {
        match self.peek() {
            Ok(first) => Error::new(format!("want {}, got {}", what, kind_of(first))),
            Err(e) => e,
        }
    }

    fn take(&mut self, size: u64) -> Result<&'a [u8], Error> {
        if size > (self.bytes.len() - self.at) as u64 {
            return Err(self.malformed("truncated"));
        }
        let start = self.at;
        self.at += size as usize;
        Ok(&self.bytes[start..self.at])
    }

    fn head(&mut self) -> Result<Head, Error> {
        let first = self.peek()?;
        let (major, info) = (first >> 5, first & 31);
        if (28..31).contains(&info) {
            return Err(self.malformed("reserved additional information"));
        }
        let indefinite = info == 31;
        if indefinite && !(BYTES..=MAP).contains(&major) {
            return Err(self.malformed(if major == SIMPLE { "break outside an item of indefinite length" } else { "indefinite length" }));
        }
        self.at += 1;
        let mut arg = u64::from(info);
        if (24..28).contains(&info) {
            arg = self.take(1 << (info - 24))?.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        }
        if major == SIMPLE && info == 24 && arg < 32 {
            return Err(self.malformed("simple value below 32 in two bytes"));
        }
        Ok(Head { major, info, arg, indefinite })
    }

    /// The next item's head, if it has the major type.
    fn head_of(&mut self, major: u8, what: &str) -> Result<Head, Error> {
        if self.peek()? >> 5 != major {
            return Err(self.want(what));
        }
        self.head()
    }

    fn string(&mut self, major: u8, what: &str) -> Result<Vec<u8>, Error> {
        let h = self.head_of(major, what)?;
        if !h.indefinite {
            return Ok(self.take(h.arg)?.to_vec());
        }
        let mut joined = Vec::new();
        while self.peek()? != BREAK {
            let part = self.head()?;
            if part.major != major || part.indefinite {
                return Err(self.malformed("invalid part of a string: want a string of its type"));
            }
            joined.extend_from_slice(self.take(part.arg)?);
        }
        self.at += 1;
        Ok(joined)
    }

    fn deeper(&mut self) -> Result<(), Error> {
        self.depth += 1;
        match self.depth > MAX_DEPTH {
            true => Err(self.malformed("nested deeper than 258 levels")),
            false => Ok(()),
        }
    }

    fn enter(&mut self, major: u8, what: &str) -> Result<Left, Error> {
        let h = self.head_of(major, what)?;
        self.deeper()?;
        if h.indefinite {
            return Ok(Left(None));
        }
        if h.arg > (self.bytes.len() - self.at) as u64 / if major == MAP { 2 } else { 1 } {
            return Err(self.malformed("truncated"));
        }
        Ok(Left(Some(h.arg)))
    }

    /// Enters an array; then [`Reader::next`] reports whether an element follows.
    pub fn array(&mut self) -> Result<Left, Error> {
        self.enter(ARRAY, "an array")
    }

    /// Enters a map; then [`Reader::next`] reports whether a key and its value
    /// follow.
    pub fn map(&mut self) -> Result<Left, Error> {
        self.enter(MAP, "a map")
    }

    /// Reports whether another element or pair follows; the caller reads or skips
    /// it. Leaves the array or map after the last one.
    pub fn next(&mut self, left: &mut Left) -> Result<bool, Error> {
        let more = match &mut left.0 {
            Some(0) => false,
            Some(n) => {
                *n -= 1;
                true
            }
            None => self.peek()? != BREAK,
        };
        if !more {
            self.depth -= 1;
            self.at += left.0.is_none() as usize;
        }
        Ok(more)
    }

    /// Reads the next key of a map if it is a text, and skips it otherwise.
    pub fn key(&mut self) -> Result<Option<String>, Error> {
        if self.peek()? >> 5 == TEXT {
            return String::decode(self).map(Some);
        }
        self.skip().map(|_| None)
    }

    /// Skips one item, with everything inside, and returns its bytes.
    pub fn skip(&mut self) -> Result<&'a [u8], Error> {
        let start = self.at;
        match self.peek()? >> 5 {
            major @ (BYTES | TEXT) if self.bytes[self.at] & 31 == 31 => drop(self.string(major, "")?),
            BYTES | TEXT => {
                let size = self.head()?.arg;
                self.take(size)?;
            }
            major @ (ARRAY | MAP) => {
                let mut left = self.enter(major, "")?;
                while self.next(&mut left)? {
                    self.skip()?;
                    if major == MAP {
                        self.skip()?;
                    }
                }
            }
            TAG => {
                self.head()?;
                self.deeper()?;
                self.skip()?;
                self.depth -= 1;
            }
            _ => drop(self.head()?),
        }
        Ok(&self.bytes[start..self.at])
    }

    fn integer(&mut self) -> Result<Integer, Error> {
        if self.peek()? >> 5 > NEGINT {
            return Err(self.want("an integer"));
        }
        let h = self.head()?;
        Ok(Integer { negative: h.major == NEGINT, arg: h.arg })
    }

    fn float(&mut self) -> Result<f64, Error> {
        match self.peek()? {
            0xf9 => Ok(widened(self.head()?.arg as u16)),
            0xfa => Ok(f64::from(f32::from_bits(self.head()?.arg as u32))),
            0xfb => Ok(f64::from_bits(self.head()?.arg)),
            _ => Err(self.want("a float")),
        }
    }

    /// Reads one of the simple values below 24.
    fn simple(&mut self, wanted: &[u64]) -> Option<u64> {
        let first = self.peek().ok()?;
        let value = u64::from(first & 31);
        if first >> 5 != SIMPLE || !wanted.contains(&value) {
            return None;
        }
        self.at += 1;
        Some(value)
    }
}

/// The integer arg, or -1 - arg.
struct Integer {
    negative: bool,
    arg: u64,
}

impl Integer {
    fn unsigned(&self) -> Option<u64> {
        (!self.negative).then(|| self.arg)
    }

    fn signed(&self) -> Option<i64> {
        let value = i64::try_from(self.arg).ok()?;
        Some(if self.negative { -1 - value } else { value })
    }

    fn unfit(&self, name: &str) -> Error {
        let sign = if self.negative { "-1 - " } else { "" };
        match self.signed() {
            Some(value) => Error::new(format!("{} does not fit {}", value, name)),
            None => Error::new(format!("{}{} does not fit {}", sign, self.arg, name)),
        }
    }
}

fn kind_of(first: u8) -> &'static str {
    match first {
        0xf4 | 0xf5 => "a boolean",
        0xf6 => "null",
        0xf7 => "undefined",
        0xf9..=0xfb => "a float",
        0xff => "a break",
        _ => match first >> 5 {
            UINT => "an unsigned integer",
            NEGINT => "a negative integer",
            BYTES => "a byte string",
            TEXT => "a text",
            ARRAY => "an array",
            MAP => "a map",
            TAG => "a tag",
            _ => "a simple value",
        },
    }
}

/// The value of a float of 16 bits (RFC 8949, appendix D).
fn widened(half: u16) -> f64 {
    let exponent = i32::from(half >> 10 & 31);
    let mantissa = f64::from(half & 1023);
    let size = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
    };
    if half >> 15 == 0 { size } else { -size }
}

/// The float of 16 bits with the value of a float of 32 bits, if there is one.
fn narrowed(value: f32) -> Option<u16> {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 255) as i32 - 127;
    let mantissa = bits & 0x7f_ffff;
    match exponent {
        -127 if mantissa == 0 => Some(sign),
        128 if mantissa == 0 => Some(sign | 0x7c00),
        -14..=15 if mantissa & 0x1fff == 0 => Some(sign | ((exponent + 15) as u16) << 10 | (mantissa >> 13) as u16),
        -24..=-15 => {
            let (full, shift) = (mantissa | 0x80_0000, (-1 - exponent) as u32);
            (full.trailing_zeros() >= shift).then(|| sign | (full >> shift) as u16)
        }
        _ => None,
    }
}

// Writing.

/// A type that can be written as CBOR.
///
/// The implementations here write deterministically (RFC 8949, section 4.2.1): heads
/// and floats in their shortest form, keys in the order of their encoded bytes. A
/// [`Value`] keeps its own order.
pub trait Encode {
    fn encode(&self, w: &mut Writer);

    /// Reports whether a map leaves out a field that has this value.
    fn absent(&self) -> bool {
        false
    }
}

/// The bytes of one item.
pub fn to_vec<T: Encode + ?Sized>(value: &T) -> Vec<u8> {
    let mut w = Writer::default();
    value.encode(&mut w);
    w.0
}

/// Writes items one after another.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    fn head(&mut self, major: u8, arg: u64) {
        let bytes = arg.to_be_bytes();
        let (info, skipped) = match arg {
            0..=23 => (arg as u8, 8),
            24..=0xff => (24, 7),
            0x100..=0xffff => (25, 6),
            0x1_0000..=0xffff_ffff => (26, 4),
            _ => (27, 0),
        };
        self.0.push(major << 5 | info);
        self.0.extend_from_slice(&bytes[skipped..]);
    }

    fn string(&mut self, major: u8, bytes: &[u8]) {
        self.head(major, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn float(&mut self, value: f64) {
        let single = value as f32;
        if value.is_nan() {
            self.0.extend_from_slice(&[0xf9, 0x7e, 0x00]);
        } else if f64::from(single) != value {
            self.0.push(0xfb);
            self.0.extend_from_slice(&value.to_bits().to_be_bytes());
        } else if let Some(half) = narrowed(single) {
            self.0.push(0xf9);
            self.0.extend_from_slice(&half.to_be_bytes());
        } else {
            self.0.push(0xfa);
            self.0.extend_from_slice(&single.to_bits().to_be_bytes());
        }
    }

    /// Begins an array; write its elements next.
    pub fn array(&mut self, size: usize) {
        self.head(ARRAY, size as u64);
    }

    /// Begins a map; write its keys and values next, with the keys in order.
    pub fn map(&mut self, size: usize) {
        self.head(MAP, size as u64);
    }

    /// Writes a whole map with text keys, and sorts them.
    pub fn fields(&mut self, fields: &mut [(&str, &dyn Encode)]) {
        fields.sort_by(|a, b| (a.0.len(), a.0).cmp(&(b.0.len(), b.0)));
        self.map(fields.iter().filter(|f| !f.1.absent()).count());
        for (key, value) in fields.iter().filter(|f| !f.1.absent()) {
            key.encode(self);
            value.encode(self);
        }
    }
}

// Types.

macro_rules! integers {
    ($read:ident: $($type:ident)*) => {$(
        impl Decode for $type {
            fn decode(r: &mut Reader) -> Result<Self, Error> {
                let n = r.integer()?;
                n.$read().and_then(|v| v.try_into().ok()).ok_or_else(|| n.unfit(stringify!($type)))
            }
        }
        impl Encode for $type {
            fn encode(&self, w: &mut Writer) {
                match i64::try_from(*self) {
                    Ok(value) if value < 0 => w.head(NEGINT, !value as u64),
                    _ => w.head(UINT, *self as u64),
                }
            }
        }
    )*};
}
integers! { unsigned: u8 u16 u32 u64 usize }
integers! { signed: i8 i16 i32 i64 isize }

/// A float is also read from an integer, if it can hold that exactly.
impl Decode for f64 {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        if r.peek()? >> 5 > NEGINT {
            return r.float();
        }
        let n = r.integer()?;
        let float = n.arg as f64; // 2^64 for large ones, which casts back to 2^64-1
        let exact = float < 18446744073709551616.0 && float as u64 == n.arg;
        let value = if n.negative { -1.0 - float } else { float };
        match exact && float < 9007199254740992.0 || exact && !n.negative {
            true => Ok(value),
            false => Err(n.unfit("f64")),
        }
    }
}

impl Encode for f64 {
    fn encode(&self, w: &mut Writer) {
        w.float(*self)
    }
}

impl Decode for f32 {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        let value = f64::decode(r)?;
        let single = value as f32;
        match value.is_nan() || f64::from(single) == value {
            true => Ok(single),
            false => Err(Error::new(format!("{} does not fit f32", value))),
        }
    }
}

impl Encode for f32 {
    fn encode(&self, w: &mut Writer) {
        w.float(f64::from(*self))
    }
}

impl Decode for bool {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        r.simple(&[FALSE, TRUE]).map(|v| v == TRUE).ok_or_else(|| r.want("a boolean"))
    }
}

impl Encode for bool {
    fn encode(&self, w: &mut Writer) {
        w.head(SIMPLE, if *self { TRUE } else { FALSE })
    }
}

/// Null.
impl Decode for () {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        r.simple(&[NULL]).map(drop).ok_or_else(|| r.want("null"))
    }
}

impl Encode for () {
    fn encode(&self, w: &mut Writer) {
        w.head(SIMPLE, NULL)
    }
}

impl Decode for String {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        String::from_utf8(r.string(TEXT, "a text")?).map_err(|_| Error::new("text that is not UTF-8"))
    }
}

impl Encode for String {
    fn encode(&self, w: &mut Writer) {
        w.string(TEXT, self.as_bytes())
    }
}

impl Encode for &str {
    fn encode(&self, w: &mut Writer) {
        w.string(TEXT, self.as_bytes())
    }
}

/// A byte string. (`Vec<u8>` is an array of integers.)
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub Vec<u8>);

impl Decode for Bytes {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        r.string(BYTES, "a byte string").map(Bytes)
    }
}

impl Encode for Bytes {
    fn encode(&self, w: &mut Writer) {
        w.string(BYTES, &self.0)
    }
}

/// The bytes of a byte string or of a text, which is not checked for UTF-8. It is
/// written as a byte string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnyString(pub Vec<u8>);

impl Decode for AnyString {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        let major = if r.peek()? >> 5 == TEXT { TEXT } else { BYTES };
        r.string(major, "a text or byte string").map(AnyString)
    }
}

impl Encode for AnyString {
    fn encode(&self, w: &mut Writer) {
        w.string(BYTES, &self.0)
    }
}

/// Null and undefined are None, and so is a missing field. A map leaves out a
/// field that is None.
impl<T: Decode> Decode for Option<T> {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        match r.simple(&[NULL, UNDEFINED]) {
            Some(_) => Ok(None),
            None => T::decode(r).map(Some),
        }
    }

    fn missing() -> Option<Self> {
        Some(None)
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, w: &mut Writer) {
        match self {
            Some(value) => value.encode(w),
            None => ().encode(w),
        }
    }

    fn absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        let mut left = r.array()?;
        let mut items = Vec::new();
        while r.next(&mut left)? {
            items.push(T::decode(r).map_err(|e| e.in_index(items.len()))?);
        }
        Ok(items)
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, w: &mut Writer) {
        self.as_slice().encode(w)
    }
}

impl<T: Encode> Encode for [T] {
    fn encode(&self, w: &mut Writer) {
        w.array(self.len());
        self.iter().for_each(|item| item.encode(w));
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        T::decode(r).map(Box::new)
    }
}

impl<T: Encode> Encode for Box<T> {
    fn encode(&self, w: &mut Writer) {
        (**self).encode(w)
    }
}

macro_rules! tuples {
    ($(($size:literal $($name:ident $index:tt)+))*) => {$(
        impl<$($name: Decode),+> Decode for ($($name,)+) {
            fn decode(r: &mut Reader) -> Result<Self, Error> {
                let wrong = || Error::new(concat!("want an array of ", $size));
                let mut left = r.array()?;
                let tuple = ($(match r.next(&mut left)? {
                    true => $name::decode(r).map_err(|e| e.in_index($index))?,
                    false => return Err(wrong()),
                },)+);
                match r.next(&mut left)? {
                    true => Err(wrong()),
                    false => Ok(tuple),
                }
            }
        }
        impl<$($name: Encode),+> Encode for ($($name,)+) {
            fn encode(&self, w: &mut Writer) {
                w.array($size);
                $(self.$index.encode(w);)+
            }
        }
    )*};
}
tuples! {
    (1 A 0) (2 A 0 B 1) (3 A 0 B 1 C 2) (4 A 0 B 1 C 2 D 3)
    (5 A 0 B 1 C 2 D 3 E 4) (6 A 0 B 1 C 2 D 3 E 4 F 5)
}

/// A duplicate key is an error.
impl<K: Decode + Encode + Ord, V: Decode> Decode for BTreeMap<K, V> {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        let mut left = r.map()?;
        let mut map = BTreeMap::new();
        while r.next(&mut left)? {
            let start = r.at;
            let key = K::decode(r).map_err(|e| e.in_key("(key)"))?;
            let name = &r.bytes[start..r.at];
            let value = V::decode(r).map_err(|e| e.in_key(key_name(name)))?;
            if map.insert(key, value).is_some() {
                return Err(twice(key_name(name)));
            }
        }
        Ok(map)
    }
}

impl<K: Encode, V: Encode> Encode for BTreeMap<K, V> {
    fn encode(&self, w: &mut Writer) {
        let mut pairs: Vec<_> = self.iter().map(|(k, v)| (to_vec(k), v)).collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        w.map(pairs.len());
        for (key, value) in pairs {
            w.0.extend_from_slice(&key);
            value.encode(w);
        }
    }
}

/// The error for a duplicate key of a map.
pub fn twice(key: impl fmt::Display) -> Error {
    Error::new("duplicate key").in_key(key)
}

/// The text of an encoded key, or its bytes in hex.
fn key_name(key: &[u8]) -> String {
    match String::decode(&mut Reader::new(key)) {
        Ok(text) => text,
        Err(_) => key.iter().take(16).fold("0x".to_string(), |s, b| format!("{}{:02x}", s, b)),
    }
}

/// A chunk's id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    Uint(u64),
    Text(String),
}

impl Decode for Id {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        match r.peek()? >> 5 {
            UINT => u64::decode(r).map(Id::Uint),
            TEXT => String::decode(r).map(Id::Text),
            _ => Err(r.want("an unsigned integer or a text")),
        }
    }
}

impl Encode for Id {
    fn encode(&self, w: &mut Writer) {
        match self {
            Id::Uint(n) => n.encode(w),
            Id::Text(text) => text.encode(w),
        }
    }
}

/// One item of any type, as its original bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    bytes: Vec<u8>,
    name: &'static str, // in messages
}

impl Raw {
    pub fn decode<T: Decode>(&self) -> Result<T, Error> {
        whole(&self.bytes, self.name)
    }

    /// Reads the value of a text key, if the item is a map.
    pub fn field<T: Decode>(&self, name: &str) -> Result<T, Error> {
        self.find(name).map_err(|e| e.of(self.name))
    }

    fn find<T: Decode>(&self, name: &str) -> Result<T, Error> {
        let mut r = Reader::new(&self.bytes);
        let mut left = r.map()?;
        let mut found = None;
        while r.next(&mut left)? {
            if r.key()?.as_deref() != Some(name) {
                r.skip()?;
            } else if found.replace(T::decode(&mut r).map_err(|e| e.in_key(name))?).is_some() {
                return Err(twice(name));
            }
        }
        found.or_else(T::missing).ok_or_else(|| Error::new("missing").in_key(name))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Decode for Raw {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        let name = r.own_name();
        r.skip().map(|bytes| Raw { bytes: bytes.to_vec(), name })
    }
}

impl Encode for Raw {
    fn encode(&self, w: &mut Writer) {
        w.0.extend_from_slice(&self.bytes)
    }
}

/// An array that is decoded one element at a time: the input of `aggregate`, as
/// `Items<(Id, Output)>`, and of `merge`, as `Items<Partial>`.
#[derive(Debug, Clone)]
pub struct Items<T> {
    raw: Vec<u8>,
    name: &'static str, // in messages
    at: usize,
    left: Option<u64>, // None = up to a break
    index: usize,
    of: PhantomData<T>,
}

impl<T: Decode> Decode for Items<T> {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        if r.peek()? >> 5 != ARRAY {
            return Err(r.want("an array"));
        }
        let name = r.own_name();
        let raw = r.skip()?.to_vec();
        let mut inside = Reader::new(&raw);
        let (left, at) = (inside.array()?.0, inside.at);
        Ok(Items { raw, name, at, left, index: 0, of: PhantomData })
    }
}

impl<T: Decode> Iterator for Items<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut r = Reader { at: self.at, depth: 1, ..Reader::new(&self.raw) };
        let mut left = Left(self.left);
        let item = match r.next(&mut left) {
            Ok(false) => {
                self.left = Some(0);
                return None;
            }
            Ok(true) => T::decode(&mut r).map_err(|e| e.in_index(self.index).of(self.name)),
            Err(e) => Err(e),
        };
        let at = r.at;
        self.left = if item.is_ok() { left.0 } else { Some(0) };
        self.at = at;
        self.index += 1;
        Some(item)
    }
}

/// One item of any type. It keeps tags, undefined, and the order and duplicates of
/// keys, but not the widths of heads and floats, nor the payloads of NaNs.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Uint(u64),
    /// The integer -1 - n.
    Negint(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Tag(u64, Box<Value>),
    Bool(bool),
    Null,
    Undefined,
    /// Another simple value.
    Simple(u8),
    Float(f64),
}

impl Value {
    /// The value of a text key in a map; None = there is none, or it is not a map.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(pairs) => pairs.iter().find(|p| p.0.text() == Some(key)).map(|p| &p.1),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Decode for Value {
    fn decode(r: &mut Reader) -> Result<Self, Error> {
        Ok(match r.peek()? >> 5 {
            UINT => Value::Uint(r.head()?.arg),
            NEGINT => Value::Negint(r.head()?.arg),
            BYTES => Value::Bytes(r.string(BYTES, "")?),
            TEXT => Value::Text(String::decode(r)?),
            ARRAY => Value::Array(Vec::decode(r)?),
            MAP => Value::Map(pairs(r)?),
            TAG => {
                let tag = r.head()?.arg;
                r.deeper()?;
                let value = Value::decode(r)?;
                r.depth -= 1;
                Value::Tag(tag, Box::new(value))
            }
            _ => simple_or_float(r)?,
        })
    }
}

fn pairs(r: &mut Reader) -> Result<Vec<(Value, Value)>, Error> {
    let mut left = r.map()?;
    let mut pairs = Vec::new();
    while r.next(&mut left)? {
        let start = r.at;
        let key = Value::decode(r)?;
        let name = start..r.at;
        pairs.push((key, Value::decode(r).map_err(|e| e.in_key(key_name(&r.bytes[name])))?));
    }
    Ok(pairs)
}

fn simple_or_float(r: &mut Reader) -> Result<Value, Error> {
    if (0xf9..=0xfb).contains(&r.peek()?) {
        return r.float().map(Value::Float);
    }
    Ok(match r.head()?.arg {
        FALSE => Value::Bool(false),
        TRUE => Value::Bool(true),
        NULL => Value::Null,
        UNDEFINED => Value::Undefined,
        other => Value::Simple(other as u8),
    })
}

impl Encode for Value {
    fn encode(&self, w: &mut Writer) {
        match self {
            Value::Uint(n) => w.head(UINT, *n),
            Value::Negint(n) => w.head(NEGINT, *n),
            Value::Bytes(bytes) => w.string(BYTES, bytes),
            Value::Text(text) => w.string(TEXT, text.as_bytes()),
            Value::Array(items) => items.encode(w),
            Value::Map(pairs) => {
                w.map(pairs.len());
                for (key, value) in pairs {
                    key.encode(w);
                    value.encode(w);
                }
            }
            Value::Tag(tag, value) => {
                w.head(TAG, *tag);
                value.encode(w);
            }
            Value::Bool(b) => b.encode(w),
            Value::Null => w.head(SIMPLE, NULL),
            Value::Undefined => w.head(SIMPLE, UNDEFINED),
            Value::Simple(n) => w.head(SIMPLE, u64::from(*n)),
            Value::Float(f) => w.float(*f),
        }
    }
}

/// Makes a struct that is a map with text keys. Fields are read in any order, and
/// written in deterministic order. A missing field (unless it is an Option), a
/// duplicate one or one of another type is an error that names it; other keys are
/// ignored.
///
/// ```ignore
/// wasm_jobs::cbor_struct! {
///     #[derive(Debug)]
///     pub struct Reading {
///         pub sensor: String,
///         pub celsius: Option<f64> = "temp-c", // its key is not its name
///     }
/// }
/// ```
macro_rules! cbor_struct {
    ($(#[$about:meta])* $vis:vis struct $name:ident {
        $($(#[$of:meta])* $fvis:vis $field:ident : $type:ty $(= $key:literal)?),* $(,)?
    }) => {
        $(#[$about])* $vis struct $name { $($(#[$of])* $fvis $field: $type),* }

        impl $crate::wasm_jobs::Decode for $name {
            fn decode(r: &mut $crate::wasm_jobs::Reader) -> Result<Self, $crate::wasm_jobs::Error> {
                use $crate::wasm_jobs as sdk;
                let mut left = r.map()?;
                $(let mut $field: Option<$type> = None;)*
                while r.next(&mut left)? {
                    let key = r.key()?;
                    $(if key.as_deref() == Some(sdk::key!($field $(= $key)?)) {
                        let value = sdk::Decode::decode(r).map_err(|e: sdk::Error| e.in_key(sdk::key!($field $(= $key)?)))?;
                        if $field.replace(value).is_some() {
                            return Err(sdk::twice(sdk::key!($field $(= $key)?)));
                        }
                        continue;
                    })*
                    r.skip()?;
                }
                Ok($name {$(
                    $field: $field
                        .or_else(<$type as sdk::Decode>::missing)
                        .ok_or_else(|| sdk::Error::new("missing").in_key(sdk::key!($field $(= $key)?)))?,
                )*})
            }
        }

        impl $crate::wasm_jobs::Encode for $name {
            fn encode(&self, w: &mut $crate::wasm_jobs::Writer) {
                use $crate::wasm_jobs as sdk;
                w.fields(&mut [$((sdk::key!($field $(= $key)?), &self.$field as &dyn sdk::Encode)),*]);
            }
        }
    };
}
pub(crate) use cbor_struct;

/// The key of a field: its name, or the given literal.
macro_rules! key {
    ($field:ident = $key:literal) => { $key };
    ($field:ident) => { stringify!($field).trim_start_matches("r#") };
}
pub(crate) use key;

// The host.

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug = -4,
    Info = 0,
    Warn = 4,
    Error = 8,
}

/// Logs one line of at most 4 KiB; a call may log 1,000 lines and 64 KiB.
pub fn log(level: Level, line: impl AsRef<str>) {
    log_at(level as i32, line.as_ref())
}

/// Logs at any level, as in Go's log/slog.
pub fn log_at(level: i32, line: &str) {
    host::log_line(level, line)
}

/// Tells the host that the guest still works, and renews the attempt's time limit.
/// After false the attempt has failed, and the handler should return.
pub fn heartbeat() -> bool {
    host::beat()
}

/// The value that `setup` made of the job's context, for the other handlers.
///
/// ```ignore
/// static LIMITS: wasm_jobs::Context<Limits> = wasm_jobs::Context::new();
/// ```
pub struct Context<T: 'static>(Mutex<Option<&'static T>>);

impl<T: Sync> Context<T> {
    pub const fn new() -> Self {
        Context(Mutex::new(None))
    }

    /// Keeps a value for as long as the program runs.
    pub fn set(&self, value: T) {
        if let Ok(mut kept) = self.0.lock() {
            *kept = Some(Box::leak(Box::new(value)));
        }
    }

    /// None = nothing was set.
    pub fn get(&self) -> Option<&'static T> {
        self.0.lock().ok().and_then(|kept| *kept)
    }
}

/// Runs a handler on encoded bytes, like the host: for tests. Messages name the
/// input by the export.
pub fn call<I: Decode, O: Encode>(export: &str, handler: impl Fn(I) -> Result<O, Failure>, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let root = match export {
        "exec" => "chunk",
        "aggregate" => "outputs",
        "merge" => "partials",
        _ => "context",
    };
    handler(whole(input, root)?).map(|output| to_vec(&output))
}

/// Exports handlers: functions from a type that is [`Decode`] to a Result of one
/// that is [`Encode`]. `exec` is required; `aggregate`, `merge` and `setup` are not.
macro_rules! guest {
    ($($export:ident : $handler:expr),+ $(,)?) => {$(
        const _: () = {
            #[cfg(target_arch = "wasm32")]
            #[export_name = stringify!($export)]
            extern "C" fn export(ptr: *const u8, size: usize) -> u64 {
                unsafe { $crate::wasm_jobs::host::run(stringify!($export), $handler, ptr, size) }
            }

            #[cfg(not(target_arch = "wasm32"))]
            const _: fn(&[u8]) -> Result<Vec<u8>, $crate::wasm_jobs::Failure> =
                |input| $crate::wasm_jobs::call(stringify!($export), $handler, input);
        };
    )+};
}
pub(crate) use guest;

/// The interface to the host.
#[cfg(target_arch = "wasm32")]
pub mod host {
    use super::{call, Decode, Encode, Failure};
    use std::alloc::Layout;

    #[link(wasm_import_module = "wasm_jobs")]
    extern "C" {
        fn fail(kind: u32, ptr: *const u8, size: usize);
        fn log(level: i32, ptr: *const u8, size: usize);
        fn heartbeat() -> u32;
    }

    pub(super) fn log_line(level: i32, line: &str) {
        unsafe { log(level, line.as_ptr(), line.len()) }
    }

    pub(super) fn beat() -> bool {
        unsafe { heartbeat() == 1 }
    }

    /// Memory for an input; 0 = there is none. It is never freed, because memory
    /// that a call allocates ends with the call.
    #[no_mangle]
    extern "C" fn alloc(size: usize) -> *mut u8 {
        match Layout::from_size_align(size.max(1), 8) {
            Ok(layout) => unsafe { std::alloc::alloc(layout) },
            Err(_) => std::ptr::null_mut(),
        }
    }

    /// A panic traps; its message is logged first.
    fn log_panics() {
        std::panic::set_hook(Box::new(|panic| log_line(8, &panic.to_string().replace('\n', " "))));
    }

    /// Calls a handler with the bytes at an address of [`alloc`].
    ///
    /// # Safety
    /// The bytes are readable, and nobody else writes them.
    pub unsafe fn run<I: Decode, O: Encode>(
        export: &str, handler: impl Fn(I) -> Result<O, Failure>, ptr: *const u8, size: usize,
    ) -> u64 {
        log_panics();
        match call(export, handler, std::slice::from_raw_parts(ptr, size)) {
            Ok(output) => {
                let output = output.leak();
                (output.as_ptr() as u64) << 32 | output.len() as u64
            }
            Err(f) => {
                fail(f.kind as u32, f.message.as_ptr(), f.message.len());
                0
            }
        }
    }
}

/// Replaces the host in native tests: lines go to standard error, and every
/// heartbeat returns true.
#[cfg(not(target_arch = "wasm32"))]
mod host {
    pub(super) fn log_line(level: i32, line: &str) {
        eprintln!("{} {}", level, line)
    }

    pub(super) fn beat() -> bool {
        true
    }
}
