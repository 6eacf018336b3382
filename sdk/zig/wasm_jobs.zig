//! The SDK for guests in Zig, for version 1 of the guest ABI: typed handlers, CBOR
//! (RFC 8949), failures, logging and heartbeats. It needs only the standard library.
//!
//! Copy this file next to yours. Then write functions, and export them:
//!
//!     const wasm_jobs = @import("wasm_jobs.zig");
//!
//!     comptime {
//!         wasm_jobs.guest(.{ .exec = square });
//!     }
//!
//!     fn square(n: u32) u64 {
//!         return @as(u64, n) * n;
//!     }
//!
//! An input that does not fit the type of the handler makes the call fail
//! permanently, with a message that names the place: `chunk.items[2].name: missing`.
//!
//! Everything that a handler keeps in memory is gone before the next call. Only
//! globals that the handler of `setup` sets stay. Strings of an input share memory
//! with the input.
const std = @import("std");
const builtin = @import("builtin");

comptime {
    const oldest = std.SemanticVersion{ .major = 0, .minor = 16, .patch = 0 };
    if (builtin.zig_version.order(oldest) == .lt) @compileError("wasm_jobs needs Zig 0.16 or later, this is " ++ builtin.zig_version_string);
}

const Alignment = std.mem.Alignment;

const is_wasm = builtin.cpu.arch.isWasm();

// Failures.

/// How the host treats a failed call.
pub const Kind = enum(u32) {
    /// No other attempt could succeed.
    permanent = 0,
    /// Another attempt may succeed; it is counted.
    retryable = 1,
    /// Try again later, without counting a failure; at most 100 times for a chunk.
    requeue = 2,
};

/// Why a call failed. The host cuts the message at 4 KiB.
pub const Failure = struct { kind: Kind, message: []const u8 };

/// Failed: `fail` was called. Invalid: bytes do not fit the wanted type; the reader
/// has the reason. A denied growth of memory traps.
pub const Error = error{ Failed, Invalid, OutOfMemory };

// Of the current call; the first failure counts.
var failure: ?Failure = null;

/// Makes the current call fail, for: return wasm_jobs.fail(.retryable, "no {s} yet",
/// .{name}). Any other error that a handler returns is a permanent failure with its
/// name.
pub fn fail(kind: Kind, comptime format: []const u8, args: anytype) Error {
    if (failure == null) failure = .{ .kind = kind, .message = try print(format, args) };
    return error.Failed;
}

fn print(comptime format: []const u8, args: anytype) Error![]const u8 {
    return std.fmt.allocPrint(allocator, format, args);
}

// Memory.

/// For everything that a call allocates. Its memory ends with the call.
pub const allocator: std.mem.Allocator = if (is_wasm)
    .{ .ptr = undefined, .vtable = &Bump.vtable }
else
    native.allocator();

/// Memory that is never freed, except that the last piece can grow and be freed.
const Bump = struct {
    var top: usize = 0; // 0 = nothing allocated yet
    const page = 65536;
    const vtable = std.mem.Allocator.VTable{ .alloc = alloc, .resize = resize, .remap = remap, .free = free };

    fn alloc(_: *anyopaque, size: usize, alignment: Alignment, _: usize) ?[*]u8 {
        if (top == 0) top = @wasmMemorySize(0) * page;
        const start = alignment.forward(top);
        return if (reach(start, size)) @ptrFromInt(start) else null;
    }

    fn reach(start: usize, size: usize) bool {
        const end = @as(u64, start) + size;
        const have = @as(u64, @wasmMemorySize(0)) * page;
        if (end > std.math.maxInt(usize)) return false;
        if (end > have and @wasmMemoryGrow(0, @intCast((end - have + page - 1) / page)) < 0) return false;
        top = @intCast(end);
        return true;
    }

    fn resize(_: *anyopaque, old: []u8, _: Alignment, size: usize, _: usize) bool {
        const start = @intFromPtr(old.ptr);
        return size <= old.len or (start + old.len == top and reach(start, size));
    }

    fn remap(to: *anyopaque, old: []u8, alignment: Alignment, size: usize, address: usize) ?[*]u8 {
        return if (resize(to, old, alignment, size, address)) old.ptr else null;
    }

    fn free(_: *anyopaque, old: []u8, _: Alignment, _: usize) void {
        if (@intFromPtr(old.ptr) + old.len == top) top = @intFromPtr(old.ptr);
    }
};

/// In native tests memory is kept until `reset`.
var native = if (is_wasm) {} else std.heap.ArenaAllocator.init(std.heap.page_allocator);

/// Frees all allocated memory, in native tests.
pub fn reset() void {
    if (!is_wasm) _ = native.reset(.retain_capacity);
}

// Reading.

const Major = enum(u3) { uint, negint, bytes, text, array, map, tag, simple };

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const UNDEFINED: u8 = 0xf7;
const HALF: u8 = 0xf9;
const SINGLE: u8 = 0xfa;
const DOUBLE: u8 = 0xfb;
const BREAK: u8 = 0xff;

/// How deep arrays, maps and tags may nest: the host's limit for an output, plus
/// the two arrays around it in the input of `aggregate`.
const max_depth = 258;

/// The elements or pairs of an array or map that are still to be read.
pub const Left = ?u64; // null = up to a break

const Head = struct {
    major: Major,
    arg: u64, // value, length, count, tag or bits
    indefinite: bool, // a string, array or map that ends with a break
};

/// Reads items one after another. It never reads past the end and never trusts a
/// length: malformed bytes are error.Invalid, and so are items of another type.
pub const Reader = struct {
    bytes: []const u8,
    at: usize = 0,
    depth: usize = 0,
    what: []const u8 = "", // the reason, after error.Invalid
    path: []const u8 = "", // the place, as in ".items[2].name"

    /// Sets the reason.
    pub fn invalid(r: *Reader, comptime format: []const u8, args: anytype) Error {
        r.what = try print(format, args);
        r.path = "";
        return error.Invalid;
    }

    fn malformed(r: *Reader, comptime what: []const u8) Error {
        return r.invalid("malformed CBOR: " ++ what ++ " (byte {d})", .{r.at});
    }

    /// An error with the kind of the next item, and the wanted one.
    pub fn want(r: *Reader, what: []const u8) Error {
        return r.invalid("want {s}, got {s}", .{ what, kindOf(try r.peek()) });
    }

    /// Adds to the error that it is in the value of a key.
    pub fn inKey(r: *Reader, e: Error, name: []const u8) Error {
        if (e == error.Invalid) r.path = try print(".{s}{s}", .{ name, r.path });
        return e;
    }

    /// Adds to the error that it is in an element of an array.
    pub fn inIndex(r: *Reader, e: Error, index: usize) Error {
        if (e == error.Invalid) r.path = try print("[{d}]{s}", .{ index, r.path });
        return e;
    }

    /// The message of the error; item is the name of the whole item in it.
    pub fn message(r: *const Reader, item: []const u8) Error![]const u8 {
        const place = try print("{s}{s}", .{ item, r.path });
        const named = std.mem.trimStart(u8, place, ".");
        return if (named.len == 0) r.what else print("{s}: {s}", .{ named, r.what });
    }

    fn peek(r: *Reader) Error!u8 {
        return if (r.at < r.bytes.len) r.bytes[r.at] else r.malformed("truncated");
    }

    fn major(r: *Reader) Error!Major {
        return @enumFromInt(try r.peek() >> 5);
    }

    fn take(r: *Reader, size: u64) Error![]const u8 {
        if (size > r.bytes.len - r.at) return r.malformed("truncated");
        const start = r.at;
        r.at += @intCast(size);
        return r.bytes[start..r.at];
    }

    fn head(r: *Reader) Error!Head {
        const first = try r.peek();
        const info = first & 31;
        var h = Head{ .major = @enumFromInt(first >> 5), .arg = info, .indefinite = info == 31 };
        if (info > 27 and info < 31) return r.malformed("reserved additional information");
        if (h.indefinite) switch (h.major) {
            .uint, .negint, .tag => return r.malformed("indefinite length"),
            .simple => return r.malformed("break outside an item of indefinite length"),
            else => {},
        };
        r.at += 1;
        if (info < 24 or h.indefinite) return h;
        h.arg = 0;
        for (try r.take(@as(u64, 1) << @intCast(info - 24))) |b| h.arg = h.arg << 8 | b;
        if (first == 0xf8 and h.arg < 32) return r.malformed("simple value below 32 in two bytes");
        return h;
    }

    fn headOf(r: *Reader, wanted: Major, what: []const u8) Error!Head {
        return if (try r.major() == wanted) r.head() else r.want(what);
    }

    fn string(r: *Reader, wanted: Major, what: []const u8) Error![]const u8 {
        const h = try r.headOf(wanted, what);
        if (!h.indefinite) return r.take(h.arg);
        var joined = std.ArrayList(u8).empty;
        while (try r.peek() != BREAK) {
            const part = try r.head();
            if (part.major != wanted or part.indefinite) return r.malformed("invalid part of a string: want a string of its type");
            try joined.appendSlice(allocator, try r.take(part.arg));
        }
        r.at += 1;
        return joined.items;
    }

    fn text(r: *Reader) Error![]const u8 {
        const s = try r.string(.text, "a text");
        return if (std.unicode.utf8ValidateSlice(s)) s else r.invalid("text that is not UTF-8", .{});
    }

    fn deeper(r: *Reader) Error!void {
        r.depth += 1;
        if (r.depth > max_depth) return r.malformed("nested deeper than 258 levels");
    }

    fn enter(r: *Reader, wanted: Major, what: []const u8) Error!Left {
        const h = try r.headOf(wanted, what);
        try r.deeper();
        if (h.indefinite) return null;
        const width: usize = if (wanted == .map) 2 else 1;
        return if (h.arg > (r.bytes.len - r.at) / width) r.malformed("truncated") else h.arg;
    }

    /// Enters an array; then `next` reports whether an element follows.
    pub fn array(r: *Reader) Error!Left {
        return r.enter(.array, "an array");
    }

    /// Enters a map; then `next` reports whether a key and its value follow.
    pub fn map(r: *Reader) Error!Left {
        return r.enter(.map, "a map");
    }

    /// Reports whether another element or pair follows; the caller reads or skips
    /// it. Leaves the array or map after the last one.
    pub fn next(r: *Reader, left: *Left) Error!bool {
        if (left.*) |*n| {
            if (n.* > 0) {
                n.* -= 1;
                return true;
            }
        } else {
            if (try r.peek() != BREAK) return true;
            r.at += 1;
        }
        r.depth -= 1;
        return false;
    }

    /// Reads the next key of a map if it is a text, and skips it otherwise.
    pub fn key(r: *Reader) Error!?[]const u8 {
        if (try r.major() == .text) return try r.text();
        _ = try r.skip();
        return null;
    }

    /// Skips one item, with everything inside, and returns its bytes.
    pub fn skip(r: *Reader) Error![]const u8 {
        const start = r.at;
        switch (try r.major()) {
            .bytes, .text => |m| _ = try r.string(m, ""),
            .array, .map => |m| {
                var left = try r.enter(m, "");
                while (try r.next(&left)) {
                    _ = try r.skip();
                    if (m == .map) _ = try r.skip();
                }
            },
            .tag => {
                _ = try r.head();
                try r.deeper();
                _ = try r.skip();
                r.depth -= 1;
            },
            else => _ = try r.head(),
        }
        return r.bytes[start..r.at];
    }

    fn integer(r: *Reader, comptime T: type) Error!T {
        if (try r.peek() >> 5 > 1) return r.want("an integer");
        const h = try r.head();
        const value = if (h.major == .uint) @as(i128, h.arg) else -1 - @as(i128, h.arg);
        return std.math.cast(T, value) orelse r.invalid("{d} does not fit {s}", .{ value, @typeName(T) });
    }

    /// Reads a float, or an integer that a float can hold exactly.
    fn float(r: *Reader, comptime T: type) Error!T {
        if (try r.peek() >> 5 <= 1) {
            const value = try r.integer(i66);
            const near: f64 = @floatFromInt(value);
            if (@as(i66, @intFromFloat(near)) != value) return r.invalid("{d} does not fit f64", .{value});
            return r.narrow(T, near);
        }
        return r.narrow(T, switch (try r.peek()) {
            HALF => @as(f16, @bitCast(@as(u16, @intCast((try r.head()).arg)))),
            SINGLE => @as(f32, @bitCast(@as(u32, @intCast((try r.head()).arg)))),
            DOUBLE => @as(f64, @bitCast((try r.head()).arg)),
            else => return r.want("a float"),
        });
    }

    fn narrow(r: *Reader, comptime T: type, value: f64) Error!T {
        const narrowed: T = @floatCast(value);
        if (narrowed == value or value != value) return narrowed;
        return r.invalid("{d} does not fit {s}", .{ value, @typeName(T) });
    }

    /// An error if more bytes follow an item that should be the only one.
    fn finish(r: *Reader) Error!void {
        if (r.at < r.bytes.len) return r.invalid("more bytes follow the item (byte {d})", .{r.at});
    }
};

fn kindOf(first: u8) []const u8 {
    return switch (first) {
        FALSE, TRUE => "a boolean",
        NULL => "null",
        UNDEFINED => "undefined",
        HALF...DOUBLE => "a float",
        BREAK => "a break",
        else => switch (@as(Major, @enumFromInt(first >> 5))) {
            .uint => "an unsigned integer",
            .negint => "a negative integer",
            .bytes => "a byte string",
            .text => "a text",
            .array => "an array",
            .map => "a map",
            .tag => "a tag",
            .simple => "a simple value",
        },
    };
}

/// Reads an item as a type:
///
/// - integers, floats, bool; void is null; an optional may be null or undefined;
/// - []const u8 is a text in UTF-8, another slice an array; a tuple is an array of
///   its size;
/// - an enum is the text of one of its names;
/// - a struct is a map with its fields as text keys. A missing field (unless it is
///   optional or has a default), a duplicate one or one of another type is an error
///   that names it; other keys are ignored;
/// - types with `pub fn decode(r: *Reader) Error!@This()`, such as those below.
pub fn decode(comptime T: type, r: *Reader) Error!T {
    switch (@typeInfo(T)) {
        .void => if (try r.peek() == NULL) {
            r.at += 1;
        } else return r.want("null"),
        .bool => {
            const first = try r.peek();
            if (first != TRUE and first != FALSE) return r.want("a boolean");
            r.at += 1;
            return first == TRUE;
        },
        .int => return r.integer(T),
        .float => return r.float(T),
        .optional => |o| {
            const first = try r.peek();
            if (first != NULL and first != UNDEFINED) return try decode(o.child, r);
            r.at += 1;
            return null;
        },
        .pointer => |p| {
            if (p.size != .slice) @compileError("wasm_jobs cannot read a " ++ @typeName(T));
            return if (p.child == u8) r.text() else decodeSlice(p.child, r);
        },
        .@"enum" => {
            if (@hasDecl(T, "decode")) return T.decode(r);
            return std.meta.stringToEnum(T, try r.text()) orelse r.invalid("invalid text: want a " ++ @typeName(T), .{});
        },
        .@"struct" => |s| {
            if (@hasDecl(T, "decode")) return T.decode(r);
            return if (s.is_tuple) decodeTuple(T, r) else decodeStruct(T, r);
        },
        .@"union" => if (@hasDecl(T, "decode")) return T.decode(r) else @compileError("give " ++ @typeName(T) ++ " a function decode"),
        else => @compileError("wasm_jobs cannot read a " ++ @typeName(T)),
    }
}

fn decodeSlice(comptime T: type, r: *Reader) Error![]T {
    var left = try r.array();
    var items = std.ArrayList(T).empty;
    while (try r.next(&left)) {
        const item = decode(T, r) catch |e| return r.inIndex(e, items.items.len);
        try items.append(allocator, item);
    }
    return items.items;
}

fn decodeTuple(comptime T: type, r: *Reader) Error!T {
    const fields = @typeInfo(T).@"struct".fields;
    const wrong = std.fmt.comptimePrint("want an array of {d}", .{fields.len});
    var left = try r.array();
    var tuple: T = undefined;
    inline for (fields, 0..) |f, i| {
        if (!try r.next(&left)) return r.invalid(wrong, .{});
        tuple[i] = decode(f.type, r) catch |e| return r.inIndex(e, i);
    }
    return if (try r.next(&left)) r.invalid(wrong, .{}) else tuple;
}

fn decodeStruct(comptime T: type, r: *Reader) Error!T {
    const fields = @typeInfo(T).@"struct".fields;
    var value: T = undefined;
    var found = [_]bool{false} ** fields.len;
    var left = try r.map();
    pairs: while (try r.next(&left)) {
        const key = try r.key() orelse "";
        inline for (fields, 0..) |f, i| {
            if (std.mem.eql(u8, key, f.name)) {
                if (found[i]) return r.inKey(r.invalid("duplicate key", .{}), f.name);
                @field(value, f.name) = decode(f.type, r) catch |e| return r.inKey(e, f.name);
                found[i] = true;
                continue :pairs;
            }
        }
        _ = try r.skip();
    }
    inline for (fields, 0..) |f, i| {
        if (!found[i]) {
            if (f.defaultValue()) |default| {
                @field(value, f.name) = default;
            } else if (@typeInfo(f.type) == .optional) {
                @field(value, f.name) = null;
            } else return r.inKey(r.invalid("missing", .{}), f.name);
        }
    }
    return value;
}

// Writing.

/// Writes items one after another, heads and floats in their shortest form. If you
/// write maps by hand, sort their keys.
pub const Writer = struct {
    bytes: std.ArrayList(u8) = .empty,

    pub fn raw(w: *Writer, bytes: []const u8) Error!void {
        try w.bytes.appendSlice(allocator, bytes);
    }

    fn head(w: *Writer, major: Major, arg: u64) Error!void {
        const top = @as(u8, @intFromEnum(major)) << 5;
        if (arg < 24) return w.raw(&.{top | @as(u8, @as(u8, @intCast(arg)))});
        if (arg <= 0xff) return w.big(top | 24, u8, @as(u8, @intCast(arg)));
        if (arg <= 0xffff) return w.big(top | 25, u16, @as(u16, @intCast(arg)));
        if (arg <= 0xffffffff) return w.big(top | 26, u32, @as(u32, @intCast(arg)));
        return w.big(top | 27, u64, arg);
    }

    fn big(w: *Writer, first: u8, comptime T: type, value: T) Error!void {
        var bytes: [1 + @sizeOf(T)]u8 = undefined;
        bytes[0] = first;
        std.mem.writeInt(T, bytes[1..], value, .big);
        return w.raw(&bytes);
    }

    fn string(w: *Writer, major: Major, bytes: []const u8) Error!void {
        try w.head(major, bytes.len);
        return w.raw(bytes);
    }

    fn float(w: *Writer, value: f64) Error!void {
        if (value != value) return w.big(HALF, u16, 0x7e00);
        const half: f16 = @floatCast(value);
        if (half == value) return w.big(HALF, u16, @as(u16, @bitCast(half)));
        const single: f32 = @floatCast(value);
        if (single == value) return w.big(SINGLE, u32, @as(u32, @bitCast(single)));
        return w.big(DOUBLE, u64, @as(u64, @bitCast(value)));
    }

    /// Begins an array; write its elements next.
    pub fn array(w: *Writer, size: usize) Error!void {
        return w.head(.array, size);
    }

    /// Begins a map; write its keys and values next, with the keys in order.
    pub fn map(w: *Writer, size: usize) Error!void {
        return w.head(.map, size);
    }
};

/// Writes a value of any type that `decode` reads. A type with `pub fn encode(value:
/// @This(), w: *Writer) Error!void` writes itself. A struct leaves out fields that
/// are null, and has its keys in deterministic order (RFC 8949, 4.2.1).
pub fn encode(value: anytype, w: *Writer) Error!void {
    const T = @TypeOf(value);
    switch (@typeInfo(T)) {
        .void, .null => return w.raw(&.{NULL}),
        .bool => return w.raw(&.{if (value) TRUE else FALSE}),
        .int, .comptime_int => return encodeInt(value, w),
        .float, .comptime_float => return w.float(value),
        .optional => return if (value) |v| encode(v, w) else w.raw(&.{NULL}),
        .pointer => |p| return switch (p.size) {
            .slice => if (p.child == u8) encodeText(value, w) else encodeSlice(value, w),
            .one => if (@typeInfo(p.child) == .array) encode(@as([]const std.meta.Elem(p.child), value), w) else encode(value.*, w),
            else => @compileError("wasm_jobs cannot write a " ++ @typeName(T)),
        },
        .@"enum" => return if (@hasDecl(T, "encode")) value.encode(w) else w.string(.text, @tagName(value)),
        .@"struct" => |s| {
            if (@hasDecl(T, "encode")) return value.encode(w);
            return if (s.is_tuple) encodeTuple(value, w) else encodeStruct(value, w);
        },
        .@"union" => return value.encode(w),
        else => @compileError("wasm_jobs cannot write a " ++ @typeName(T)),
    }
}

fn encodeInt(value: i128, w: *Writer) Error!void {
    const arg = std.math.cast(u64, if (value < 0) -1 - value else value) orelse
        return fail(.permanent, "the output has an integer that CBOR has no type for: {d}", .{value});
    return w.head(if (value < 0) .negint else .uint, arg);
}

fn encodeText(text: []const u8, w: *Writer) Error!void {
    if (!std.unicode.utf8ValidateSlice(text)) return fail(.permanent, "the output has a text that is not UTF-8", .{});
    return w.string(.text, text);
}

fn encodeSlice(items: anytype, w: *Writer) Error!void {
    try w.array(items.len);
    for (items) |item| try encode(item, w);
}

fn encodeTuple(tuple: anytype, w: *Writer) Error!void {
    try w.array(tuple.len);
    inline for (tuple) |item| try encode(item, w);
}

fn encodeStruct(value: anytype, w: *Writer) Error!void {
    const names = comptime sortedNames(@TypeOf(value));
    var size: usize = names.len;
    inline for (names) |name| {
        if (isNull(@field(value, name))) size -= 1;
    }
    try w.map(size);
    inline for (names) |name| {
        if (!isNull(@field(value, name))) {
            try w.string(.text, name);
            try encode(@field(value, name), w);
        }
    }
}

fn isNull(value: anytype) bool {
    return if (@typeInfo(@TypeOf(value)) == .optional) value == null else false;
}

fn sortedNames(comptime T: type) []const []const u8 {
    const fields = @typeInfo(T).@"struct".fields;
    var names: [fields.len][]const u8 = undefined;
    for (fields, &names) |f, *name| name.* = f.name;
    const before = struct {
        fn before(_: void, a: []const u8, b: []const u8) bool {
            return if (a.len != b.len) a.len < b.len else std.mem.lessThan(u8, a, b);
        }
    }.before;
    @setEvalBranchQuota(10_000 + 100 * fields.len * fields.len);
    std.sort.insertion([]const u8, &names, {}, before);
    const sorted = names;
    return &sorted;
}

// Types.

/// A byte string.
pub const Bytes = struct {
    bytes: []const u8 = "",

    pub fn decode(r: *Reader) Error!Bytes {
        return .{ .bytes = try r.string(.bytes, "a byte string") };
    }

    pub fn encode(b: Bytes, w: *Writer) Error!void {
        return w.string(.bytes, b.bytes);
    }
};

/// The bytes of a byte string or of a text, which is not checked for UTF-8. It is
/// written as a byte string.
pub const AnyString = struct {
    bytes: []const u8 = "",

    pub fn decode(r: *Reader) Error!AnyString {
        const major: Major = if (try r.major() == .text) .text else .bytes;
        return .{ .bytes = try r.string(major, "a text or byte string") };
    }

    pub fn encode(s: AnyString, w: *Writer) Error!void {
        return w.string(.bytes, s.bytes);
    }
};

/// A map from keys to values of one type each; `of` is a hash map of the standard
/// library. A duplicate key is an error when the map is read.
pub fn Map(comptime K: type, comptime V: type) type {
    return struct {
        of: Of = .empty,

        const Self = @This();
        const Of = if (K == []const u8) std.array_hash_map.String(V) else std.array_hash_map.Auto(K, V);

        pub fn get(m: Self, key: K) ?V {
            return m.of.get(key);
        }

        pub fn put(m: *Self, key: K, value: V) Error!void {
            try m.of.put(allocator, key, value);
        }

        pub fn decode(r: *Reader) Error!Self {
            var m = Self{};
            var left = try r.map();
            while (try r.next(&left)) {
                const start = r.at;
                const key = sdk.decode(K, r) catch |e| return r.inKey(e, "(key)");
                const encoded = r.bytes[start..r.at];
                const value = sdk.decode(V, r) catch |e| return r.inKey(e, try keyName(encoded));
                const entry = try m.of.getOrPut(allocator, key);
                if (entry.found_existing) return r.inKey(r.invalid("duplicate key", .{}), try keyName(encoded));
                entry.value_ptr.* = value;
            }
            return m;
        }

        pub fn encode(m: Self, w: *Writer) Error!void {
            var encoded = Writer{};
            const keys = try allocator.alloc(Key, m.of.count());
            for (m.of.keys(), keys, 0..) |key, *k, i| {
                k.* = .{ .start = encoded.bytes.items.len, .end = undefined, .index = i };
                try sdk.encode(key, &encoded);
                k.end = encoded.bytes.items.len;
            }
            const bytes = encoded.bytes.items;
            std.mem.sort(Key, keys, bytes, Key.before);
            try w.map(keys.len);
            for (keys) |k| {
                try w.raw(bytes[k.start..k.end]);
                try sdk.encode(m.of.values()[k.index], w);
            }
        }
    };
}

/// The position of an encoded key among others.
const Key = struct {
    start: usize,
    end: usize,
    index: usize,

    fn before(bytes: []const u8, a: Key, b: Key) bool {
        return std.mem.lessThan(u8, bytes[a.start..a.end], bytes[b.start..b.end]);
    }
};

/// The text of an encoded key, or its bytes in hex.
fn keyName(key: []const u8) Error![]const u8 {
    var r = Reader{ .bytes = key };
    return r.text() catch print("0x{x}", .{key[0..@min(key.len, 16)]});
}

/// A chunk's id.
pub const Id = union(enum) {
    uint: u64,
    text: []const u8,

    pub fn decode(r: *Reader) Error!Id {
        return switch (try r.major()) {
            .uint => .{ .uint = try r.integer(u64) },
            .text => .{ .text = try r.text() },
            else => r.want("an unsigned integer or a text"),
        };
    }

    pub fn encode(id: Id, w: *Writer) Error!void {
        return switch (id) {
            .uint => |n| w.head(.uint, n),
            .text => |text| w.string(.text, text),
        };
    }
};

/// An array that is read one element at a time: the input of `aggregate`, as
/// Items(struct { Id, Output }), and of `merge`, as Items(Partial).
///
///     while (try outputs.next()) |entry| sum += entry[1];
pub fn Items(comptime T: type) type {
    return struct {
        r: Reader,
        left: Left,
        index: usize = 0,
        done: bool = false,

        const Self = @This();

        pub fn decode(r: *Reader) Error!Self {
            if (try r.major() != .array) return r.want("an array");
            var inside = Reader{ .bytes = try r.skip() };
            const left = try inside.array();
            return .{ .r = inside, .left = left };
        }

        /// The next element; null = there is none. If it has another type, the call
        /// fails.
        pub fn next(items: *Self) Error!?T {
            if (items.done or !try items.r.next(&items.left)) {
                items.done = true;
                return null;
            }
            defer items.index += 1;
            return sdk.decode(T, &items.r) catch |e| {
                items.done = true;
                return refused(&items.r, items.r.inIndex(e, items.index));
            };
        }
    };
}

/// One item of any type, as its original bytes.
pub const Raw = struct {
    bytes: []const u8,

    pub fn decode(r: *Reader) Error!Raw {
        return .{ .bytes = try r.skip() };
    }

    pub fn encode(raw: Raw, w: *Writer) Error!void {
        return w.raw(raw.bytes);
    }

    /// Reads the item as a type. If it has another type, the call fails.
    pub fn as(raw: Raw, comptime T: type) Error!T {
        var r = Reader{ .bytes = raw.bytes };
        return whole(T, &r) catch |e| refused(&r, e);
    }

    /// Reads the item as a type; null = it has another type.
    pub fn tryAs(raw: Raw, comptime T: type) ?T {
        var r = Reader{ .bytes = raw.bytes };
        return whole(T, &r) catch null;
    }

    /// Reads the value of a text key; null = there is none with that type.
    pub fn tryField(raw: Raw, comptime T: type, name: []const u8) ?T {
        return raw.find(T, name) catch null;
    }

    fn find(raw: Raw, comptime T: type, name: []const u8) Error!?T {
        var r = Reader{ .bytes = raw.bytes };
        var found: ?T = null;
        var left = try r.map();
        while (try r.next(&left)) {
            if (!std.mem.eql(u8, try r.key() orelse "", name)) {
                _ = try r.skip();
            } else if (found != null) {
                return null;
            } else {
                found = try sdk.decode(T, &r);
            }
        }
        return found;
    }
};

/// One item of any type. It keeps tags, undefined, and the order and duplicates of
/// keys, but not the widths of heads and floats, nor the payloads of NaNs.
pub const Value = union(enum) {
    uint: u64,
    negint: u64, // the integer -1 - n
    bytes: []const u8,
    text: []const u8,
    array: []const Value,
    map: []const Pair,
    tag: *const Tagged,
    bool: bool,
    null,
    undefined,
    simple: u8, // another simple value
    float: f64,

    pub const Pair = struct { key: Value, value: Value };
    pub const Tagged = struct { tag: u64, value: Value };

    /// The value of a text key in a map; null = there is none, or it is not a map.
    pub fn get(v: Value, key: []const u8) ?Value {
        if (v == .map) for (v.map) |pair| {
            if (pair.key == .text and std.mem.eql(u8, pair.key.text, key)) return pair.value;
        };
        return null;
    }

    pub fn decode(r: *Reader) Error!Value {
        return switch (try r.major()) {
            .uint => .{ .uint = (try r.head()).arg },
            .negint => .{ .negint = (try r.head()).arg },
            .bytes => .{ .bytes = try r.string(.bytes, "") },
            .text => .{ .text = try r.text() },
            .array => .{ .array = try decodeSlice(Value, r) },
            .map => .{ .map = try pairs(r) },
            .tag => tagged(r),
            .simple => simpleOrFloat(r),
        };
    }

    fn pairs(r: *Reader) Error![]const Pair {
        var left = try r.map();
        var all = std.ArrayList(Pair).empty;
        while (try r.next(&left)) {
            const start = r.at;
            const key = try Value.decode(r);
            const encoded = r.bytes[start..r.at];
            const value = Value.decode(r) catch |e| return r.inKey(e, try keyName(encoded));
            try all.append(allocator, .{ .key = key, .value = value });
        }
        return all.items;
    }

    fn tagged(r: *Reader) Error!Value {
        const to = try allocator.create(Tagged);
        to.tag = (try r.head()).arg;
        try r.deeper();
        to.value = try Value.decode(r);
        r.depth -= 1;
        return .{ .tag = to };
    }

    fn simpleOrFloat(r: *Reader) Error!Value {
        switch (try r.peek()) {
            HALF...DOUBLE => return .{ .float = try r.float(f64) },
            else => {},
        }
        const arg: u8 = @intCast((try r.head()).arg);
        return switch (arg) {
            FALSE & 31 => .{ .bool = false },
            TRUE & 31 => .{ .bool = true },
            NULL & 31 => .null,
            UNDEFINED & 31 => .undefined,
            else => .{ .simple = arg },
        };
    }

    pub fn encode(v: Value, w: *Writer) Error!void {
        switch (v) {
            .uint => |n| try w.head(.uint, n),
            .negint => |n| try w.head(.negint, n),
            .bytes => |bytes| try w.string(.bytes, bytes),
            .text => |text| try encodeText(text, w),
            .array => |items| {
                try w.array(items.len);
                for (items) |item| try item.encode(w);
            },
            .map => |all| {
                try w.map(all.len);
                for (all) |pair| {
                    try pair.key.encode(w);
                    try pair.value.encode(w);
                }
            },
            .tag => |t| {
                try w.head(.tag, t.tag);
                try t.value.encode(w);
            },
            .bool => |b| try w.raw(&.{if (b) TRUE else FALSE}),
            .null => try w.raw(&.{NULL}),
            .undefined => try w.raw(&.{UNDEFINED}),
            .simple => |n| try w.head(.simple, n),
            .float => |f| try w.float(f),
        }
    }
};

/// Reads bytes that are exactly one item.
fn whole(comptime T: type, r: *Reader) Error!T {
    const value = try decode(T, r);
    try r.finish();
    return value;
}

/// Makes the call fail with the error of a reader.
fn refused(r: *const Reader, e: Error) Error {
    return if (e == error.Invalid) fail(.permanent, "{s}", .{try r.message(input_name)}) else e;
}

/// The bytes of one item.
pub fn toBytes(value: anytype) Error![]const u8 {
    var w = Writer{};
    try encode(value, &w);
    return w.bytes.items;
}

/// Reads bytes that are exactly one item. Another type is error.Failed.
pub fn fromBytes(comptime T: type, bytes: []const u8) Error!T {
    var r = Reader{ .bytes = bytes };
    return whole(T, &r) catch |e| refused(&r, e);
}

// The host.

const sdk = @This();

const host = if (is_wasm) struct {
    extern "wasm_jobs" fn fail(kind: u32, ptr: [*]const u8, size: usize) void;
    extern "wasm_jobs" fn log(level: i32, ptr: [*]const u8, size: usize) void;
    extern "wasm_jobs" fn heartbeat() u32;
} else struct {
    // Replaces the host in native tests.
    fn log(level: i32, ptr: [*]const u8, size: usize) void {
        std.debug.print("{d} {s}\n", .{ level, ptr[0..size] });
    }

    fn heartbeat() u32 {
        return 1;
    }
};

/// The level of a log line.
pub const Level = enum(i32) { debug = -4, info = 0, warn = 4, err = 8 };

/// Logs one line of at most 4 KiB; a call may log 1,000 lines and 64 KiB.
pub fn log(level: Level, comptime format: []const u8, args: anytype) void {
    logAt(@intFromEnum(level), print(format, args) catch return);
}

/// Logs at any level, as in Go's log/slog.
pub fn logAt(level: i32, line: []const u8) void {
    host.log(level, within(line), line.len);
}

/// The address of bytes; it is within memory even if they are empty.
fn within(bytes: []const u8) [*]const u8 {
    return if (bytes.len == 0) "." else bytes.ptr;
}

/// Tells the host that the guest still works, and renews the attempt's time limit.
/// After false the attempt has failed, and the handler should return.
pub fn heartbeat() bool {
    return host.heartbeat() == 1;
}

/// Logs the message of a panic, and traps. To use it, a guest has: pub const panic
/// = wasm_jobs.panic;
pub const panic = std.debug.FullPanic(panicked);

fn panicked(message: []const u8, _: ?usize) noreturn {
    var line: [512]u8 = undefined;
    const start = message[0..@min(message.len, line.len - "panic: ".len)];
    logAt(@intFromEnum(Level.err), std.fmt.bufPrint(&line, "panic: {s}", .{start}) catch start);
    @trap();
}

// The name of the input of the current call in messages.
var input_name: []const u8 = "";

/// The result of a call.
pub const Outcome = union(enum) { output: []const u8, failure: Failure };

/// Runs a handler on encoded bytes, like the host: for tests. Messages name the
/// input by the export.
pub fn call(comptime name: []const u8, comptime handler: anytype, input: []const u8) Outcome {
    failure = null;
    input_name = if (comptime std.mem.eql(u8, name, "exec"))
        "chunk"
    else if (comptime std.mem.eql(u8, name, "aggregate"))
        "outputs"
    else if (comptime std.mem.eql(u8, name, "merge"))
        "partials"
    else
        "context";
    const output = handle(handler, input) catch |e| failed(e);
    if (failure) |f| return .{ .failure = f };
    return .{ .output = output };
}

fn handle(comptime handler: anytype, input: []const u8) ![]const u8 {
    const f = @typeInfo(@TypeOf(handler)).@"fn";
    const value = try fromBytes(f.params[0].type.?, input);
    const result = handler(value);
    return toBytes(if (@typeInfo(f.return_type.?) == .error_union) try result else result);
}

fn failed(e: anyerror) []const u8 {
    if (e == error.OutOfMemory) @panic("out of memory");
    fail(.permanent, "{s}", .{@errorName(e)}) catch {};
    return "";
}

/// Exports handlers: functions from a type that `decode` reads to one that `encode`
/// writes, or an error. `.exec` is required; `.aggregate`, `.merge` and `.setup` are
/// not. Call it in a `comptime` block.
pub fn guest(comptime handlers: anytype) void {
    if (!@hasField(@TypeOf(handlers), "exec")) @compileError("a guest needs .exec");
    inline for (@typeInfo(@TypeOf(handlers)).@"struct".fields) |f| {
        const handler = @field(handlers, f.name);
        const Export = struct {
            fn run(input: [*]const u8, size: usize) callconv(.c) u64 {
                return give(call(f.name, handler, input[0..size]));
            }
        };
        if (is_wasm) @export(&Export.run, .{ .name = f.name });
    }
    if (is_wasm) @export(&allocInput, .{ .name = "alloc" });
}

/// Memory for an input; null = there is none.
fn allocInput(size: usize) callconv(.c) ?[*]u8 {
    const room = allocator.alignedAlloc(u8, .@"8", @max(size, 1)) catch return null;
    return room.ptr;
}

fn give(outcome: Outcome) u64 {
    switch (outcome) {
        .output => |bytes| return @as(u64, @intFromPtr(bytes.ptr)) << 32 | bytes.len,
        .failure => |f| {
            host.fail(@intFromEnum(f.kind), within(f.message), f.message.len);
            return 0;
        },
    }
}
